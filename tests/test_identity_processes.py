"""Real servers: a majority is gone for good, the last one goes on, and those that were given up are refused."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from processes import DEADLINE_S, RAFTCTL, ask, environment, free_ports, wait_until
from real_servers import Server
from test_grow import TIMINGS, Cluster, ids, server_id, succeeded

pytestmark = pytest.mark.process


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def recover(server: Server, typed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RAFTCTL, "recover", "--config", "raft.conf"],
        cwd=server.directory,
        env=environment(),
        input=typed,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def why(cluster: Cluster, server: Server) -> str:
    return " ".join(json.loads(cluster.raftctl("why", "--json", at=server).stdout).get("waiting_for", []))


def wipe(server: Server) -> None:
    """Its disk is gone, and so is what made it a founder."""
    shutil.rmtree(server.directory / "raft-data")


def founders(cluster: Cluster) -> list[Server]:
    """Three servers that were configured as a cluster, and run."""
    ports = free_ports(3)
    servers = ",".join(f"127.0.0.1:{port}" for port in ports)
    return [cluster.start(rpc_port=port, timings=(*TIMINGS, f"servers={servers}")) for port in ports]


def test_two_of_three_are_gone_and_the_third_goes_on_without_them(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    a, b, c = founders(cluster)
    wait_until(lambda: any(server.is_leader for server in (a, b, c)), "a leader")
    leader = next(server for server in (a, b, c) if server.is_leader)
    for number in range(20):
        assert ask(leader.client_port, f"set key{number} value{number}").startswith("OK")
    wait_until(lambda: a.has_on_disk(b"value19"), "everything is on the disk that will be left")
    # One server runs, and can do nothing: it says why. Asking to recover it while it runs is refused.
    b.kill()
    c.kill()
    wait_until(lambda: "No leader is known" in why(cluster, a), "it says that there is no leader")
    assert "in use by another process" in recover(a, "txraft\n").stderr
    a.kill()
    # A slip of the finger changes nothing.
    assert "not confirmed; nothing was changed" in recover(a, "yes\n").stderr
    shown = succeeded(recover(a, "txraft\n"))
    assert "known to be committed: up to entry " in shown
    a.start(cluster.stack)
    wait_until(lambda: a.is_leader, "it leads on its own")
    assert ask(a.client_port, "get key19").endswith("value19")
    # New servers come in; what was given up comes back, and is refused with what to do.
    d, e = cluster.start(), cluster.start()
    succeeded(cluster.raftctl("add", server_id(d), server_id(e), at=a))
    assert cluster.voters(a) == ids(a, d, e)
    b.start(cluster.stack)
    wait_until(lambda: "which was recovered without it" in why(cluster, b), "the old member is told")
    assert "give it an empty data directory" in why(cluster, b)
    assert ask(b.client_port, "set key0 lost").startswith("OK") is False
    # And so it is done.
    b.kill()
    wipe(b)
    text = (b.directory / "raft.conf").read_text()
    (b.directory / "raft.conf").write_text(
        "\n".join(line for line in text.split("\n") if not line.startswith("servers"))
    )
    b.start(cluster.stack)
    succeeded(cluster.raftctl("add", server_id(b), at=a))
    assert cluster.voters(a) == ids(a, b, d, e)
    wait_until(lambda: b.has_on_disk(b"value19"), "it has got everything")


def test_a_wiped_founder_is_refused_by_servers_that_start_after_it_and_says_what_to_do(cluster: Cluster) -> None:
    """M10, M11."""
    a, b, c = founders(cluster)
    wait_until(lambda: any(server.is_leader for server in (a, b, c)), "a leader")
    leader = next(server for server in (a, b, c) if server.is_leader)
    for number in range(3):
        assert ask(leader.client_port, f"set key{number} value{number}").startswith("OK")
    for server in (a, b, c):
        wait_until(lambda server=server: server.has_on_disk(b"value2"), "everything is everywhere")
        server.kill()
    wipe(c)
    c.start(cluster.stack)
    a.start(cluster.stack)
    wait_until(lambda: "has lost its data" in why(cluster, c), "it is told")
    assert "remove it from the cluster and add it again" in why(cluster, c)
    assert not a.is_leader and not c.is_leader
    b.start(cluster.stack)
    wait_until(lambda: a.is_leader or b.is_leader, "those that have everything go on")
    assert not c.is_leader
    leader = a if a.is_leader else b
    succeeded(cluster.raftctl("remove", server_id(c), at=leader))
    succeeded(cluster.raftctl("add", server_id(c), at=leader))
    wait_until(lambda: c.has_on_disk(b"value2"), "it has got everything")


def test_a_member_that_has_moved_to_another_port_is_told_of_and_stays_the_member(cluster: Cluster) -> None:
    """M19."""
    a, b = cluster.start(is_first=True), cluster.start()
    wait_until(lambda: a.is_leader, "the first server leads")
    moved_id = server_id(b)
    succeeded(cluster.raftctl("add", "--learner", moved_id, at=a))
    b.kill()
    [port] = free_ports(1)
    config = b.directory / "raft.conf"
    config.write_text(config.read_text().replace(f"rpc_port={b.rpc_port}", f"rpc_port={port}\nserver_id={moved_id}"))
    b.start(cluster.stack)
    assert "Done." in succeeded(cluster.raftctl("move", moved_id, f"127.0.0.1:{port}", at=a))
    assert ask(a.client_port, "set key value").startswith("OK")
    wait_until(lambda: b.has_on_disk(b"value"), "it is reached")
    [member] = [one for one in cluster.status(a)["members"] if one["server_id"] == moved_id]
    assert (member["role"], member["address"], member["link"]) == ("learner", f"127.0.0.1:{port}", "connected")
    assert cluster.raftctl("move", moved_id, f"127.0.0.1:{a.rpc_port}", at=a).returncode == 1
