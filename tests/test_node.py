"""RaftNode: every Deferred fires once, with a result or a typed failure, whatever happens to the server."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.log import LogSlice
from txraft.core.messages import AppendEntries
from txraft.errors import (
    CommandTooLarge,
    FatalError,
    MachineError,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Stopped,
    StorageError,
)
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster
from txraft.testing.recording import RecordingMachine


class Outcome:
    """What a Deferred came to; it must do so once."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.fired: list[Any] = []
        deferred.addCallbacks(self.fired.append, lambda failure: self.fired.append(failure.value))

    @property
    def value(self) -> Any:
        (value,) = self.fired
        return value


def started(size: int = 1, machine: Callable[[], Any] = RecordingMachine, **settings: Any) -> tuple[Cluster, RaftNode]:
    cluster = Cluster(seed=1, size=size, machine=machine, **settings)
    cluster.start()
    return cluster, cluster.elect()


class ProposeAndRead(SynchronousTestCase):
    def test_a_proposal_fires_with_the_machines_result(self) -> None:
        cluster, node = started()
        outcome = Outcome(node.propose(b"x"))
        self.assertEqual(outcome.fired, [])
        cluster.run(0.1)
        self.assertEqual(outcome.value, 1)

    def test_many_are_appended_next_to_each_other_and_answered_in_order(self) -> None:
        cluster, node = started()
        outcomes = [
            Outcome(node.propose_many([b"a", b"b"])),
            Outcome(node.propose(b"c")),
            Outcome(node.propose_many([])),
        ]
        cluster.run(0.1)
        self.assertEqual([outcome.value for outcome in outcomes], [[1, 2], 3, []])

    def test_many_may_be_applied_in_parts(self) -> None:
        """The answer comes when the last of them has been applied."""

        class Slow(RecordingMachine):
            def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
                cluster.clock.now += 0.02 * len(commands)
                return super().apply(first_index, commands, time_ms)

        cluster, node = started(machine=Slow)
        Outcome(node.propose_many([b"warm up"] * 50))
        cluster.run(5)
        outcome = Outcome(node.propose_many([b"x"] * 50))
        cluster.run(5)
        self.assertEqual(outcome.value, list(range(51, 101)))

    def test_a_read_sees_everything_proposed_and_acknowledged_before(self) -> None:
        cluster, node = started(size=3)
        for expected in range(1, 6):
            Outcome(node.propose(b"x"))
            cluster.run(0.05)
            read = Outcome(node.read(b""))
            cluster.run(0.05)
            self.assertEqual(read.value, expected)

    def test_a_query_that_raises_fails_its_read_and_nothing_else(self) -> None:
        class Picky(RecordingMachine):
            def query(self, request: bytes) -> int:
                if request == b"bad":
                    raise KeyError("bad")
                return super().query(request)

        cluster, node = started(machine=Picky)
        bad, good, many = Outcome(node.read(b"bad")), Outcome(node.read(b"")), Outcome(node.read_many([b"bad", b""]))
        cluster.run(0.1)
        self.assertIsInstance(bad.value, KeyError)
        self.assertEqual(good.value, 0)
        self.assertIsInstance(many.value[0], KeyError)
        self.assertEqual(many.value[1], 0)
        self.assertIsNone(node.failure)

    def test_a_proposal_made_while_another_is_answered_is_a_turn_of_its_own(self) -> None:
        """T07: re-entrant use from a callback."""
        cluster, node = started()
        inner: list[Outcome] = []
        node.propose(b"outer").addCallback(lambda _: inner.append(Outcome(node.propose(b"inner"))))
        cluster.run(0.1)
        self.assertEqual(inner[0].value, 2)

    def test_a_proposal_made_inside_apply_is_a_turn_of_its_own(self) -> None:
        """T07: a machine that proposes (which it should not) breaks nothing."""
        nodes: list[RaftNode] = []

        class Proposing(RecordingMachine):
            def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
                if b"first" in commands:
                    nodes[0].propose(b"second")
                return super().apply(first_index, commands, time_ms)

        cluster, node = started(machine=Proposing)
        nodes.append(node)
        Outcome(node.propose(b"first"))
        cluster.run(0.1)
        self.assertEqual(node.machine._machine.commands, [b"first", b"second"])


class Refusals(SynchronousTestCase):
    def test_a_follower_names_the_leader_and_its_addresses(self) -> None:
        """original 26, 28."""
        cluster = Cluster(seed=1)
        cluster.start()
        leader = cluster.elect()
        leader.advertise(client_address="10.0.0.1:8877", admin_address="10.0.0.1:29998")
        cluster.network.reset()
        cluster.run(0.5)
        follower = next(node for node in cluster.running() if node is not leader)
        for outcome in (Outcome(follower.propose(b"x")), Outcome(follower.read(b""))):
            error = outcome.value
            self.assertIsInstance(error, NotLeader)
            self.assertEqual(
                (error.leader_id, error.client_address, error.admin_address),
                (leader.settings.server_id, "10.0.0.1:8877", "10.0.0.1:29998"),
            )

    def test_without_a_leader_none_is_named(self) -> None:
        cluster = Cluster(seed=1)
        cluster.start("s1")
        cluster.run(1)
        self.assertIsNone(Outcome(cluster.node("s1").propose(b"x")).value.leader_id)

    def test_a_command_over_its_limit_is_refused_before_anything_is_done(self) -> None:
        """T12."""
        cluster, node = started(max_command_bytes=10)
        for outcome in (Outcome(node.propose(b"x" * 11)), Outcome(node.propose_many([b"x", b"x" * 11]))):
            self.assertIsInstance(outcome.value, CommandTooLarge)
        self.assertIsInstance(Outcome(node.read(b"x" * 11)).value, CommandTooLarge)
        cluster.run(0.1)
        self.assertEqual(node.machine._machine.commands, [])

    def test_without_a_quorum_proposals_are_bounded(self) -> None:
        """T11: memory does not grow with the number of callers."""
        cluster, leader = started(size=3, max_uncommitted_bytes=1000)
        me = leader.settings.server_id
        cluster.network.partition([me], [other for other in cluster.ids if other != me])
        outcomes = [Outcome(leader.propose(b"x" * 92)) for _ in range(100)]
        refused = [outcome for outcome in outcomes if outcome.fired]
        self.assertEqual(len(refused), 90)
        self.assertEqual({type(outcome.value) for outcome in refused}, {Overloaded})
        self.assertEqual(refused[0].value.bound, "max_uncommitted_bytes")
        cluster.run(2)
        self.assertEqual({type(outcome.value) for outcome in outcomes}, {Overloaded, OutcomeUnknown})

    def test_reads_are_bounded(self) -> None:
        cluster, leader = started(size=3, max_pending_reads=10)
        outcomes = [Outcome(leader.read(b"")) for _ in range(12)]
        self.assertEqual([type(outcome.value) for outcome in outcomes if outcome.fired], [Overloaded] * 2)
        cluster.run(0.1)
        self.assertEqual([outcome.value for outcome in outcomes[:10]], [0] * 10)
        self.assertEqual(Outcome(leader.read(b"")).fired, [], "answered reads make room")

    def test_before_the_start_and_after_the_stop_everything_is_refused(self) -> None:
        cluster, node = started()
        node.stopService()
        cluster.run(1)
        for outcome in (Outcome(node.propose(b"x")), Outcome(node.read(b""))):
            self.assertIsInstance(outcome.value, Stopped)


class Ends(SynchronousTestCase):
    def test_stopping_answers_what_is_under_way_first(self) -> None:
        """T13: SIGTERM loses nothing."""
        cluster, leader = started(size=3)
        outcomes = [Outcome(leader.propose(b"x")) for _ in range(10)]
        stopped = Outcome(leader.stopService())
        self.assertIsInstance(Outcome(leader.propose(b"late")).value, Stopped)
        cluster.run(1)
        self.assertEqual([outcome.value for outcome in outcomes], list(range(1, 11)))
        self.assertEqual(stopped.fired, [None])

    def test_stopping_waits_no_longer_than_its_deadline(self) -> None:
        """C12: without a quorum, what is left ends as unknown; with a dead disk, the stop ends all the same."""
        cluster, leader = started(size=3, stop_timeout=100)
        cluster.servers[leader.settings.server_id].disk_seconds = lambda: 1e9
        outcome = Outcome(leader.propose(b"x"))
        stopped = Outcome(leader.stopService())
        cluster.run(0.25)
        self.assertIsInstance(outcome.value, OutcomeUnknown)
        self.assertEqual(stopped.fired, [None])

    def test_a_failed_write_stops_the_server_and_acknowledges_nothing(self) -> None:
        """D01, D08, original 9."""
        for call in ("pwrite", "fdatasync"):
            for error in (errno.EIO, errno.ENOSPC):
                cluster, node = started()
                # Its first write says which cluster it belongs to.
                Outcome(node.propose(b"w"))
                cluster.run(0.1)
                disk = cluster.servers["s1"].disk
                disk.fail(call, error=error)
                failed = Outcome(node.when_failed())
                outcomes = [Outcome(node.propose(b"x")), Outcome(node.propose(b"y"))]
                cluster.run(1)
                self.assertEqual({type(outcome.value) for outcome in outcomes}, {OutcomeUnknown})
                self.assertIsInstance(failed.value, StorageError)
                self.assertIn("/data/raft.log.0000000000000001: ", str(failed.value))
                syncs = disk.calls["fdatasync"]
                self.assertIsInstance(Outcome(node.propose(b"z")).value, Stopped)
                cluster.run(1)
                self.assertEqual(disk.calls["fdatasync"], syncs, "nothing is retried")
                self.assertEqual(node.status().role, "failed")
                self.assertEqual(len(self.flushLoggedErrors(StorageError)), 1)

    def test_the_others_go_on_when_one_servers_disk_fails(self) -> None:
        """D15: a server that cannot persist does not stand again and again."""
        cluster, leader = started(size=3)
        cluster.servers[leader.settings.server_id].disk.fail("fdatasync")
        Outcome(leader.propose(b"x"))
        self.assertTrue(cluster.run_until(lambda: leader.failure is not None, 1))
        cluster.run(0.5)
        other = cluster.elect()
        done = Outcome(other.propose(b"y"))
        cluster.run(0.2)
        self.assertIsInstance(done.value, int)
        self.flushLoggedErrors(StorageError)

    def test_a_machine_that_raises_stops_the_server_and_names_the_entry(self) -> None:
        """T03: nothing is skipped, nothing after it is acknowledged."""

        class Fragile(RecordingMachine):
            def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
                if b"bad" in commands:
                    raise ZeroDivisionError("planted")
                return super().apply(first_index, commands, time_ms)

        cluster, node = started(machine=Fragile)
        good = Outcome(node.propose(b"good"))
        cluster.run(0.1)
        failed = Outcome(node.when_failed())
        bad = Outcome(node.propose(b"bad"))
        read = Outcome(node.read(b""))
        cluster.run(0.1)
        self.assertEqual(good.value, 1)
        self.assertIsInstance(bad.value, OutcomeUnknown)
        self.assertIsInstance(failed.value, MachineError)
        self.assertIn("raised ZeroDivisionError at entry 5", str(failed.value))
        self.assertNotIn("planted", str(bad.value), "what it says may hold a payload")
        self.assertTrue(isinstance(read.value, Stopped) or read.value == 1)
        self.assertEqual(node.raft.applied_index if node.raft else 0, 4)
        [logged] = self.flushLoggedErrors(ZeroDivisionError)
        self.assertIn("in apply", logged.getTraceback())

    def test_a_machine_that_answers_too_little_stops_the_server(self) -> None:
        class Short(RecordingMachine):
            def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
                return super().apply(first_index, commands, time_ms)[1:]

        cluster, node = started(machine=Short)
        outcome = Outcome(node.propose_many([b"a", b"b"]))
        cluster.run(0.1)
        self.assertIsInstance(outcome.value, OutcomeUnknown)
        self.assertIn("one result for each command at entries 4 to 5", str(node.failure))
        self.flushLoggedErrors(MachineError)

    def test_a_broken_invariant_stops_the_server(self) -> None:
        cluster, node = started(size=3)
        assert node.raft is not None
        failed = Outcome(node.when_failed())
        outcome = Outcome(node.propose(b"x"))
        term = node.raft.term
        other = next(server_id for server_id in cluster.ids if server_id != node.settings.server_id)
        node._receive(other, [AppendEntries(term, 0, 0, 0, 0, LogSlice(1))])
        cluster.run(0.1)
        self.assertIsInstance(outcome.value, Stopped, "it had not been appended yet")
        self.assertIsInstance(failed.value, FatalError)
        self.assertIn(f"two leaders in term {term}", str(failed.value))
        self.flushLoggedErrors()


class Slices(SynchronousTestCase):
    def test_a_slow_machine_does_not_make_heartbeats_late(self) -> None:
        """T08: 400 commands of 5 ms each take 2 s, yet nobody stands for election."""

        class Slow(RecordingMachine):
            def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
                cluster.clock.now += 0.005 * len(commands)
                longest.append(0.005 * len(commands))
                return super().apply(first_index, commands, time_ms)

        longest: list[float] = []
        cluster, leader = started(size=3, machine=Slow)
        for _ in range(40):
            Outcome(leader.propose_many([b"warm"]))
            cluster.run(0.3)
        term, longest[:] = leader.status().term, []
        outcome = Outcome(leader.propose_many([b"x"] * 400))
        cluster.run(20)
        self.assertEqual(len(outcome.value), 400)
        self.assertEqual(leader.status().term, term)

    def test_a_turn_applies_no_more_than_its_slice_once_the_machine_is_known(self) -> None:
        durations: list[float] = []

        class Slow(RecordingMachine):
            def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
                cluster.clock.now += 0.001 * len(commands)
                durations.append(0.001 * len(commands))
                return super().apply(first_index, commands, time_ms)

        cluster, node = started(machine=Slow, apply_slice_ms=10)
        Outcome(node.propose_many([b"x"] * 3000))
        cluster.run(20)
        self.assertAlmostEqual(sum(durations), 3.0)
        self.assertLessEqual(max(durations), 0.016)
        self.assertGreater(max(durations[1:]), 0.004, "nor is it needlessly little")


class Status(SynchronousTestCase):
    def test_it_tells_who_leads_and_how_far_everybody_is(self) -> None:
        cluster, leader = started(size=3)
        Outcome(leader.propose(b"x"))
        cluster.run(1)
        status = leader.status()
        self.assertEqual((status.role, status.commit_index, status.applied_index), ("leader", 4, 4))
        self.assertEqual(
            [(m.server_id, m.match_index, m.lag) for m in status.members], [(s, 4, 0) for s in cluster.ids]
        )
        self.assertEqual(status.waiting_for, ())
        self.assertFalse(status.storage.unsafe)

    def test_it_tells_what_it_waits_for(self) -> None:
        cluster = Cluster(seed=1)
        cluster.start("s1")
        cluster.run(1)
        [sentence] = cluster.node("s1").status().waiting_for
        self.assertIn("votes refused by nobody, and no answer from s2, s3.", sentence)
        cluster.start("s2", "s3")
        leader = cluster.elect()
        others = [server_id for server_id in cluster.ids if server_id != leader.settings.server_id]
        for other in others:
            cluster.crash(other)
        Outcome(leader.propose(b"x"))
        cluster.run(0.15)
        last = leader.status().last_index
        for other in others:
            told = f"Entry {last} is not committed yet: {other} has {last - 1}, "
            self.assertIn(told, " ".join(leader.status().waiting_for))

    def test_its_addresses_may_be_told_one_by_one(self) -> None:
        """What serves clients and what serves operators do not know of each other."""
        _, node = started()
        node.advertise(client_address="10.0.0.1:8877")
        node.advertise(admin_address="10.0.0.1:29998")
        [member] = node.status().members
        self.assertEqual((member.client_address, member.admin_address), ("10.0.0.1:8877", "10.0.0.1:29998"))

    def test_it_works_before_the_start_and_after_the_stop(self) -> None:
        cluster, node = started()
        node.stopService()
        cluster.run(1)
        self.assertEqual(node.status().role, "stopped")
