"""The log does not grow without end while no snapshot is taken, and no longer than that is anybody refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from core_text import make_log
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txraft.core.log import ENTRY_OVERHEAD_BYTES
from txraft.core.raft import Raft
from txraft.errors import Overloaded
from txraft.interfaces import IStateMachine
from txraft.node import RaftNode
from txraft.node.growth import Growth
from txraft.node.taking import URGENT_RETRY_S
from txraft.testing.cluster import Cluster

LOG_BYTES = 1000
LIMIT = 3
UNCOMMITTED_BYTES = 600
BATCH = [bytes(42)] * 4
BATCH_BYTES = 4 * (42 + ENTRY_OVERHEAD_BYTES)


@implementer(IStateMachine)
class Counting:
    """Its state does not grow, so neither does what makes a snapshot due."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        self.count += len(commands)
        return [None] * len(commands)

    def query(self, request: bytes) -> object:
        return self.count

    def snapshot(self) -> Sequence[bytes]:
        return [b"%020d" % self.count]

    def restore(self, chunks: Sequence[bytes]) -> None:
        self.count = int(b"".join(chunks))


def cluster_of(size: int, window_bytes: int = UNCOMMITTED_BYTES, **more: Any) -> Cluster:
    return Cluster(
        size=size,
        snapshot_log_bytes=LOG_BYTES,
        snapshot_ratio=1,
        snapshot_log_limit=LIMIT,
        max_uncommitted_bytes=UNCOMMITTED_BYTES,
        max_append_bytes=BATCH_BYTES,
        max_inflight_bytes=window_bytes,
        **more,
    )


def propose(cluster: Cluster, leader: RaftNode) -> object:
    """Four commands, and time for a snapshot by a quick server; what came of them."""
    results: list[Any] = []
    leader.propose_many(BATCH).addBoth(results.append)
    assert cluster.run_until(lambda: bool(results))
    cluster.run(0.05)
    return getattr(results[0], "value", results[0])


def write_until_refused(cluster: Cluster, leader: RaftNode) -> Overloaded:
    for _ in range(100):
        answer = propose(cluster, leader)
        if isinstance(answer, Overloaded):
            return answer
    raise AssertionError("nothing was refused")


def is_accepted(cluster: Cluster, leader: RaftNode) -> bool:
    return isinstance(propose(cluster, leader), list)


def log_bytes(node: RaftNode) -> int:
    """All that is in memory."""
    assert node.raft is not None
    return node.raft.log.bytes_between(node.raft.log.first_index, node.raft.log.last_index + 1)


def said_of_growth(case: SynchronousTestCase) -> list[str]:
    """What is logged from now on of how large logs are."""
    said: list[str] = []

    def observe(event: Any) -> None:
        if "txraft.node.growth" in event["log_namespace"]:
            said.append(str(formatEvent(event)))

    globalLogPublisher.addObserver(observe)
    case.addCleanup(globalLogPublisher.removeObserver, observe)
    return said


def slow_snapshots(cluster: Cluster, *server_ids: str, seconds: float = 1000.0) -> None:
    for server_id in server_ids:
        cluster.servers[server_id].snapshot_seconds = lambda: seconds


class LeaderTests(SynchronousTestCase):
    def test_a_leader_refuses_commands_until_there_is_a_snapshot(self) -> None:
        """S10: a child that gets no CPU must not fill the disk."""
        cluster = cluster_of(3)
        cluster.start()
        leader = cluster.elect()
        slow_snapshots(cluster, *cluster.ids, seconds=1.0)
        refusal = write_until_refused(cluster, leader)
        self.assertEqual((refusal.bound, refusal.limit), ("snapshot_log_limit", LIMIT))
        status = leader.status().snapshots
        self.assertEqual(status.log_limit_bytes, LIMIT * LOG_BYTES)
        for server_id in cluster.ids:
            self.assertLessEqual(log_bytes(cluster.node(server_id)), LIMIT * LOG_BYTES + UNCOMMITTED_BYTES)
        sentence = (
            f"This leader refuses commands until there is a newer snapshot: {status.log_bytes} bytes of log are behind "
            "the last one, and a leader's limit, by snapshot_log_limit, is 3000, a follower's twice that. Every so "
            "often it asks another server to lead."
        )
        self.assertIn(sentence, leader.status().waiting_for)
        self.assertTrue(cluster.run_until(lambda: leader.status().snapshots.taking.taken == 1, 60))
        self.assertTrue(is_accepted(cluster, leader))

    def test_it_answers_reads_and_changes_its_members_meanwhile(self) -> None:
        cluster = cluster_of(3)
        cluster.start()
        leader = cluster.elect()
        slow_snapshots(cluster, *cluster.ids)
        write_until_refused(cluster, leader)
        answers: list[Any] = []
        leader.read(b"").addBoth(answers.append)
        heir = next(server_id for server_id in cluster.ids if server_id != leader.settings.server_id)
        leader.transfer_leadership(heir).addBoth(answers.append)
        self.assertTrue(cluster.run_until(lambda: len(answers) == 2))
        self.assertEqual(cluster.node(heir).status().role, "leader")
        self.assertIsInstance(propose(cluster, cluster.node(heir)), Overloaded)

    def test_where_no_snapshot_can_be_taken_it_hands_the_leadership_to_the_voter_that_has_most(self) -> None:
        """S10: the others have room, and would go on without it. One that is dead, or behind, is not asked."""
        cluster = cluster_of(5)
        cluster.start()
        leader = cluster.elect()
        away, behind, *others = (server_id for server_id in cluster.ids if server_id != leader.settings.server_id)
        slow_snapshots(cluster, leader.settings.server_id)
        cluster.crash(away)
        write_until_refused(cluster, leader)
        cluster.servers[behind].disk_seconds = lambda: 1e6
        self.assertTrue(cluster.run_until(lambda: leader.status().role != "leader", 10))
        heir = cluster.elect()
        self.assertIn(heir.settings.server_id, others)
        self.assertTrue(is_accepted(cluster, heir))

    def test_one_that_is_alone_goes_on_refusing(self) -> None:
        cluster = cluster_of(1)
        cluster.start()
        leader = cluster.elect()
        slow_snapshots(cluster, "s1")
        write_until_refused(cluster, leader)
        cluster.run(30)
        self.assertIsInstance(propose(cluster, leader), Overloaded)
        self.assertNotIn("another server", " ".join(leader.status().waiting_for))

    def test_it_tries_again_although_nothing_is_written_any_more(self) -> None:
        """S10: after a snapshot that failed, and soon, as nobody can write before there is one."""
        cluster = cluster_of(1)
        cluster.start()
        leader = cluster.elect()
        cluster.servers["s1"].disk.fail("create", under="/data/snapshots")
        write_until_refused(cluster, leader)
        self.assertIn("create", leader.status().snapshots.taking.failure)
        self.assertIsInstance(propose(cluster, leader), Overloaded)
        cluster.run(2 * URGENT_RETRY_S)
        self.assertTrue(is_accepted(cluster, leader))

    def test_the_log_says_when_it_begins_and_when_it_ends(self) -> None:
        said = said_of_growth(self)
        cluster = cluster_of(1)
        cluster.start()
        leader = cluster.elect()
        slow_snapshots(cluster, "s1", seconds=1.0)
        write_until_refused(cluster, leader)
        cluster.run(60)
        self.assertEqual(len(said), 2, said)
        self.assertIn("by snapshot_log_limit a limit is at 3000: ", said[0])
        self.assertIn("this server refuses commands when it leads", said[0])
        self.assertIn("there is room in the log again, it takes commands", said[1])


class FollowerTests(SynchronousTestCase):
    def test_a_follower_acknowledges_no_more_than_there_is_room_for_and_the_others_go_on(self) -> None:
        """S10."""
        cluster = cluster_of(3)
        cluster.start()
        leader = cluster.elect()
        slow = next(server_id for server_id in cluster.ids if server_id != leader.settings.server_id)
        slow_snapshots(cluster, slow)
        node = cluster.node(slow)
        for _ in range(3 * LIMIT * LOG_BYTES // BATCH_BYTES):
            self.assertTrue(is_accepted(cluster, leader))
            self.assertLessEqual(log_bytes(node), 2 * LIMIT * LOG_BYTES + 2 * UNCOMMITTED_BYTES)
        cluster.run(1)
        self.assertEqual((leader.status().role, node.status().leader_id), ("leader", leader.settings.server_id))
        self.assertGreaterEqual(log_bytes(node), 2 * LIMIT * LOG_BYTES)
        self.assertTrue(any("takes no more entries" in sentence for sentence in node.status().waiting_for))

    def test_it_takes_the_rest_also_if_that_alone_is_more_than_there_is_room_for(self) -> None:
        """What it has not written can be in no snapshot: it must not be what a snapshot is waited for."""
        cluster = Cluster(
            size=3,
            machine=Counting,
            snapshot_log_bytes=LOG_BYTES,
            snapshot_ratio=1,
            snapshot_log_limit=LIMIT,
            max_uncommitted_bytes=400 * BATCH_BYTES,
            max_append_bytes=BATCH_BYTES,
            max_inflight_bytes=100 * BATCH_BYTES,
        )
        cluster.start()
        leader = cluster.elect()
        slow = next(server_id for server_id in cluster.ids if server_id != leader.settings.server_id)
        slow_snapshots(cluster, slow, seconds=5.0)
        for _ in range(100):
            leader.propose_many(BATCH).addErrback(lambda failure: failure.trap(Overloaded))
            cluster.run(0.005)
        assert cluster.node(slow).raft is not None and cluster.node(slow).raft.holds_entries
        slow_snapshots(cluster, slow, seconds=0.0)
        last_index = leader.status().last_index
        self.assertTrue(cluster.run_until(lambda: cluster.node(slow).status().applied_index >= last_index, 60))

    def test_it_takes_the_rest_when_it_has_a_snapshot_and_says_both(self) -> None:
        said = said_of_growth(self)
        cluster = cluster_of(3)
        cluster.start()
        leader = cluster.elect()
        slow = next(server_id for server_id in cluster.ids if server_id != leader.settings.server_id)
        slow_snapshots(cluster, slow, seconds=5.0)
        count = 3 * LIMIT * LOG_BYTES // BATCH_BYTES
        for _ in range(count):
            self.assertTrue(is_accepted(cluster, leader))
        machine: Any = cluster.servers[slow].machine
        self.assertLess(len(machine.commands), 4 * count)
        slow_snapshots(cluster, slow, seconds=0.0)
        self.assertTrue(cluster.run_until(lambda: len(machine.commands) == 4 * count, 200))
        # Those of this server, the only one that has a limit behind it.
        begins = ["refuses commands when it leads", "writes entries only when it leads"]
        ends = ["again, it takes commands: ", "again, it writes entries: "]
        self.assertEqual([sum(words in line for line in said) for words in begins + ends], [1, 1, 1, 1], said)
        self.assertIn("a limit is at 6000: ", said[1])
        cluster.check_replay()

    def test_the_leaders_snapshot_makes_room_too_also_if_all_that_it_holds_is_in_memory_here(self) -> None:
        """S10, S09: as not needed it would be refused, and yet what it holds could never be written without it."""
        cluster = cluster_of(3, window_bytes=4 * BATCH_BYTES, log_keep_entries=0)
        cluster.start()
        leader = cluster.elect()
        node = cluster.node(next(server_id for server_id in cluster.ids if server_id != leader.settings.server_id))
        node.snapshots._taker.is_due = lambda log_bytes: False  # type: ignore[method-assign]
        raft = node.raft
        assert raft is not None
        while not raft.holds_entries or raft.commit_index < raft.log.durable_index + 8:
            self.assertTrue(is_accepted(cluster, leader))
        last_index = leader.status().last_index
        taken: list[Any] = []
        leader.take_snapshot().addCallback(taken.append)
        self.assertTrue(cluster.run_until(lambda: bool(taken)))
        [offer] = taken
        self.assertTrue(raft.log.durable_index < offer.meta.last_index <= raft.commit_index)
        name = f"/data/snapshots/{offer.meta.last_index:020d}-{offer.meta.last_term:020d}.snapshot"
        data = cluster.servers[leader.settings.server_id].disk.read_file(name)
        partials: list[Any] = []
        node.snapshots.receiving.accept(leader.settings.server_id, offer).addCallback(partials.append)
        self.assertTrue(cluster.run_until(lambda: bool(partials)))
        self.assertEqual(partials[0].offset, 0)
        partials[0].append(0, data)
        partials[0].commit()
        self.assertTrue(cluster.run_until(lambda: node.status().applied_index >= last_index, 5))
        cluster.crash(node.settings.server_id, keep="none")
        cluster.start(node.settings.server_id)
        self.assertTrue(is_accepted(cluster, leader))
        cluster.check_replay()

    def test_if_most_have_no_room_nothing_is_acknowledged_until_they_have_and_nothing_is_lost(self) -> None:
        """S10, D14: whoever leads meanwhile, and whatever is in memory only is as good as not there."""
        cluster = cluster_of(3)
        cluster.start()
        leader = cluster.elect()
        slow = [server_id for server_id in cluster.ids if server_id != leader.settings.server_id]
        slow_snapshots(cluster, *slow, seconds=20.0)
        acknowledged: list[Any] = []
        for _ in range(3 * LIMIT * LOG_BYTES // BATCH_BYTES):
            leader.propose_many(BATCH).addCallbacks(acknowledged.append, lambda _: None)
            cluster.run(0.05)
        self.assertTrue(all(cluster.node(server_id).raft.holds_entries for server_id in slow))  # type: ignore[union-attr]
        durable = sorted(cluster.node(server_id).status().durable_index for server_id in slow)
        self.assertLessEqual(4 * len(acknowledged), durable[-1])
        cluster.run(10)
        self.assertLess(len(acknowledged), 3 * LIMIT * LOG_BYTES // BATCH_BYTES)
        slow_snapshots(cluster, *slow, seconds=0.0)
        cluster.run(100)
        self.assertTrue(is_accepted(cluster, cluster.elect()))
        self.assertTrue(
            cluster.run_until(lambda: len({node.status().applied_index for node in cluster.running()}) == 1)
        )
        for server in cluster.servers.values():
            machine: Any = server.machine
            self.assertGreaterEqual(len(machine.commands), 4 * len(acknowledged) + 4)
        cluster.check_replay()

    def test_who_is_needed_and_has_no_room_stops_the_cluster_and_its_own_log_until_it_has_a_snapshot(self) -> None:
        """
        S10. One is dead, the leader has room: it gives way for want of answers, and is elected again, as its log is
        longer. That must not give the other one a reason to write, each time a little more.
        """
        cluster = cluster_of(3, window_bytes=BATCH_BYTES)
        cluster.start()
        leader = cluster.elect()
        slow, dead = [server_id for server_id in cluster.ids if server_id != leader.settings.server_id]
        slow_snapshots(cluster, slow, seconds=60.0)
        node = cluster.node(slow)
        cluster.crash(dead)
        assert node.raft is not None
        held_at = 0
        for _ in range(1000):
            for running in cluster.running():
                running.propose_many(BATCH).addErrback(lambda _: None)
            cluster.run(0.05)
            if node.raft.holds_entries and not held_at:
                held_at = node.raft.log.durable_index
        self.assertGreater(node.raft.term, 5, "nobody gave way")
        self.assertEqual(node.raft.log.durable_index, held_at)
        self.assertLessEqual(log_bytes(node), 2 * LIMIT * LOG_BYTES + 2 * UNCOMMITTED_BYTES)
        slow_snapshots(cluster, slow, seconds=0.0)
        self.assertTrue(cluster.run_until(lambda: not cast(Raft, node.raft).holds_entries, 60))
        self.assertTrue(is_accepted(cluster, cluster.elect()))
        cluster.check_replay()


class GrowthTests(SynchronousTestCase):
    def test_what_is_behind_an_earlier_snapshot_counts_if_the_newest_turns_out_to_be_damaged(self) -> None:
        log, growth = make_log("1:a 1:bb 1:ccc 1:dddd"), Growth()
        self.assertEqual(growth.measure(log, 2, 4), 7 + 2 * ENTRY_OVERHEAD_BYTES)
        self.assertEqual(growth.measure(log, 3, 4), 4 + ENTRY_OVERHEAD_BYTES)
        self.assertEqual(growth.measure(log, 1, 4), 9 + 3 * ENTRY_OVERHEAD_BYTES)
