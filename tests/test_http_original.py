"""The original's paths: `STATUS leader` in one line, once it is decided; and its page."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from http_support import ORIGINAL_CHANGES, Admin, follower_of, started

from txraft.admin.http_page import PATHS

FORM = "application/x-www-form-urlencoded"

# What has become HTML, script, attribute, header or terminal command somewhere before.
NASTY = [
    "<script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "&lt;b&gt; &amp; &#60;b&#62;",
    "</pre></td></tr></table><form action=http://evil.example method=post>",
    "<!-- ", "]]>", "<![CDATA[<b>]]>", "{{7*7}} ${7*7} %s %d",
    "\r\nSet-Cookie: a=b\r\n\r\n<b>", "\x00\x1b[31m\u202e\ufeff", "<svg/onload=alert(1)>", "ＳＣＲＩＰＴ＜＞",
]  # fmt: skip


def post(admin: Admin, path: str, **fields: str) -> str:
    return admin.ask("POST", f"{path}?{urlencode(fields)}").text.rstrip("\n")


def test_the_cluster_is_grown_shrunk_and_handed_over_as_with_the_original():
    cluster, admin = started(size=1, passive=2)
    assert post(admin, "/add_server", server="s2") == "OK s1.example:29998"
    assert post(admin, "/add_server", server="s3") == "OK s1.example:29998"
    assert admin.ask("GET", "/list_server").text == "OK s1.example:29998\ns1\ns2\ns3\n"
    assert post(admin, "/append_log_entry", content="hello") == "OK s1.example:29998"
    assert post(admin, "/leader_transfer", server="s2") == "OK s2.example:29998"
    assert post(admin, "/remove_server", server="s1") == "NOT_LEADER s2.example:29998"
    leader = Admin(cluster, cluster.elect())
    assert post(leader, "/remove_server", server="s1") == "OK s2.example:29998"


@pytest.mark.parametrize(
    ("path", "server", "word"),
    [
        ("/add_server", "", "EMPTY_SERVER"),
        ("/remove_server", " , ", "EMPTY_SERVER"),
        ("/leader_transfer", "", "EMPTY_SERVER"),
        ("/add_server", "s1", "IN_CFG"),
        ("/add_server", "a b", "INVALID_SERVER"),
        ("/remove_server", "s9", "NOT_IN_CFG"),
        ("/remove_server", "a b", "INVALID_SERVER"),
        ("/remove_server", "s1,s2", "INVALID_SERVER"),
        ("/leader_transfer", "s9", "NOT_IN_CFG"),
        ("/leader_transfer", "s1,s2", "INVALID_SERVER"),
        ("/leader_transfer", "s3", "INVALID_SERVER"),
    ],
)
def test_each_refusal_has_the_originals_word(path, server, word):
    _, admin = started(size=2, passive=1)
    admin.post("/v1/members/add", {"servers": ["s3"], "learner": True})
    leader = admin.operations.node.settings.server_id
    assert post(admin, path, server=server) == f"{word} {leader}.example:29998"


def test_another_change_under_way_is_limit_and_a_server_that_is_not_there_timeout():
    cluster, admin = started(size=3, passive=1)
    cluster.crash("s4")
    asked = admin.begin("POST", "/add_server?server=s4")
    cluster.run(0.1)
    assert post(admin, "/add_server", server="s9").startswith("LIMIT ")
    assert cluster.run_until(lambda: asked.is_answered)
    assert asked.answer.text.startswith("TIMEOUT ")


@pytest.mark.parametrize("path", ORIGINAL_CHANGES)
def test_a_server_without_a_leader_names_none(path):
    """A passive server waits to be added, and knows nobody."""
    cluster, _ = started(size=1, passive=1)
    passive = Admin(cluster, cluster.node("s2"))
    assert post(passive, path, server="s1", content="x") == "NOT_LEADER"
    assert passive.ask("GET", "/list_server").text == "NOT_LEADER\n"


@pytest.mark.parametrize("path", ORIGINAL_CHANGES)
def test_a_stopped_server_answers_error(path):
    cluster, admin = started(size=1)
    admin.operations.node.stopService()
    cluster.run(10)
    assert post(admin, path, server="s9", content="x") == "ERROR"


def test_an_append_without_content_and_one_of_nothing_are_two_things():
    _, admin = started(size=1)
    assert post(admin, "/append_log_entry", contents="x").startswith("INVALID_SERVER")
    assert post(admin, "/append_log_entry", content="").startswith("OK ")


def test_a_form_may_stand_in_the_body_and_a_field_only_once():
    _, admin = started(size=1)
    ask = lambda target, body: admin.ask("POST", target, body, content_type=FORM).text  # noqa: E731
    assert ask("/append_log_entry", b"content=a+b%21").startswith("OK ")
    [entry] = admin.operations.log(count=1, payloads=True)["entries"]
    assert entry["payload"] == "a b!"
    assert ask("/append_log_entry?content=x", b"content=y").startswith("INVALID_SERVER")
    assert ask("/append_log_entry", b"&".join(b"a%d=1" % n for n in range(200))).startswith("INVALID_SERVER")
    assert ask("/append_log_entry", b"content=%ff").startswith("INVALID_SERVER")


class Reader(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [found for name, found in self.elements if name == tag]


@pytest.mark.parametrize("path", PATHS)
def test_the_page_shows_what_an_operator_asks_first(path):
    cluster, admin = started()
    follower = follower_of(cluster, admin)
    leader_id, follower_id = (each.operations.node.settings.server_id for each in (admin, follower))
    page = Reader(admin.ask("GET", path).text)
    for word in ("leader", "term", "commit index", "up for", "Members", "Log", "configuration"):
        assert word in page.words
    assert {form["action"] for form in page.all("form")} == set(ORIGINAL_CHANGES)
    assert {form["method"] for form in page.all("form")} == {"post"}
    assert f"http://{follower_id}.example:29998/" in [link["href"] for link in page.all("a")]
    other = Reader(follower.ask("GET", path).text)
    assert other.all("form") == [], "only a leader changes anything"
    assert leader_id in other.words


def test_the_forms_of_the_page_do_what_they_say_from_a_browser():
    _, admin = started(size=1, passive=1)
    page = Reader(admin.ask("GET", "/").text)
    fields = {form["action"]: name for form, name in zip(page.all("form"), page.all("input"), strict=True)}
    from_browser = {"origin": "http://127.0.0.1:29998", "sec_fetch_site": "same-origin", "content_type": FORM}
    for action, value in (("/append_log_entry", "x"), ("/add_server", "s2"), ("/remove_server", "s2")):
        body = urlencode({fields[action]["name"]: value}).encode()
        assert admin.ask("POST", action, body, **from_browser).text == "OK s1.example:29998\n"


def test_the_page_of_a_server_that_waits_says_for_what():
    cluster, _ = started(size=1, passive=1)
    passive = Admin(cluster, cluster.node("s2"))
    assert "belongs to no cluster" in Reader(passive.ask("GET", "/").text).words


def test_the_log_is_shown_page_by_page():
    _, admin = started(size=1)
    for number in range(30):
        post(admin, "/append_log_entry", content=f"entry-{number}")
    page = Reader(admin.ask("GET", "/stat?count=5").text)
    assert "entry-" not in page.words
    links = {link["href"] for link in page.all("a") if link["href"].startswith("/stat?")}
    assert len(links) == 4
    for link in links:
        assert admin.ask("GET", link).code == 200
    shown = Reader(admin.ask("GET", "/stat?first=11&count=5&payloads=true").text)
    assert [f"entry-{number}" in shown.words for number in (6, 7, 11, 12)] == [False, True, True, False]
    assert admin.ask("GET", "/stat?count=0").code == 400


def test_from_page_to_older_page_every_entry_is_shown_once_and_back_again():
    _, admin = started(size=1)
    for number in range(23):
        post(admin, "/append_log_entry", content=f"entry-{number}")
    last = admin.ask("GET", "/v1/log").json["last_index"]
    pages, target = [], "/stat?count=5"
    while not pages or pages[-1][-1] != 1:
        page = admin.ask("GET", target).text
        pages.append([int(index) for index in re.findall(r'<tr><td class="number">(\d+)</td>', page)])
        target = html.unescape(re.search(r'href="([^"]*)">older<', page)[1])
    assert [index for shown in pages[:-1] for index in shown] == list(range(last, pages[-2][-1] - 1, -1))
    assert pages[-1] == list(range(5, 0, -1))
    newer = admin.ask("GET", html.unescape(re.search(r'href="([^"]*)">newer<', page)[1])).text
    assert re.findall(r'<tr><td class="number">(\d+)</td>', newer) == [str(index) for index in range(10, 5, -1)]


@pytest.mark.parametrize("text", NASTY)
def test_no_value_becomes_html(text):
    """Original 29: what is in the log, what a peer says of itself, and what is asked for."""
    cluster, admin = started(size=2)
    before = Reader(admin.ask("GET", "/?payloads=1&count=3").text)
    assert post(admin, "/append_log_entry", content=text).startswith("OK ")
    for server in cluster.servers.values():
        server.transport.advertise(type(server.node.addresses)(text, text))
        server.transport.disconnect()
    cluster.run(1)
    answer = admin.ask("GET", "/?payloads=1&count=3")
    page = Reader(answer.text)
    count = {tag: len(page.all(tag)) for tag in ("script", "img", "svg", "form", "style", "title", "b", "iframe")}
    assert count == {tag: len(before.all(tag)) for tag in count}
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    assert all(link["href"].startswith(("/stat?", "http://s")) for link in page.all("a"))
    assert text.replace("\r\n", "\n") in page.words.replace("\r\n", "\n")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("text", NASTY)
def test_what_is_asked_for_comes_back_as_text_and_never_as_html(text):
    _, admin = started(size=1)
    for target in (f"/{quote(text)}", f"/v1/{quote(text)}", f"/?first={quote(text)}", f"/v1/log?x={quote(text)}"):
        answer = admin.ask("GET", target)
        assert answer.code in (400, 404)
        assert answer.headers["Content-Type"].startswith(("text/plain", "application/json"))
    assert post(admin, "/add_server", server=text).startswith("INVALID_SERVER")


def test_the_style_is_the_one_that_the_policy_allows():
    _, admin = started(size=1)
    answer = admin.ask("GET", "/")
    style = answer.text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
