"""Real servers: the state is saved while clients write, and another cluster begins with it."""

from __future__ import annotations

import contextlib
import pathlib
import re

import pytest
from processes import RAFTCTL, converse, free_ports, run, wait_until
from real_servers import Server, Writer
from test_grow import Cluster, server_id

pytestmark = pytest.mark.process


def missing_in(server: Server, numbers: list[int]) -> list[int]:
    """Those numbers that the server does not answer with their value."""
    answers = converse(server.client_port, [f"get key{number}" for number in numbers])
    assert len(answers) == len(numbers)
    return [number for number, answer in zip(numbers, answers, strict=True) if answer != f"OK value{number}"]


def test_what_was_acknowledged_before_a_backup_is_in_the_cluster_that_is_made_of_it(
    tmp_path: pathlib.Path, stack: contextlib.ExitStack
) -> None:
    """M16, M17, S08: saved by the leader and by another server, while a client writes."""
    old = Cluster(tmp_path, stack)
    a, b = old.start(is_first=True), old.start()
    wait_until(lambda: a.is_leader, "a leader")
    assert old.raftctl("add", server_id(b), at=a).returncode == 0
    writer = Writer([a, b])
    stack.callback(writer.stop)
    writer.has_gone_on(200)
    taken = old.raftctl("snapshot", server_id(b), at=a)
    assert taken.returncode == 0, taken.stderr
    assert re.match(r"Everything up to entry [\d,]+ is in it: [\d,]+ bytes, taken in \d+\.\d\d s with a", taken.stdout)
    acknowledged = {}
    for name, arguments in {"one": (), "two": (server_id(b),)}.items():
        writer.has_gone_on(50)
        acknowledged[name] = list(writer.acknowledged)
        saved = old.raftctl("backup", str(tmp_path / name), *arguments, at=a)
        assert saved.returncode == 0, saved.stderr
        assert saved.stderr == "", "no bar in a pipe"
    again = old.raftctl("backup", str(tmp_path / "one"), at=a)
    assert (again.returncode, "there already" in again.stderr) == (1, True)
    writer.has_gone_on(50)
    writer.stop()
    restored(tmp_path, "one", acknowledged["one"], stack)
    cluster, first = restored(tmp_path, "two", acknowledged["two"], stack)
    second_has_it(cluster, first, acknowledged["two"])
    assert old.voters(a) == sorted([server_id(a), server_id(b)]), "the old cluster knows nothing of it"
    assert missing_in(a if a.is_leader else b, writer.acknowledged[-20:]) == []


def restored(
    tmp_path: pathlib.Path, name: str, numbers: list[int], stack: contextlib.ExitStack
) -> tuple[Cluster, Server]:
    """Make a cluster of the backup of that name, which has all of that."""
    directory = tmp_path / f"new-{name}"
    directory.mkdir()
    new = Cluster(directory, stack)
    [rpc_port] = free_ports(1)
    made = run(
        [*RAFTCTL, "restore", f"../{name}", f"--data-dir={rpc_port}/raft-data", f"--server-id=127.0.0.1:{rpc_port}"],
        directory,
    )
    assert made.returncode == 0, made.stderr
    c = new.start(rpc_port=rpc_port)
    wait_until(lambda: c.is_leader, "it leads")
    assert missing_in(c, numbers) == []
    assert new.voters(c) == [server_id(c)]
    return new, c


def second_has_it(new: Cluster, c: Server, numbers: list[int]) -> None:
    """A server that is added has the same, and both go on together."""
    d = new.start()
    added = new.raftctl("add", server_id(d), at=c)
    assert added.returncode == 0, added.stderr
    assert new.raftctl("transfer", server_id(d), at=c).returncode == 0
    wait_until(lambda: d.is_leader, "the second leads")
    assert missing_in(d, numbers) == []
    assert converse(d.client_port, ["set later yes"])[0].startswith("OK")
