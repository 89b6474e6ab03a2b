"""How waiting ends: at the loss of the leadership, at a stop, and when a server cannot even start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from test_node import Outcome, started
from twisted.internet.error import CannotListenError
from twisted.logger import eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.log import LogSlice
from txraft.core.messages import AppendEntries
from txraft.errors import CommandTooLarge, NotLeader, OutcomeUnknown, Stopped, StorageError
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster
from txraft.testing.network import SimulatedTransport
from txraft.testing.recording import RecordingMachine


def others_than(cluster: Cluster, node: RaftNode) -> list[str]:
    return [server_id for server_id in cluster.ids if server_id != node.settings.server_id]


class LeadershipLost(SynchronousTestCase):
    def test_a_proposal_whose_place_a_no_op_has_taken_ends(self) -> None:
        """C09, C12, T02: the leader slept; when it wakes, all that the next one said arrives in one turn."""
        cluster, old = started(size=3)
        name, others = old.settings.server_id, others_than(cluster, old)
        lost = Outcome(old.propose(b"lost"))
        cluster.network.partition([name], others)
        cluster.run(0.02)
        self.assertEqual(old.raft.log.command(4), b"lost")
        cluster.pause(name)
        cluster.run_until(lambda: cluster.leader() not in (None, old), 5)
        new = cluster.elect()
        term, log, commit_index = new.raft.term, new.raft.log, new.raft.commit_index
        entries = AppendEntries(term, 3, log.term(3), 3, 0, log.slice(4, 1000))
        heartbeat = AppendEntries(term, log.last_index, term, commit_index, 0, LogSlice(log.last_index + 1))
        old._receive(new.settings.server_id, [entries, heartbeat])
        self.assertEqual(old.raft.commit_index, 4)
        cluster.resume(name)
        cluster.run(1)
        self.assertEqual(old.raft.log.command(4), b"", "a no-op is there now")
        self.assertIsInstance(lost.value, OutcomeUnknown)

    def test_a_leader_whose_disk_never_answers_leaves_nobody_waiting_when_it_gives_way(self) -> None:
        """C12, D14: the others have committed the entry, but here it will never be applied."""
        cluster, old = started(size=3)
        cluster.servers[old.settings.server_id].disk_seconds = lambda: 1e9
        proposed = Outcome(old.propose(b"x"))
        cluster.run(0.1)
        read = Outcome(old.read(b""))
        cluster.run(0.1)
        self.assertEqual((old.raft.commit_index, proposed.fired, read.fired), (4, [], []))
        cluster.run(5)
        self.assertIsInstance(proposed.value, OutcomeUnknown)
        self.assertIsInstance(read.value, NotLeader)

    def test_what_is_committed_and_on_disk_is_answered_although_the_leadership_is_over(self) -> None:
        """C10: no outcome is unknown that is known."""
        clusters: list[Cluster] = []

        class Slow(RecordingMachine):
            def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
                clusters[0].clock.now += 0.01 * len(commands)
                return super().apply(first_index, commands, time_ms)

        cluster, old = started(size=3, machine=Slow)
        clusters.append(cluster)
        outcomes = [Outcome(old.propose(b"%d" % number)) for number in range(300)]
        cluster.run_until(lambda: old.raft.commit_index > 300)
        cluster.network.partition([old.settings.server_id], others_than(cluster, old))
        cluster.run_until(lambda: old.raft.role.name != "leader")
        self.assertTrue(any(not outcome.fired for outcome in outcomes), "the machine is still at it")
        cluster.run(5)
        self.assertEqual([outcome.value for outcome in outcomes], list(range(1, 301)))


class Stop(SynchronousTestCase):
    def test_started_and_stopped_in_one_turn_is_no_failure(self) -> None:
        """T13: nothing is written once the directory is let go of."""
        cluster = Cluster(seed=1, size=1)
        cluster.start()
        node = cluster.node("s1")
        failed, stopped = Outcome(node.when_failed()), Outcome(node.stopService())
        cluster.run(10)
        self.assertEqual((stopped.fired, failed.fired, node.failure), ([None], [], None))

    def test_a_stop_asked_for_by_any_callback_lets_the_flush_end(self) -> None:
        """T07, T13: whatever ends first, nobody is left and nothing fails."""
        actions: list[Callable[[RaftNode], Any]] = [
            lambda node: node.propose(b"x"),
            lambda node: node.propose_many([b"x", b"y"]),
            lambda node: node.read(b""),
            lambda node: node.read_many([b"", b""]),
        ]
        for first in actions:
            for size in (1, 3):
                cluster, node = started(size=size)
                stopped: list[Outcome] = []
                waiting = first(node).addCallback(lambda _: stopped.append(Outcome(node.stopService())))  # noqa: B023
                rest = [Outcome(action(node)) for action in actions]
                cluster.run(10)
                self.assertEqual((stopped[0].fired, node.failure), ([None], None))
                self.assertTrue(waiting.called)
                self.assertEqual([len(outcome.fired) for outcome in rest], [1, 1, 1, 1])

    def test_a_stop_while_a_write_is_under_way_ends_with_it(self) -> None:
        """T13, D16: the write's end begins no other."""
        cluster, node = started(size=3)
        follower = cluster.node(others_than(cluster, node)[0])
        disk = cluster.servers[follower.settings.server_id].disk
        cluster.servers[follower.settings.server_id].disk_seconds = lambda: 0.2
        for _ in range(3):
            node.propose(b"x").addErrback(lambda failure: failure.trap(OutcomeUnknown))
            cluster.run(0.05)
        stopped = Outcome(follower.stopService())
        cluster.run(0.05)
        self.assertEqual(stopped.fired, [], "the disk is not done")
        cluster.run(1)
        self.assertEqual((stopped.fired, follower.failure), ([None], None))
        calls = disk.calls.total()
        cluster.run(1)
        self.assertEqual(disk.calls.total(), calls)

    def test_a_second_stop_waits_for_the_first(self) -> None:
        """T13."""
        cluster, node = started()
        cluster.servers["s1"].disk_seconds = lambda: 0.2
        outcome = Outcome(node.propose(b"x"))
        stops = [Outcome(node.stopService())]
        cluster.run(0.1)
        stops.append(Outcome(node.stopService()))
        self.assertEqual([stop.fired for stop in stops], [[], []])
        cluster.run(2)
        self.assertEqual([stop.fired for stop in stops], [[None], [None]])
        self.assertEqual(outcome.value, 1)


class Start(SynchronousTestCase):
    def test_a_server_that_cannot_listen_lets_go_of_its_directory(self) -> None:
        """T13, D12: it has not started; the next attempt may."""
        cluster = Cluster(seed=1, size=1)
        refusal = mock.Mock(side_effect=CannotListenError("localhost", 1, OSError("in use")))
        with mock.patch.object(SimulatedTransport, "start", refusal):
            self.assertRaises(CannotListenError, cluster.start)
        node = cluster.node("s1")
        cluster.run(1)
        self.assertFalse(node.running)
        self.assertEqual(node.status().role, "stopped")
        self.assertIsInstance(Outcome(node.propose(b"x")).value, Stopped)
        self.assertEqual(Outcome(node.stopService()).fired, [None], "there is nothing to stop")
        node.startService()
        self.assertEqual(cluster.elect(), node)

    def test_an_empty_log_with_a_later_term_is_refused(self) -> None:
        """D11: it had entries once; a server that begins anew could vote away what it has acknowledged."""
        cluster = Cluster(seed=1, size=1)
        cluster.start()
        cluster.elect()
        state = cluster.servers["s1"].disk.read_file("/data/raft.state")
        segment = cluster.servers["s1"].disk.read_file("/data/raft.log.0000000000000001")
        cluster.crash("s1")
        disk = cluster.servers["s1"].disk
        disk.write_file("/data/raft.state", state)
        disk.write_file("/data/raft.log.0000000000000001", segment[:512] + bytes(len(segment) - 512))
        error = self.assertRaises(StorageError, cluster.start)
        self.assertIn("the log is empty", str(error))
        cluster.run(1)


class Commands(SynchronousTestCase):
    def test_what_is_not_bytes_is_refused_before_anything_is_done(self) -> None:
        """T12, T05: in the log it would stop this server; and what can still change is not one command."""
        cluster, node = started()
        for command in ("text", bytearray(b"x"), memoryview(b"x"), None, 3):
            self.assertRaises(TypeError, node.propose, command)
            self.assertRaises(TypeError, node.propose_many, [b"x", command])
        cluster.run(0.1)
        self.assertEqual((node.raft.log.last_index, node.failure), (3, None))

    def test_neither_the_log_nor_the_status_shows_a_payload(self) -> None:
        """T14, original 32: not when it is refused, applied, lost, nor when the server fails over it."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        cluster, node = started(size=3, max_command_bytes=100)
        statuses = []
        for command in (b"payload", b"payload" * 100):
            node.propose(command).addErrback(lambda failure: failure.trap(CommandTooLarge))
            node.read(command).addErrback(lambda failure: failure.trap(CommandTooLarge))
            cluster.run(0.1)
            statuses += [repr(each.status()) for each in cluster.running()]
        cluster.servers[node.settings.server_id].disk.fail("fdatasync")
        node.propose(b"payload").addErrback(lambda failure: failure.trap(OutcomeUnknown))
        cluster.run(3)
        statuses += [repr(each.status()) for each in cluster.running()]
        self.assertIsInstance(node.failure, StorageError)
        self.assertTrue(self.flushLoggedErrors())
        shown = [eventAsText(event) for event in events] + statuses
        self.assertGreater(len(shown), 15)
        self.assertEqual([text for text in shown if "payload" in text], [])

    def test_a_list_that_is_changed_after_it_was_proposed_changes_nothing(self) -> None:
        """T05."""
        cluster, node = started(size=3)
        commands = [b"a", b"b"]
        outcome = Outcome(node.propose_many(commands))
        commands[0] = b"changed"
        commands.append(b"more")
        cluster.run(1)
        self.assertEqual(outcome.value, [1, 2])
        for server in cluster.servers.values():
            self.assertEqual(server.machine.commands, [b"a", b"b"])

    def test_a_machine_that_changes_what_it_is_given_changes_no_other_servers_log(self) -> None:
        """T05: it must not; yet what it gets is its own copy."""

        class Reversing(RecordingMachine):
            def apply(self, first_index: int, commands: Any, time_ms: int) -> Sequence[int]:
                places = super().apply(first_index, list(commands), time_ms)
                commands.reverse()
                return places

        cluster, node = started(size=3, machine=Reversing)
        node.propose_many([b"a", b"b", b"c"])
        cluster.run(1)
        for server in cluster.servers.values():
            log = server.node.raft.log
            self.assertEqual([log.command(index) for index in (4, 5, 6)], [b"a", b"b", b"c"])
