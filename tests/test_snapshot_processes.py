"""Real servers that compact their logs: one that was away gets a snapshot while writes go on, through kill -9."""

from __future__ import annotations

import contextlib
import pathlib
import signal

import pytest
from processes import ask, converse, terminate, wait_until
from real_servers import Server, Writer, leader_of, three_servers

pytestmark = pytest.mark.process

BANDWIDTH = 32 * 1024
"""Of snapshots, in bytes per second."""


@pytest.fixture
def servers(tmp_path: pathlib.Path) -> list[Server]:
    """Three servers that do not run yet; each takes a snapshot every few hundred writes, and sends them slowly."""
    return three_servers(
        tmp_path,
        "log_segment_bytes=16 KiB",
        "snapshot_log_bytes=8 KiB",
        "snapshot_ratio=1",
        "log_keep_entries=0",
        f"snapshot_bandwidth={BANDWIDTH}",
    )


def files(server: Server, pattern: str) -> list[pathlib.Path]:
    return sorted((server.directory / "raft-data").glob(pattern))


def snapshot_bytes(server: Server) -> int:
    """The size of the newest."""
    return files(server, "snapshots/*.snapshot")[-1].stat().st_size


def begins_at(server: Server) -> int:
    """The sequence of the first segment of its log."""
    return int(files(server, "raft.log.0*")[0].suffix[1:])


def test_who_was_away_for_longer_than_the_log_is_sent_a_snapshot(
    servers: list[Server], stack: contextlib.ExitStack
) -> None:
    """S01, S06, S07, S09, S14: the receiver, and then the sender, is killed while one is under way."""
    for server in servers:
        server.start(stack)
    leader = leader_of(servers)
    away = next(server for server in servers if server is not leader)
    away.kill()
    writer = Writer(servers)
    wait_until(lambda: begins_at(leader) > 1, "the leader's log no longer begins at its beginning")
    # As much as takes seconds to send: there is time to see it come, and to kill.
    lines = [f"set wide{number} {'x' * 1000}" for number in range(5 * BANDWIDTH // 1000)]
    assert all(answer.startswith("OK") for answer in converse(leader.client_port, lines))
    wait_until(lambda: snapshot_bytes(leader) > 5 * BANDWIDTH, "the leader's snapshot holds that")
    away.start(stack)
    wait_until(lambda: files(away, "snapshots/*.part"), "a snapshot is on its way")
    away.kill()
    away.start(stack)
    wait_until(lambda: files(away, "snapshots/*.part"), "it goes on")
    leader.kill()
    writer.has_gone_on()
    leader.start(stack)
    wait_until(lambda: files(away, "snapshots/*.snapshot"), "a snapshot is there")
    writer.has_gone_on()
    expected = writer.stop()
    last = leader_of(servers)
    assert ask(last.client_port, "set last the-very-last-value").startswith("OK")
    wait_until(lambda: away.has_on_disk(b"the-very-last-value"), "what came after the snapshot is there, too")
    for server in servers:
        assert server.process is not None
        assert terminate(server.process) == -signal.SIGTERM
        server.process = None
        # Bounded, whatever was written: the oldest snapshot that is kept, and what came after it.
        assert len(files(server, "snapshots/*.snapshot")) <= 2
        assert not files(server, "snapshots/*.tmp")
    away.start(stack)
    servers[servers.index(leader)].start(stack)
    alone = leader_of([away, leader])
    lost = [
        key
        for key, value in expected.items()
        if ask(alone.client_port, f"get {key.decode()}") != f"OK {value.decode()}"
    ]
    assert not lost, f"{len(lost)} of {len(expected)} acknowledged writes are missing"
