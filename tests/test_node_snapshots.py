"""A server takes snapshots, starts from one, and is sent one: docs/pitfalls.md, chapter 4, in the simulated cluster."""

from __future__ import annotations

from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import OutcomeUnknown, SnapshotRefused
from txraft.images import SnapshotWay
from txraft.node import RaftNode
from txraft.node.sending import SAID_AGAIN_S
from txraft.testing.cluster import Cluster


def write(cluster: Cluster, leader: RaftNode, count: int, name: bytes = b"c") -> None:
    done = leader.propose_many([b"%b%d" % (name, number) for number in range(count)])
    results: list[Any] = []
    done.addBoth(results.append)
    assert cluster.run_until(lambda: bool(results)) and len(results[0]) == count, results


def take(cluster: Cluster, *server_ids: str) -> list[int]:
    """Take snapshots there; their last indexes."""
    taken: list[Any] = []
    for server_id in server_ids:
        cluster.node(server_id).take_snapshot().addBoth(taken.append)
    assert cluster.run_until(lambda: len(taken) == len(server_ids))
    cluster.run(0.01)
    return [snapshot.meta.last_index for snapshot in taken]


def everybody_has(cluster: Cluster, count: int) -> bool:
    return all(len(server.machine.commands) == count for server in cluster.servers.values() if server.node)


def behind(cluster: Cluster) -> tuple[RaftNode, str]:
    """A leader that has forgotten what one server, which is cut off, lacks: ten entries."""
    cluster.start()
    leader = cluster.elect()
    away = next(server_id for server_id in cluster.ids if server_id != leader.settings.server_id)
    cluster.network.partition([away], [other for other in cluster.ids if other != away])
    write(cluster, leader, 10)
    take(cluster, leader.settings.server_id)
    assert leader.raft is not None and leader.raft.log.first_index > 10
    return leader, away


class TakingTests(SynchronousTestCase):
    def test_a_snapshot_shortens_the_log_in_memory(self) -> None:
        """S01."""
        cluster = Cluster()
        cluster.start()
        leader = cluster.elect()
        write(cluster, leader, 10)
        [index] = take(cluster, leader.settings.server_id)
        status = leader.status()
        self.assertEqual((status.first_index, status.snapshots.index), (index + 1, index))
        write(cluster, leader, 1)
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 11)))

    def test_two_in_a_row_of_the_same_state_are_one(self) -> None:
        """S13."""
        cluster = Cluster()
        cluster.start()
        leader = cluster.elect()
        one, other = take(cluster, leader.settings.server_id, leader.settings.server_id)
        [third] = take(cluster, leader.settings.server_id)
        self.assertEqual((one, one), (other, third))

    def test_without_a_state_there_is_no_snapshot(self) -> None:
        cluster = Cluster()
        cluster.start("s1")
        failures: list[Any] = []
        cluster.node("s1").take_snapshot().addErrback(failures.append)
        self.assertIsInstance(failures[0].value, SnapshotRefused)

    def test_a_server_that_has_not_restored_its_own_state_takes_none(self) -> None:
        """S08: its machine has nothing yet, and the snapshot that it starts from is one that the disk damages now."""
        cluster = Cluster(size=1)
        cluster.start()
        write(cluster, cluster.elect(), 10)
        take(cluster, "s1")
        cluster.crash("s1", keep="all")
        server = cluster.servers["s1"]
        server.snapshot_seconds = lambda: 0.02
        cluster.start("s1")
        cluster.run(0.01)
        node = cluster.node("s1")
        [path] = [path for path in server.disk.file_names() if path.endswith(".snapshot")]
        data = server.disk.read_file(path)
        server.disk.write_file(path, data[:100] + b"?" + data[101:])
        failures: list[Any] = []
        node.snapshots.saving.hold(0).addErrback(failures.append)
        node.take_snapshot().addErrback(failures.append)
        cluster.run(0.01)
        self.assertEqual([failure.type for failure in failures], [SnapshotRefused] * 2)
        self.assertIn("not restored its own state yet", failures[0].getErrorMessage())

    def test_one_that_fails_harms_nothing(self) -> None:
        """S11: and the status says so."""
        cluster = Cluster()
        cluster.start()
        leader = cluster.elect()
        write(cluster, leader, 5)
        server = cluster.servers[leader.settings.server_id]
        server.disk.fail("create")
        failures: list[Any] = []
        leader.take_snapshot().addErrback(failures.append)
        self.assertTrue(cluster.run_until(lambda: bool(failures)))
        problem = leader.status().snapshots.taking.failure
        self.assertIn("create", problem)
        sentence = f"The log grows until a snapshot is taken, and the last one failed: {problem}."
        self.assertIn(sentence, leader.status().waiting_for)
        server.disk.work()
        take(cluster, leader.settings.server_id)
        self.assertEqual(leader.status().snapshots.taking.failure, "")

    def test_how_old_the_state_in_the_newest_one_is_is_known_after_a_restart_too(self) -> None:
        cluster = Cluster(size=1)
        cluster.start()
        leader = cluster.elect()
        self.assertIsNone(leader.status().snapshots.age_s)
        write(cluster, leader, 1)
        take(cluster, "s1")
        cluster.run(100)
        cluster.crash("s1", keep="none")
        cluster.start()
        cluster.run(100)
        self.assertEqual(round(cluster.node("s1").status().snapshots.age_s or 0), 200)

    def test_a_server_starts_from_its_snapshot_and_the_log_behind_it(self) -> None:
        """S01, S05, S08: digest for digest; the witness compares."""
        cluster = Cluster()
        cluster.start()
        leader = cluster.elect()
        write(cluster, leader, 10)
        take(cluster, *cluster.ids)
        write(cluster, leader, 3, b"d")
        cluster.run(1)
        for server_id in cluster.ids:
            cluster.crash(server_id, keep="none")
        cluster.start()
        write(cluster, cluster.elect(), 1, b"e")
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 14)))
        cluster.check_replay()


class SendingTests(SynchronousTestCase):
    def test_who_lacks_what_the_leader_has_forgotten_is_sent_a_snapshot(self) -> None:
        cluster = Cluster()
        leader, away = behind(cluster)
        cluster.network.heal()
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 10)))
        self.assertTrue(cluster.run_until(lambda: leader.status().snapshots.sent == 1))
        status = cluster.node(away).status()
        self.assertEqual((status.snapshots.received, status.snapshots.transfers), (1, ()))
        write(cluster, leader, 2, b"d")
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 12)))
        cluster.crash(away, keep="none")
        cluster.start(away)
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 12)))
        cluster.check_replay()

    def test_who_was_given_up_since_the_core_was_asked_is_sent_nothing(self) -> None:
        """In a flush within a flush: the core forgets who needs no snapshot any more."""
        cluster = Cluster()
        leader, away = behind(cluster)
        assert leader.raft is not None
        leader.snapshots.carry_out(leader.raft, (away,))
        self.assertEqual(leader.status().snapshots.transfers, ())
        cluster.network.heal()
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 10)))

    def test_one_that_cannot_be_read_when_it_has_come_becomes_the_state_all_the_same(self) -> None:
        """S11: from the disk at the next attempt, or it is fetched once more if the disk has damaged it."""
        for is_damaged in (False, True):
            cluster = Cluster()
            _, away = behind(cluster)
            server = cluster.servers[away]
            store, disk = cluster.node(away).snapshots._store, server.disk
            cluster.network.heal()
            self.assertTrue(cluster.run_until(lambda: bool(store.kept())))  # noqa: B023
            disk.fail("pread", under="/data/snapshots")
            if is_damaged:
                [path] = [name for name in disk.file_names() if name.endswith(".snapshot")]
                damaged = bytearray(disk.read_file(path))
                damaged[len(damaged) // 2] ^= 1
                disk.write_file(path, bytes(damaged))
            self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 10)), is_damaged)  # noqa: B023
            self.assertEqual(cluster.node(away).status().snapshots.received, 1 + is_damaged)
            self.assertEqual(disk.failed["pread"], 1)

    def test_what_was_not_applied_yet_is_forgotten_when_it_is(self) -> None:
        """S10: a snapshot came of entries that are here, and a slow disk has not finished them."""
        cluster = Cluster()
        leader, away = behind(cluster)
        cluster.network.heal()
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 10)))
        cluster.run(0.1)
        raft = cluster.node(away).raft
        assert raft is not None
        cluster.servers[away].disk_seconds = lambda: 3.0
        # A child may hang, and that disk be ready by then.
        cluster.servers[leader.settings.server_id].witness.snapshot_way = SnapshotWay.INLINE
        write(cluster, leader, 1, b"d")
        self.assertTrue(cluster.run_until(lambda: raft.log.last_index > raft.applied_index))
        cluster.servers[away].disk_seconds = lambda: 0.001
        [index] = take(cluster, leader.settings.server_id)
        offer = leader.snapshots._store.kept()[0]
        data = cluster.servers[leader.settings.server_id].disk.read_file(
            f"/data/snapshots/{index:020d}-{2:020d}.snapshot"
        )
        partials: list[Any] = []
        receiving = cluster.node(away).snapshots.receiving
        receiving.accept(leader.settings.server_id, offer).addCallback(partials.append)
        self.assertTrue(cluster.run_until(lambda: bool(partials)))
        partials[0].append(0, data)
        partials[0].commit()
        self.assertTrue(cluster.run_until(lambda: raft.commit_index == index))
        self.assertEqual((receiving.received_count, raft.applied_index), (2, index - 1))
        self.assertTrue(cluster.run_until(lambda: raft.applied_index == index))
        cluster.run(1)
        self.assertEqual(raft.log.base_index, index)

    def test_a_receiver_may_die_at_any_time_and_has_the_old_state_or_the_new_one(self) -> None:
        """S06, S07, S14: in each of its disk's calls in turn."""
        found = {self._die_in_call(number) for number in range(1, 40)}
        self.assertEqual(len(found), 2)

    def _die_in_call(self, number: int) -> int:
        """The index of the snapshot that the receiver found on its disk; 0 if it found none."""
        cluster = Cluster(seed=number)
        _, away = behind(cluster)
        halted: list[bool] = []
        cluster.servers[away].disk.halt_at(number, lambda: halted.append(True))
        cluster.network.heal()
        cluster.run_until(lambda: bool(halted) or everybody_has(cluster, 10), 5)
        cluster.crash(away, keep=("some", "none", "all")[number % 3])
        cluster.start(away)
        index = cluster.node(away).status().snapshots.index
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 10)), number)
        write(cluster, cluster.elect(), 1)
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 11)), number)
        cluster.check_replay()
        return index

    def test_a_transfer_goes_on_after_lost_connections(self) -> None:
        """S06: resumed, with other chunks lost each time."""
        cluster = Cluster()
        behind(cluster)
        cluster.network.faults.drop = 0.5
        cluster.network.heal()
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 10), 60))

    def test_a_receiver_without_room_says_so_and_gets_it_when_there_is(self) -> None:
        """S10, D08."""
        cluster = Cluster()
        leader, away = behind(cluster)
        receiver, disk = cluster.node(away), cluster.servers[away].disk
        disk.free = 100
        logged: list[str] = []
        globalLogPublisher.addObserver(observer := lambda event: logged.append(str(formatEvent(event))))
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        cluster.network.heal()
        cluster.run(5)
        problem = receiver.status().snapshots.failure
        self.assertIn("bytes, and 100 are free", problem)
        self.assertIn(
            f"The snapshot that this server needs cannot be received: {problem}.", receiver.status().waiting_for
        )
        self.assertEqual(
            [text for text in logged if "no snapshot can be received" in text],
            [f"no snapshot can be received: {problem}"],
        )
        attempts = [text for text in logged if f"is sent to {away}" in text or f"did not reach {away}" in text]
        self.assertEqual(len(attempts), 2, "it is tried again and again, and that is no news")
        cluster.run(SAID_AGAIN_S)
        self.assertEqual(len([text for text in logged if f"did not reach {away}" in text]), 2)
        write(cluster, leader, 1)
        disk.free = 1 << 20
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 11), 60))
        self.assertEqual(receiver.status().snapshots.failure, "")

    def test_a_snapshot_that_has_rotted_is_replaced_by_a_new_one(self) -> None:
        """S11, D18: nobody could ever take it, and nobody may."""
        cluster = Cluster()
        leader, away = behind(cluster)
        disk = cluster.servers[leader.settings.server_id].disk
        [path] = [path for path in disk.file_names() if path.endswith(".snapshot")]
        data = disk.read_file(path)
        disk.write_file(path, data[:-100] + bytes([data[-100] ^ 4]) + data[-99:])
        cluster.network.heal()
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 10)))
        status = leader.status().snapshots
        self.assertEqual((status.taking.taken, status.problem), (2, ""))
        self.assertEqual(cluster.node(away).status().snapshots.received, 1)
        write(cluster, leader, 1)
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 11)))

    def test_the_next_leader_sends_its_own(self) -> None:
        """S06, S15."""
        cluster = Cluster()
        leader, away = behind(cluster)
        others = [server_id for server_id in cluster.ids if server_id not in (away, leader.settings.server_id)]
        take(cluster, *others)
        cluster.network.heal()
        self.assertTrue(cluster.run_until(lambda: bool(cluster.network.transfers)))
        cluster.crash(leader.settings.server_id)
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 10)))
        self.assertEqual(cluster.elect().settings.server_id, others[0])

    def test_what_a_deposed_leader_had_proposed_has_an_unknown_outcome(self) -> None:
        cluster = Cluster()
        cluster.start()
        leader = cluster.elect()
        old = leader.settings.server_id
        others = [server_id for server_id in cluster.ids if server_id != old]
        cluster.run(1)
        cluster.network.partition([old], others)
        failures: list[Any] = []
        leader.propose(b"lost").addErrback(failures.append)
        cluster.run_until(lambda: (cluster.leader() or leader) is not leader)
        write(cluster, cluster.elect(), 5)
        take(cluster, *others)
        cluster.network.heal()
        self.assertTrue(cluster.run_until(lambda: everybody_has(cluster, 5)))
        self.assertIsInstance(failures[0].value, OutcomeUnknown)
