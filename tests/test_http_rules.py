"""Who may use the admin HTTP, what a GET can never do, and what is in every answer."""

from __future__ import annotations

import base64
import os
import pathlib

import pytest
from http_support import CHANGES, ORIGINAL_CHANGES, Admin, started
from memory_links import log_lines
from test_config import parse
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from txraft.admin.http_answers import SECURITY_HEADERS
from txraft.admin.http_gate import read_token
from txraft.admin.http_requests import MAX_BODY_BYTES, MAX_DISCARDED_BYTES
from txraft.admin.http_site import all_endpoints
from txraft.errors import ConfigError
from txraft.tap import make_http

TOKEN = b"0123456789abcdef-secret"
JSON = "application/json"


def state_of(cluster):
    """All that a changing request could change."""
    rafts = [node.raft for node in cluster.running()]
    return [(raft.term, raft.log.last_index, raft.membership, raft.role.name, raft.leader_id) for raft in rafts]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "post"])
@pytest.mark.parametrize("path", [*CHANGES, *ORIGINAL_CHANGES])
def test_nothing_is_changed_but_by_post(path, method):
    """Original 29."""
    cluster, admin = started(size=2, passive=1)
    before = state_of(cluster)
    body = b'{"servers": ["s3"], "server": "s2"}'
    answer = admin.ask(method, f"{path}?server=s3&content=x", body, content_type=JSON)
    assert (answer.code, answer.headers["Allow"]) == (405, "POST")
    assert method == "HEAD" or b"POST only" in answer.body
    cluster.run(1)
    assert state_of(cluster) == before


def test_every_page_answers_head_as_get_without_the_body():
    cluster, admin = started()
    before = state_of(cluster)
    for endpoint in all_endpoints(admin.operations):
        if endpoint.method == "GET":
            got, head = (admin.ask(method, endpoint.path) for method in ("GET", "HEAD"))
            assert (head.code, head.body) == (200, b"")
            assert head.headers["Content-Type"] == got.headers["Content-Type"]
            posted = admin.post(endpoint.path, {})
            assert (posted.code, posted.headers["Allow"]) == (405, "GET, HEAD")
    assert state_of(cluster) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:29999"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://127.0.0.1:29998.evil.example"},
        {"origin": "http://evil.example/http://127.0.0.1:29998"},
        {"origin": "http://127.0.0.1:29998", "host": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", [*CHANGES, *ORIGINAL_CHANGES])
def test_a_page_of_another_origin_changes_nothing(path, headers):
    cluster, admin = started(size=2, passive=1)
    before = state_of(cluster)
    answer = admin.ask("POST", f"{path}?server=s3&content=x", b'{"servers": ["s3"]}', content_type=JSON, **headers)
    assert answer.code == 403
    cluster.run(1)
    assert state_of(cluster) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:29998", "sec_fetch_site": "same-origin"},
        {"origin": "https://node.example", "host": "node.example"},
        {"sec_fetch_site": "none"},
        {},
    ],
)
def test_our_own_page_and_what_is_no_browser_may_change_things(headers):
    _, admin = started(size=1)
    body, form = b"content=hello", "application/x-www-form-urlencoded"
    assert admin.ask("POST", "/append_log_entry", body, content_type=form, **headers).text.startswith("OK ")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:29998",
        "127.0.0.1.evil.example",
        "node.example.evil.example",
        "evil-node.example",
        "localhost.evil.example",
        "a b",
        "[::1",
        "s1,s2",
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/status", "/nowhere", "/v1/nowhere"])
def test_a_host_that_is_not_this_server_is_refused(host, path):
    """An attacker's name may lead to this address: DNS rebinding."""
    _, admin = started(size=1)
    answer = admin.ask("GET", path, host=host)
    assert (answer.code, b"s1" in answer.body) == (403, False)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "10.1.2.3:29998", "[::1]:29998", "node.example.:80", ""])
def test_this_server_is_called_by_address_by_localhost_and_by_its_own_names(host):
    _, admin = started(size=1)
    assert admin.ask("GET", "/v1/status", host=host).code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        f"Bearer {TOKEN.decode()}x",
        f"Bearer {TOKEN[:-1].decode()}",
        f"bearer:{TOKEN.decode()}",
        "Basic !",
        "Basic " + base64.b64encode(b"admin:wrong").decode(),
        "Basic " + base64.b64encode(TOKEN).decode(),
        f"Digest {TOKEN.decode()}",
    ],
)
def test_without_the_token_nothing_is_said_and_nothing_done(authorization):
    cluster, admin = started(size=1, token=TOKEN)
    before = state_of(cluster)
    for method, path in [("GET", "/"), ("GET", "/v1/status"), ("POST", "/v1/transfer"), ("GET", "/nowhere")]:
        answer = admin.ask(method, path, authorization=authorization)
        assert answer.code == 401
        assert "Bearer" in "".join(answer.headers.values()) or "Basic" in answer.headers["WWW-Authenticate"]
        assert b"s1" not in answer.body
    assert state_of(cluster) == before


def test_the_token_is_compared_in_a_time_that_tells_nothing(monkeypatch):
    """No answer shows it: what compares them is made for it, and is given digests, which have one length."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("txraft.admin.http_gate.hmac.compare_digest", compare)
    _, admin = started(size=1, token=TOKEN)
    codes = [admin.ask("GET", "/v1/status", authorization=f"Bearer {word}").code for word in ("x", TOKEN.decode())]
    assert (codes, compared) == ([401, 200], [(32, 32), (32, 32)])


def test_the_port_is_bound_where_raft_conf_says():
    _, admin = started(size=1)
    for text, host in [("", "127.0.0.1"), ("http_bind_ip=127.0.0.9", "127.0.0.9")]:
        port, _ = make_http(parse(text), admin.operations, Clock())
        assert (port._host, port._port) == (host, 29998)


def test_the_token_opens_as_a_bearers_and_as_a_browsers_password():
    _, admin = started(size=1, token=TOKEN)
    basic = base64.b64encode(b"anybody:" + TOKEN).decode()
    for authorization in (f"Bearer {TOKEN.decode()}", f"bearer  {TOKEN.decode()} ", f"Basic {basic}"):
        assert admin.ask("GET", "/v1/status", authorization=authorization).code == 200


def test_the_token_does_not_open_for_a_page_of_another_origin():
    _, admin = started(size=1, token=TOKEN)
    bearer = f"Bearer {TOKEN.decode()}"
    assert admin.post("/v1/transfer", {"server": "s1"}, authorization=bearer).code == 200
    refused = admin.post("/v1/transfer", {"server": "s1"}, authorization=bearer, origin="http://evil.example")
    assert refused.code == 403


def test_a_form_is_no_json_whatever_is_in_it():
    _, admin = started(size=1)
    for content_type in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = admin.ask("POST", "/v1/transfer", b'{"server": "s1"}', content_type=content_type)
        assert (answer.code, "application/json" in answer.json["error"]["message"]) == (400, True)


@pytest.mark.parametrize("path", ["/v1/transfer", "/append_log_entry"])
def test_a_body_that_is_too_long_is_refused(path):
    cluster, admin = started(size=1)
    before = state_of(cluster)
    answer = admin.ask("POST", path, b"x" * (MAX_BODY_BYTES + 1), content_type=JSON)
    assert b"longer than" in answer.body or answer.text.startswith("ERROR")
    assert state_of(cluster) == before


def test_a_body_without_end_is_not_kept_and_ends_the_connection():
    """N01: nothing is buffered beyond what any request needs."""
    _, admin = started(size=1)
    exchange = admin.send(b"POST /v1/transfer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    sent = 0
    while not exchange.transport.disconnecting:
        exchange.channel.dataReceived(chunk)
        sent += 0x8000
        assert sent <= MAX_BODY_BYTES + MAX_DISCARDED_BYTES + 0x8000
        assert exchange.channel._channel.requests[0].content.tell() <= MAX_BODY_BYTES + 1


def test_a_head_without_end_ends_the_connection():
    _, admin = started(size=1)
    exchange = admin.send(b"GET / HTTP/1.1\r\n")
    for number in range(1000):
        if exchange.transport.disconnecting:
            break
        exchange.channel.dataReceived(b"X-%d: %s\r\n" % (number, b"x" * 100))
    assert exchange.transport.disconnecting


def test_a_silent_connection_is_closed():
    """N03."""
    cluster, admin = started(size=1)
    exchange = admin.send(b"GET / HT")
    cluster.run(61)
    assert exchange.transport.disconnecting


def test_the_log_says_who_asked_for_which_change_and_nothing_of_what_is_in_it():
    _, admin = started(size=1, token=TOKEN)
    bearer = f"Bearer {TOKEN.decode()}"
    with log_lines() as lines:
        admin.ask("GET", "/v1/status?x=private", authorization=bearer)
        admin.ask("POST", "/append_log_entry?content=private", b"content=private", authorization=bearer)
        admin.ask("POST", "/append_log_entry?content=private", authorization="Bearer private")
    asked = [line for line in lines if "asked for" in line]
    assert asked == [f"192.168.1.1:54321 asked for /append_log_entry: {code}" for code in (200, 401)]
    assert not [line for line in lines if "private" in line or TOKEN.decode() in line]


def test_every_answer_has_the_headers_that_keep_browsers_in():
    _, admin = started(size=1)
    answers = [admin.ask("GET", path) for path in ("/", "/v1/status", "/nowhere", "/list_server")]
    answers += [admin.ask("GET", "/", host="evil.example"), admin.post("/add_server", {})]
    for answer in answers:
        assert SECURITY_HEADERS.items() <= answer.headers.items()
        assert "Set-Cookie" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert SECURITY_HEADERS["Referrer-Policy"] == "same-origin", "else our own forms name no origin"


def test_what_goes_wrong_in_here_tells_strangers_nothing(monkeypatch):
    _, admin = started(size=1)
    monkeypatch.setattr(admin.operations, "status", lambda: 1 / 0)
    answer = admin.ask("GET", "/v1/status")
    assert (answer.code, answer.json["error"]["code"]) == (500, "internal_error")
    assert b"division" not in answer.body and b"Traceback" not in answer.body


def test_nothing_is_there_where_nothing_is():
    _, admin = started(size=1)
    for path in ("/favicon.ico", "//", "/v1", "/v1/", "/v1/members/", "/stat/", "/../etc/passwd", "/%2e", "*", "/STAT"):
        assert admin.ask("GET", path).code in (404, 405), path


def test_a_pipelined_second_request_waits_for_the_answer_to_the_first():
    _, admin = started(size=1)
    one = b"GET /v1/why HTTP/1.1\r\nHost: localhost\r\n\r\n"
    transport: StringTransport = admin.send(one * 3).transport
    assert transport.value().count(b"HTTP/1.1 200 OK") == 3


def write(path: pathlib.Path, text: str, mode: int) -> str:
    path.write_text(text)
    os.chmod(path, mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_token_is_a_word_in_a_file_of_its_owner(tmp_path, mode):
    assert read_token(write(tmp_path / "token", "  secret-secret-secret\n", mode)) == b"secret-secret-secret"


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("secret-secret-secret", 0o644, "chmod 640"),
        ("secret-secret-secret", 0o602, "chmod 640"),
        ("secret-secret-secret", 0o660, "chmod 640"),
        ("short", 0o600, "16 characters or more"),
        ("", 0o600, "16 characters or more"),
        ("two words are no token", 0o600, "one word"),
        ("sécret-sécret-sécret", 0o600, "one word"),
    ],
)
def test_a_token_that_others_can_read_or_guess_is_refused(tmp_path, text, mode, why):
    with pytest.raises(ConfigError, match=why):
        read_token(write(tmp_path / "token", text, mode))


def test_a_token_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"admin_token_file: .*token cannot be read: No such file"):
        read_token(str(tmp_path / "token"))


def test_a_gate_does_not_show_its_token():
    _, admin = started(size=1, token=TOKEN)
    assert "secret" not in repr(admin.resource._gate)
    assert isinstance(admin, Admin)
