"""
Real servers, real disk, kill -9: what was acknowledged is there afterwards, on every server.

What a server holds is read from its data directory once it is down, with the code that a start would use.
"""

from __future__ import annotations

import contextlib
import pathlib
import signal

import pytest
from processes import ask, terminate, wait_until
from real_servers import Server, Writer, assert_all_is_there, leader_of, three_servers

pytestmark = pytest.mark.process


@pytest.fixture
def servers(tmp_path: pathlib.Path, stack: contextlib.ExitStack) -> list[Server]:
    """Three servers that run and have a leader."""
    servers = three_servers(tmp_path, "log_segment_bytes=64 KiB")
    for server in servers:
        server.start(stack)
    leader_of(servers)
    return servers


def test_kill_9_of_the_leader_of_a_follower_and_of_all_loses_nothing_acknowledged(servers, stack):
    writer = Writer(servers)
    writer.has_gone_on()
    for _ in range(2):
        leader = leader_of(servers)
        leader.kill()
        writer.has_gone_on()
        leader.start(stack)
        writer.has_gone_on()
    leader = leader_of(servers)
    follower = next(server for server in servers if server is not leader)
    follower.kill()
    writer.has_gone_on()
    follower.start(stack)
    writer.has_gone_on()
    for server in servers:
        server.kill()
    for server in servers:
        server.start(stack)
    writer.has_gone_on()
    expected = writer.stop()
    assert len(expected) >= 210
    assert_all_is_there(servers, expected)


def test_sigterm_of_the_leader_under_load_loses_nothing(servers, stack):
    """T13."""
    writer = Writer(servers)
    writer.has_gone_on()
    leader = leader_of(servers)
    assert leader.process is not None
    assert terminate(leader.process) == -signal.SIGTERM
    leader.process = None
    writer.has_gone_on()
    leader.start(stack)
    assert_all_is_there(servers, writer.stop())


def test_a_torn_tail_is_cut_at_the_start_and_logged(servers, stack):
    """D04: what a crash in the middle of a write leaves."""
    victim = next(server for server in servers if not server.is_leader)
    assert ask(leader_of(servers).client_port, "set a before").startswith("OK")
    wait_until(lambda: victim.has_on_disk(b"before"), "the follower has it")
    victim.kill()
    newest = max((victim.directory / "raft-data").glob("raft.log.0*"))
    content = bytearray(newest.read_bytes())
    end = len(content.rstrip(b"\0"))
    torn = -(-end // 16) * 16
    content[torn + 16 : torn + 48] = b"x" * 32  # the record's first bytes never arrived
    newest.write_bytes(content)
    victim.start(stack)
    wait_until(lambda: b": cut " in (victim.directory / "output").read_bytes(), "the log says so")
    line = next(line for line in (victim.directory / "output").read_text().splitlines() if ": cut " in line)
    assert newest.name in line
    assert str(torn) in line
    assert ask(leader_of(servers).client_port, "set b after").startswith("OK")
    wait_until(lambda: victim.has_on_disk(b"after"), "it takes part again")
