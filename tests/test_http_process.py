"""The admin HTTP of real servers, asked by nothing but Python's own client: what curl or a browser would send."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import signal
import threading
from typing import Any

import pytest
from http_support import Answer, check
from processes import DEADLINE_S, TWISTD, free_ports, run, started, terminate, wait_until
from real_servers import Server

pytestmark = pytest.mark.process

TOKEN = "0123456789-abcdefghij"


class Admin(Server):
    """A server with an admin port. `conf` are more lines of its raft.conf."""

    http_port: int
    authorization: str

    @classmethod
    def make(cls, parent: pathlib.Path, *conf: str, is_first: bool = False) -> Admin:
        client_port, rpc_port, http_port = free_ports(3)
        directory = parent / str(rpc_port)
        directory.mkdir()
        lines = [f"rpc_port={rpc_port}", f"kv_port={client_port}", f"http_server_port={http_port}", *conf]
        lines += [f"servers=127.0.0.1:{rpc_port}"] if is_first else []
        (directory / "raft.conf").write_text("\n".join([*lines, ""]))
        server = cls(directory, client_port, rpc_port)
        server.http_port, server.authorization = http_port, ""
        return server

    @property
    def id(self) -> str:
        return f"127.0.0.1:{self.rpc_port}"

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        """As http_support's: an answer of the API is checked against the OpenAPI document."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=DEADLINE_S)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.authorization:
            named["Authorization"] = self.authorization
        with contextlib.closing(connection):
            connection.request(method, path, body or None, named)
            got = connection.getresponse()
            answer = Answer(got.status, dict(got.getheaders()), got.read())
        check(method, path.partition("?")[0], answer)
        return answer

    def post(self, path: str, value: object) -> Answer:
        return self.ask("POST", path, json.dumps(value), content_type="application/json")

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.ask("GET", "/v1/status").json
        except OSError:
            return {"role": "not there"}
        return found


def start_all(stack: contextlib.ExitStack, *servers: Admin) -> None:
    for server in servers:
        server.start(stack)
    for server in servers:
        wait_until(lambda: server.status()["role"] in ("leader", "passive"), "its admin HTTP")  # noqa: B023


def test_three_servers_are_added_handed_over_and_removed_by_plain_http(tmp_path, stack):
    """M07, M13: and each server knows where the leader's operators are served."""
    a = Admin.make(tmp_path, is_first=True)
    b, c = Admin.make(tmp_path), Admin.make(tmp_path)
    start_all(stack, a, b, c)
    plan = a.post("/v1/members/plan", {"add": [b.id, "127.0.0.1:1"]}).json
    assert [(found["server_id"], found["is_reachable"]) for found in plan["servers"]] == [
        ("127.0.0.1:1", False),
        (b.id, True),
    ]
    assert "refused" in plan["servers"][0]["detail"]
    assert b.status()["role"] == "passive", "it was only looked at"
    added = a.post("/v1/members/add", {"servers": [b.id, c.id]})
    assert (added.code, [member["role"] for member in added.json["members"]]) == (200, ["voter"] * 3)
    assert a.post("/v1/transfer", {"server": b.id}).json["leader_id"] == b.id
    refused = a.post("/v1/members/remove", {"servers": [c.id]})
    told = (refused.code, refused.json["error"]["leader_id"], refused.json["error"]["leader_admin_address"])
    assert told == (421, b.id, f"127.0.0.1:{b.http_port}")
    removed = b.ask("POST", f"/remove_server?server={c.id}")
    assert removed.text == f"OK 127.0.0.1:{b.http_port}\n"
    assert b.ask("GET", "/list_server").text.splitlines()[1:] == sorted([a.id, b.id])
    wait_until(lambda: c.status()["role"] == "removed", "it learns of it")
    assert "has removed this server" in c.ask("GET", "/v1/why").json["waiting_for"][0]
    page = b.ask("GET", "/stat")
    assert (page.code, f"http://127.0.0.1:{a.http_port}/" in page.text) == (200, True)
    assert b.ask("GET", f"/remove_server?server={a.id}").code == 405
    assert b.ask("POST", f"/remove_server?server={a.id}", origin="http://evil.example").code == 403
    assert b.ask("GET", "/v1/status", host="evil.example").code == 403
    assert len(b.status()["members"]) == 2


def test_a_server_that_has_moved_is_reached_where_it_is_now(tmp_path, stack):
    """M19: with the id and the data that it had."""
    a = Admin.make(tmp_path, is_first=True)
    b, c = Admin.make(tmp_path), Admin.make(tmp_path)
    start_all(stack, a, b, c)
    assert a.post("/v1/members/add", {"servers": [b.id, c.id]}).code == 200
    assert b.process is not None
    terminate(b.process)
    conf = b.directory / "raft.conf"
    conf.write_text(conf.read_text() + "rpc_bind_ip=127.0.0.2\n")
    b.start(stack)
    moved_to = f"127.0.0.2:{b.rpc_port}"
    wait_until(lambda: b.status()["role"] in ("follower", "pre-candidate"), "it is there again")
    plan = a.post("/v1/members/plan", {"move": {b.id: moved_to}}).json
    assert plan["servers"] == [{"server_id": b.id, "is_reachable": True, "detail": "reachable"}]
    answer = a.post("/v1/members/move", {"servers": {b.id: moved_to}})
    assert {member["server_id"]: member["address"] for member in answer.json["members"]}[b.id] == moved_to
    assert a.ask("POST", "/append_log_entry?content=x").text.startswith("OK ")
    goal = a.status()["last_index"]
    wait_until(lambda: b.status()["last_index"] >= goal, "it has what was written since")
    assert b.status()["leader_id"] == a.id


def test_a_change_that_is_under_way_at_the_end_is_answered_before_it(tmp_path, stack):
    """T13: SIGTERM while a request is held open."""
    a = Admin.make(tmp_path, is_first=True)
    start_all(stack, a)
    answers: list[Answer] = []
    asked = threading.Thread(target=lambda: answers.append(a.post("/v1/members/add", {"servers": ["127.0.0.1:1"]})))
    asked.start()
    wait_until(lambda: a.ask("GET", "/v1/progress").json["catching_up"], "the change has begun")
    idle = http.client.HTTPConnection("127.0.0.1", a.http_port, timeout=DEADLINE_S)
    idle.connect()
    assert a.process is not None
    assert terminate(a.process) == -signal.SIGTERM
    asked.join(DEADLINE_S)
    assert [(answer.code, answer.json["error"]["code"]) for answer in answers] in (
        [(503, "stopped")],
        [(504, "outcome_unknown")],
    )
    idle.close()
    assert "Traceback" not in (a.directory / "output").read_text()


def test_a_server_for_everybody_wants_its_token_and_never_logs_it(tmp_path, stack):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    a = Admin.make(tmp_path, "http_bind_ip=0.0.0.0", f"admin_token_file={token}", is_first=True)
    a.authorization = f"Bearer {TOKEN}"
    start_all(stack, a)
    assert a.ask("POST", "/append_log_entry?content=a-secret-entry").text.startswith("OK ")
    a.authorization = "Bearer wrong"
    assert a.ask("GET", "/").code == a.post("/v1/transfer", {"server": a.id}).code == 401
    output = (a.directory / "output").read_text()
    assert "asked for /append_log_entry" in output
    assert TOKEN not in output and "a-secret-entry" not in output


def test_a_token_that_others_can_read_ends_the_start_with_one_line(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    a = Admin.make(tmp_path, f"admin_token_file={token}", is_first=True)
    result = run([*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf"], a.directory)
    assert result.returncode == 1
    [line] = [line for line in (result.stdout + result.stderr).splitlines() if "admin_token_file" in line]
    assert "raft.conf:4: admin_token_file: " in line
    assert not (a.directory / "raft-data").exists()


def test_an_admin_port_that_is_off_is_not_there(tmp_path):
    a = Admin.make(tmp_path, is_first=True)
    conf = a.directory / "raft.conf"
    conf.write_text(conf.read_text().replace(f"http_server_port={a.http_port}", "http_server_port=off"))
    with started([*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf"], a.directory) as process:
        a.process = process
        wait_until(lambda: a.is_leader, "a leader")
        assert a.status() == {"role": "not there"}
