"""
Real servers: a cluster grows from one server, shrinks, hands over and replaces, by the commands of an operator, while a
client writes all the time.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from processes import RAFTCTL, RECONFIGURE, free_ports, run, started, wait_until
from real_servers import Server, Writer, assert_all_is_there

pytestmark = pytest.mark.process

# On a busy machine a follower may not run for longer than the usual timeouts: then the number of elections would say
# nothing of the changes.
TIMINGS = ("min_election_timeout=1500", "max_election_timeout=3000", "heartbeat_rate=200")


class Cluster:
    """Servers that run, in one directory each, all on 127.0.0.1 with ports of their own."""

    def __init__(self, directory: pathlib.Path, stack: contextlib.ExitStack) -> None:
        self.servers: list[Server] = []
        self._directory = directory
        self.stack = stack
        self._admin_ports: dict[int, int] = {}

    def start(self, is_first: bool = False, timings: Sequence[str] = TIMINGS, rpc_port: int = 0) -> Server:
        """One more server; not a member of anything unless it is the first. `timings` are lines of its raft.conf."""
        client_port, free_port, admin_port = free_ports(3)
        rpc_port = rpc_port or free_port
        directory = self._directory / str(rpc_port)
        directory.mkdir(exist_ok=True)
        own = [f"rpc_port={rpc_port}", f"kv_port={client_port}", f"http_server_port={admin_port}"]
        first = [f"servers=127.0.0.1:{rpc_port}"] if is_first else []
        (directory / "raft.conf").write_text("\n".join([*own, *first, *timings, ""]))
        server = Server(directory, client_port, rpc_port)
        server.start(self.stack)
        self._admin_ports[rpc_port] = admin_port
        self.servers.append(server)
        wait_until(lambda: self._answers(server), "its admin port")
        return server

    def admin(self, server: Server) -> str:
        return f"127.0.0.1:{self._admin_ports[server.rpc_port]}"

    def raftctl(self, *arguments: str, at: Server) -> subprocess.CompletedProcess[str]:
        return run([*RAFTCTL, *arguments, "--server", self.admin(at)], self._directory)

    def reconfigure(self, *arguments: str, at: Server) -> subprocess.CompletedProcess[str]:
        return run([*RECONFIGURE, "-l", self.admin(at), *arguments], self._directory)

    def status(self, at: Server) -> dict[str, Any]:
        """What `raftctl status` would ask for, without the time that a process takes to start."""
        with urllib.request.urlopen(f"http://{self.admin(at)}/v1/status", timeout=30) as answer:
            return json.load(answer)

    def _answers(self, server: Server) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.status(server))
        return False

    def voters(self, at: Server) -> list[str]:
        """As that server knows them."""
        return [member["server_id"] for member in self.status(at)["members"] if member["role"] == "voter"]


def server_id(server: Server) -> str:
    return f"127.0.0.1:{server.rpc_port}"


def ids(*servers: Server) -> list[str]:
    return sorted(map(server_id, servers))


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def succeeded(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_originals_readme_literally_and_all_else_under_a_writer_that_loses_nothing(cluster: Cluster) -> None:
    """M07, M13, M20. A pause of an election is counted by terms: each change says how many it may cost."""
    a, b, c = cluster.start(is_first=True), cluster.start(), cluster.start()
    wait_until(lambda: a.is_leader, "the first server leads")
    writer = Writer(cluster.servers)
    writer.has_gone_on()
    term = cluster.status(a)["term"]

    def all_went_well(elections: int, at: Server, *voters: Server) -> None:
        nonlocal term
        assert cluster.voters(at) == ids(*voters)
        writer.has_gone_on()
        now = cluster.status(at)["term"]
        assert now <= term + elections, (now, term)
        term = now

    # A bootstraps alone; B and C are asked in.
    said = succeeded(cluster.reconfigure("-a", f"{server_id(b)},{server_id(c)}", at=a))
    assert said.count("succeed") == 2
    all_went_well(0, a, a, b, c)
    # Whoever is asked: it finds the leader.
    succeeded(cluster.reconfigure(f"--del_servers={server_id(b)}", at=c))
    all_went_well(0, a, a, c)
    wait_until(lambda: cluster.status(b)["role"] == "removed", "who was removed knows it")
    succeeded(cluster.raftctl("add", server_id(b), at=a))
    all_went_well(0, a, a, b, c)
    # The leadership is handed over, without an election timeout.
    succeeded(cluster.reconfigure("-t", server_id(b), at=a))
    assert re.search(r"(?m)^role +leader$", succeeded(cluster.raftctl("status", at=b)))
    all_went_well(1, b, a, b, c)
    # A dead server is replaced by one that has nothing.
    c.kill()
    writer.has_gone_on()
    d = cluster.start()
    succeeded(cluster.raftctl("replace", server_id(c), server_id(d), at=a))
    all_went_well(0, b, a, b, d)
    # The leader removes itself.
    assert "Done." in succeeded(cluster.raftctl("remove", server_id(b), at=b))
    wait_until(lambda: a.is_leader or d.is_leader, "another leads")
    all_went_well(1, a, a, d)
    shown = succeeded(cluster.reconfigure("--show_servers", at=d))
    assert shown == f"server address list: {','.join(ids(a, d))}\n"
    assert_all_is_there([a, d], writer.stop())


def test_a_plan_says_who_cannot_be_reached_and_changes_nothing(cluster: Cluster) -> None:
    a, b = cluster.start(is_first=True), cluster.start()
    wait_until(lambda: a.is_leader, "the first server leads")
    before = cluster.status(a)["last_index"]
    planned = cluster.raftctl("add", "--plan", server_id(b), at=a)
    assert f"{server_id(b)}: can be reached from the leader." in succeeded(planned)
    [nobody] = free_ports(1)
    planned = cluster.raftctl("add", "--plan", f"127.0.0.1:{nobody}", "--json", at=a)
    assert planned.returncode == 1
    assert json.loads(planned.stdout)["servers"][0]["is_reachable"] is False
    assert cluster.raftctl("remove", "--plan", server_id(a), at=a).returncode == 1
    assert cluster.raftctl("transfer", "--plan", server_id(b), at=a).returncode == 1
    assert (cluster.voters(a), cluster.status(a)["last_index"]) == (ids(a), before)


def test_what_did_not_happen_is_status_1_and_leaves_no_trace(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    a = cluster.start(is_first=True, timings=())
    wait_until(lambda: a.is_leader, "the first server leads")
    refused = cluster.raftctl("remove", server_id(a), at=a)
    assert (refused.returncode, refused.stderr) == (1, "No voter would be left. Nothing was done.\n")
    # Ten election timeouts without a word from it.
    given_up = cluster.reconfigure("-a", f"127.0.0.1:{free_ports(1)[0]}", at=a)
    assert given_up.returncode == 1
    assert "could not catch up" in given_up.stderr
    assert "catches up: round 1 of" in given_up.stderr
    assert cluster.voters(a) == ids(a)
    assert "It waits for nothing." in succeeded(cluster.raftctl("why", at=a))
    piped = f"{shlex.join(RAFTCTL)} status --server {cluster.admin(a)} | true"
    assert run(["/bin/sh", "-c", piped], tmp_path).stderr == "", "nobody reads it: no error of ours"


def test_who_is_interrupted_is_told_that_it_may_still_happen(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    a = cluster.start(is_first=True)
    wait_until(lambda: a.is_leader, "the first server leads")
    command = [*RAFTCTL, "add", f"127.0.0.1:{free_ports(1)[0]}", "--server", cluster.admin(a)]
    output = tmp_path / "output"
    with started(command, tmp_path) as raftctl:
        wait_until(lambda: "catches up" in output.read_text(), "it waits")
        raftctl.send_signal(signal.SIGINT)
        assert raftctl.wait(30) == 1
    assert output.read_text().splitlines()[1:] == ["Interrupted: if it was a change, it may still happen."]
