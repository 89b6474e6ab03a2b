"""Sessions in whole servers: a command that is proposed again is carried out once, whatever happened in between."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from txraft import codec
from txraft.admin.restore import new_server
from txraft.core.change import Change
from txraft.core.membership import Membership
from txraft.errors import (
    AnswerNotKept,
    CommandTooLarge,
    FatalError,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    SessionExpired,
    Stopped,
)
from txraft.images import SnapshotWay
from txraft.interfaces import Identity
from txraft.node import RaftNode, Session
from txraft.sessions import SessionCommand
from txraft.storage.restored import Restoration
from txraft.storage.snapshot_file import SnapshotFileReader
from txraft.storage.stopped import Paths
from txraft.testing.cluster import Cluster
from txraft.testing.recording import RecordingMachine


def started(**settings: Any) -> tuple[Cluster, RaftNode]:
    cluster = Cluster(seed=1, **settings)
    cluster.start()
    return cluster, cluster.elect()


def outcome(cluster: Cluster, done: Deferred[Any]) -> Any:
    """What it fires with; the exception if it fails."""
    results: list[Any] = []
    done.addCallbacks(results.append, lambda failure: results.append(failure.value))
    assert cluster.run_until(lambda: bool(results))
    [result] = results
    return result


def opened(cluster: Cluster, node: RaftNode) -> Session:
    session = outcome(cluster, node.open_session())
    assert isinstance(session, Session)
    return session


def take(cluster: Cluster, server_id: str, way: SnapshotWay) -> int:
    witness = cluster.servers[server_id].witness
    assert witness is not None
    witness.snapshot_way = way
    index: int = outcome(cluster, cluster.node(server_id).take_snapshot()).meta.last_index
    return index


def settle(cluster: Cluster) -> None:
    """Every server has applied the same."""

    def is_level() -> bool:
        rafts = [node.raft for node in cluster.running() if node.raft is not None]
        return len({raft.applied_index for raft in rafts} | {raft.log.last_index for raft in rafts}) == 1

    assert cluster.run_until(is_level)
    assert len({b"".join(node.sessions.image()) for node in cluster.running()}) == 1


def move_leadership(cluster: Cluster, to: str) -> RaftNode:
    leader = cluster.elect()
    if leader.settings.server_id != to:
        outcome(cluster, leader.transfer_leadership(to))
    return cluster.elect()


def test_a_command_of_unknown_outcome_is_repeated_at_the_next_leader_and_carried_out_once():
    """C07, C10."""
    cluster, old = started()
    session = opened(cluster, old)
    settle(cluster)
    results: list[Any] = []
    session.propose(b"x").addBoth(results.append)
    sequence = session.last_sequence
    # It reaches the others, and their answers do not come back.
    old_id = old.settings.server_id
    for other in cluster.ids:
        if other != old_id:
            cluster.network.cut(other, old_id)
    assert cluster.run_until(lambda: bool(results))
    assert isinstance(results[0].value, OutcomeUnknown)
    assert session.lowest == sequence == 1
    assert cluster.run_until(lambda: cluster.leader() not in (None, old))
    new = cluster.elect()
    assert outcome(cluster, new.propose_in_session(session.id, sequence, b"x", session.lowest)) == 1
    assert outcome(cluster, new.propose_in_session(session.id, sequence, b"x", session.lowest)) == 1
    cluster.network.heal()
    settle(cluster)
    assert all(server.machine.commands == [b"x"] for server in cluster.servers.values())


@pytest.mark.parametrize("way", SnapshotWay)
def test_a_restart_from_a_snapshot_knows_what_was_carried_out(way):
    """S05."""
    cluster, leader = started()
    session = opened(cluster, leader)
    assert outcome(cluster, session.propose(b"x")) == 1
    settle(cluster)
    for server_id in cluster.ids:
        take(cluster, server_id, way)
    for server_id in cluster.ids:
        cluster.crash(server_id, keep="none")
    cluster.start()
    leader = cluster.elect()
    assert leader.status().sessions == 1
    assert outcome(cluster, leader.propose_in_session(session.id, 1, b"x", 1)) == 1
    # What the log behind the snapshot says of its sessions goes on with them.
    assert outcome(cluster, leader.propose_in_session(session.id, 2, b"y", 2)) == 2
    settle(cluster)
    assert all(server.machine.commands == [b"x", b"y"] for server in cluster.servers.values())
    cluster.check_replay()


def test_who_was_sent_a_snapshot_and_leads_knows_what_was_carried_out():
    """S05, C14."""
    cluster, leader = started()
    session = opened(cluster, leader)
    leader_id = leader.settings.server_id
    away = next(server_id for server_id in cluster.ids if server_id != leader_id)
    cluster.network.partition([away], [other for other in cluster.ids if other != away])
    assert outcome(cluster, session.propose(b"x")) == 1
    take(cluster, leader_id, SnapshotWay.FORK)
    cluster.network.heal()
    assert cluster.run_until(lambda: cluster.node(away).status().snapshots.received == 1)
    settle(cluster)
    new = move_leadership(cluster, away)
    assert outcome(cluster, new.propose_in_session(session.id, 1, b"x", 1)) == 1
    assert cluster.servers[away].machine.commands == [b"x"]


def test_the_bounds_are_those_of_the_leader_that_opens_also_on_servers_with_others():
    """C08: the tables are equal, though raft.conf is not."""
    cluster = Cluster(seed=1)
    for server_id, count in zip(cluster.ids, (1, 2, 3), strict=True):
        cluster._settings["max_sessions"] = count
        cluster.start(server_id)
    leader = move_leadership(cluster, "s2")
    first = opened(cluster, leader)
    assert isinstance(outcome(cluster, first.propose(b"x")), int)
    opened(cluster, leader)
    assert leader.status().sessions == 2
    opened(cluster, leader)
    settle(cluster)
    assert [node.status().sessions for node in cluster.running()] == [2, 2, 2]
    expired = outcome(cluster, first.propose(b"y"))
    assert isinstance(expired, SessionExpired)
    assert expired.session_id == first.id


def test_commands_with_and_without_a_session_are_answered_each_with_its_own_result_in_order():
    cluster, leader = started()
    one, other = opened(cluster, leader), opened(cluster, leader)
    proposed = [
        leader.propose(b"a"),
        one.propose(b"b"),
        leader.propose_many([b"c", b"d"]),
        leader.propose(b"e"),
        other.propose(b"f"),
        one.propose(b"g"),
    ]
    results: dict[int, Any] = {}
    for number, done in enumerate(proposed):
        done.addCallback(lambda result, number=number: results.__setitem__(number, result))
    assert cluster.run_until(lambda: len(results) == len(proposed))
    assert [results[number] for number in range(6)] == [1, 2, [3, 4], 5, 6, 7]
    settle(cluster)
    assert cluster.servers["s1"].machine.commands == [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]


def test_a_batch_of_many_clients_costs_one_of_everything(monkeypatch):
    """As without sessions, see test_budgets.py: 1 encode, 1 sync per server, 1 apply."""
    cluster = Cluster(seed=1)
    cluster.segment_bytes = 1 << 20
    cluster.start()
    leader = cluster.elect()
    sessions = [opened(cluster, leader) for _ in range(200)]
    leader.propose_many([b"warm up"] * 100)
    cluster.run(1)
    encoded: list[int] = []
    serialize = codec._serialize_run
    monkeypatch.setattr(codec, "_serialize_run", lambda run: encoded.append(run.first_index) or serialize(run))
    server = cluster.servers[leader.settings.server_id]
    syncs, calls = server.disk.calls["fdatasync"], server.machine.calls
    results: list[int] = []
    for session in sessions:
        session.propose(b"x").addCallback(results.append)
    assert cluster.run_until(lambda: len(results) == 200, 0.5)
    assert results == [*range(101, 301)]
    assert len(encoded) == 1
    assert server.disk.calls["fdatasync"] - syncs == 1
    assert server.machine.calls - calls == 1


def test_what_was_refused_is_no_answer_that_is_waited_for():
    """The client may go on with the next number, or propose the same command as a new one."""
    cluster, leader = started(max_command_bytes=100)
    session = opened(cluster, leader)
    assert isinstance(outcome(cluster, session.propose(b"x" * 101)), CommandTooLarge)
    assert session.lowest == 2
    assert outcome(cluster, session.propose(b"x" * 100)) == 1
    with pytest.raises(ValueError, match=r"command 2 of session .* is not without an answer"):
        session.propose(b"x", sequence=2)
    with pytest.raises(TypeError, match="a command is bytes, not str"):
        session.propose("text")
    assert (session.lowest, session.last_sequence) == (3, 2)


def test_others_than_the_leader_and_stopped_servers_refuse():
    cluster, leader = started()
    session = opened(cluster, leader)
    follower = next(node for node in cluster.running() if node is not leader)
    assert isinstance(outcome(cluster, follower.open_session()), NotLeader)
    assert isinstance(outcome(cluster, follower.propose_in_session(session.id, 1, b"x", 1)), NotLeader)
    cluster.stop()
    assert isinstance(outcome(cluster, session.propose(b"x")), Stopped)


def test_a_session_keeps_what_is_unknown_until_it_is_answered_or_given_up():
    attempts: list[tuple[int, int, Deferred[Any]]] = []

    def propose(session_id: str, sequence: int, command: bytes, lowest: int) -> Deferred[Any]:
        attempts.append((sequence, lowest, Deferred()))
        return attempts[-1][2]

    def fail(error: Exception) -> None:
        attempts[-1][2].errback(error)

    session = Session(propose, "1-00000000")
    failures: list[Any] = []
    session.propose(b"a").addErrback(failures.append)
    fail(OutcomeUnknown(5, "the leader went away"))
    session.propose(b"b").addErrback(failures.append)
    fail(NotLeader(None))
    # Neither refusal of the repetition says what became of the first attempt.
    for error in (NotLeader(None), Overloaded("max_uncommitted_bytes", 1)):
        session.propose(b"a", sequence=1).addErrback(failures.append)
        fail(error)
    assert [attempt[:2] for attempt in attempts] == [(1, 1), (2, 1), (1, 1), (1, 1)]
    assert session.lowest == 1
    with pytest.raises(ValueError, match=r"command 1 of session 1-0{8} is another one than before"):
        session.propose(b"b", sequence=1)
    session.propose(b"a", sequence=1)
    attempts[-1][2].callback("done")
    assert session.lowest == 3
    session.propose(b"c").addErrback(failures.append)
    fail(OutcomeUnknown(9, "the leader went away"))
    session.give_up(3)
    assert session.lowest == 4
    session.propose(b"d").addErrback(failures.append)
    fail(AnswerNotKept("the command was carried out, but"))
    assert session.lowest == 5
    # What a second attempt is refused says nothing of the first, which is still under way.
    session.propose(b"e").addErrback(failures.append)
    session.propose(b"e", sequence=5).addErrback(failures.append)
    fail(NotLeader(None))
    assert session.lowest == 5
    attempts[-2][2].errback(OutcomeUnknown(12, "the leader went away"))
    assert session.lowest == 5


@pytest.mark.parametrize("error", [NotLeader(None), Overloaded("x", 1), CommandTooLarge(2, "x", 1), Stopped(), None])
def test_what_a_refusal_does_not_call_undone_may_have_been_done(error):
    """C13: of two attempts one is cancelled, and may be in the log; the other was refused."""
    attempts: list[Deferred[Any]] = []

    def propose(session_id: str, sequence: int, command: bytes, lowest: int) -> Deferred[Any]:
        attempts.append(Deferred())
        return attempts[-1]

    error = error or SessionExpired("1-00000000")
    for is_cancelled_first in (True, False):
        session, failures = Session(propose, "1-00000000"), []
        outcomes = [session.propose(b"a"), session.propose(b"a", sequence=1)]
        for outcome in outcomes:
            outcome.addErrback(failures.append)
        steps = [outcomes[0].cancel, lambda: attempts[-1].errback(error)]
        for step in steps if is_cancelled_first else steps[::-1]:
            step()
            assert session.lowest == 1
        assert len(failures) == 2
        session.propose(b"a", sequence=1).addErrback(failures.append)
        attempts[-1].errback(FatalError("no matter what"))
        assert session.lowest == 1
        session.propose(b"b").addErrback(failures.append)
        session.give_up(1)
        attempts[-1].errback(error)
        assert session.lowest == 3, "the refusal alone says that nothing was done"


@pytest.mark.parametrize("is_in_log", [False, True])
def test_a_command_that_was_cancelled_and_is_proposed_again_is_carried_out_once(is_in_log):
    """C07: it was gathered only, or it is in the log."""
    cluster, leader = started()
    session = opened(cluster, leader)
    assert leader.raft is not None
    last_index = leader.raft.log.last_index
    attempt = session.propose(b"x")
    failures: list[Any] = []
    attempt.addErrback(failures.append)
    if is_in_log:
        cluster.run(0.001)
    assert leader.raft.log.last_index - last_index == is_in_log
    attempt.cancel()
    assert session.lowest == 1
    first = outcome(cluster, session.propose(b"x", sequence=1))
    assert session.lowest == 2
    assert outcome(cluster, session.propose(b"y")) == first + 1
    settle(cluster)
    assert all(server.machine.commands == [b"x", b"y"] for server in cluster.servers.values())


def test_a_result_that_cannot_be_kept_stops_no_server():
    class Machine(RecordingMachine):
        def apply(self, first_index, commands, time_ms):
            super().apply(first_index, commands, time_ms)
            return [{"a": 1} for _ in commands]

    cluster, leader = started(machine=Machine)
    session = opened(cluster, leader)
    for _ in range(2):
        refused = outcome(cluster, leader.propose_in_session(session.id, 1, b"x", 1))
        assert isinstance(refused, AnswerNotKept)
        assert "type dict" in str(refused)
    settle(cluster)
    assert all(server.machine.commands == [b"x"] for server in cluster.servers.values())
    assert [node.failure for node in cluster.running()] == [None] * 3


def test_a_new_server_has_the_sessions():
    cluster = Cluster(seed=1, size=1, passive=1)
    cluster.start()
    leader = cluster.elect()
    session = opened(cluster, leader)
    assert outcome(cluster, session.propose(b"x")) == 1
    take(cluster, "s1", SnapshotWay.INLINE)
    outcome(cluster, leader.change_membership(Change(voters=("s2",))))
    settle(cluster)
    new = move_leadership(cluster, "s2")
    assert outcome(cluster, new.propose_in_session(session.id, 1, b"x", 1)) == 1


def test_a_restored_cluster_goes_on_with_the_sessions_of_the_backup_and_knows_no_later_one():
    """S05, M17."""
    old, leader = started()
    session = opened(old, leader)
    assert outcome(old, session.propose(b"x")) == 1
    saved = outcome(old, leader.take_snapshot())
    later = opened(old, leader)
    name = f"{saved.meta.last_index:020d}-{saved.meta.last_term:020d}.snapshot"
    data = old.servers[leader.settings.server_id].disk.read_file(f"/data/snapshots/{name}")
    old.stop()
    new = Cluster(seed=6, size=1)
    disk = new.servers["s1"].disk
    disk.write_file("/backup", data)
    server = new_server(saved.meta, Identity("simulated.0.0000beef", "s1", 99))
    paths = Paths("/data", "/data/raft.log", "/data/raft.state", "/data/snapshots")
    Restoration(disk, paths, 4096).make(SnapshotFileReader(disk, "/backup"), server, lambda done, size: None)
    # What was true before the backup stays true, but for who the members are.
    new.record = old.record
    new.record.tables.clear()
    new._invariants._committed = old._invariants._committed[: saved.meta.last_index + 1]
    new._invariants._configurations.append((server.meta.membership_index, Membership.decode(server.meta.membership)))
    new.start()
    leader = new.elect()
    assert outcome(new, leader.propose_in_session(session.id, 1, b"x", 1)) == 1
    assert isinstance(outcome(new, leader.propose_in_session(later.id, 1, b"y", 1)), SessionExpired)
    assert outcome(new, leader.propose_in_session(session.id, 2, b"y", 2)) == 2
    assert new.servers["s1"].machine.commands == [b"x", b"y"]


# -- docs/sessions.md


def blocks() -> list[dict[str, Any]]:
    """What the Python blocks of the document define."""
    text = (pathlib.Path(__file__).parents[1] / "docs" / "sessions.md").read_text()
    found = []
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        names: dict[str, Any] = {}
        exec(block, names)
        found.append(names)
    return found


def test_the_first_example_of_the_document_adds_once():
    example = blocks()[0]
    attempts: list[tuple[int, Deferred[Any]]] = []

    def propose(session_id: str, sequence: int, command: bytes, lowest: int) -> Deferred[Any]:
        attempts.append((sequence, Deferred()))
        return attempts[-1][1]

    results: list[Any] = []
    example["add"](Session(propose, "1-00000000"), 5).addBoth(results.append)
    attempts[0][1].errback(OutcomeUnknown(5, "the leader went away"))
    attempts[1][1].callback(5)
    assert [sequence for sequence, _ in attempts] == [1, 1]
    assert results == [5]
    cluster, leader = started()
    assert outcome(cluster, example["add"](opened(cluster, leader), 5)) == 1


def test_the_second_example_of_the_document_takes_a_line_twice():
    example = blocks()[1]
    cluster, leader = started()
    session = opened(cluster, leader)
    line = session.id.encode() + b" 1 1 a command"
    for _ in range(2):
        assert outcome(cluster, example["carry_out"](leader, line)) == 1
        leader = move_leadership(
            cluster, next(node for node in cluster.running() if node is not leader).settings.server_id
        )
    settle(cluster)
    assert all(server.machine.commands == [b"a command"] for server in cluster.servers.values())


def test_the_document_says_how_long_an_entry_is():
    assert "takes 29 bytes more" in (pathlib.Path(__file__).parents[1] / "docs" / "sessions.md").read_text()
    assert len(SessionCommand.of("1-00000000", 1, 1, b"").encode()) == 29
