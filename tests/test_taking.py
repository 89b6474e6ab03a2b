"""When snapshots are taken, and how: by a child, in slices, at once; what fails, and what is done then."""

from __future__ import annotations

import errno

from snapshot_cases import Server, meta
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txraft.errors import ChildFailed, SnapshotRefused, StorageError
from txraft.forking import IForker
from txraft.images import ISnapshotImage, SnapshotWay
from txraft.node.state import State
from txraft.node.taking import RETRY_S, URGENT_RETRY_S, SnapshotTaker, TakingSettings
from txraft.sessions import SessionTable


class Machine:
    """Without a word about its snapshots. `index` is what it has applied; its state says so."""

    def __init__(self, clock):
        self.clock = clock
        self.index = 7
        self.chunk_s = 0.0
        self.calls = []
        self.failure = None

    def snapshot(self):
        self.calls.append("snapshot")
        if self.failure is not None:
            raise self.failure
        return [b"state at %d" % self.index] * 20


@implementer(ISnapshotImage)
class MachineWithImage(Machine):
    snapshot_way = SnapshotWay.FORK

    def image(self):
        self.calls.append("image")
        return self._chunks(self.index)

    def _chunks(self, index):
        for _ in range(20):
            self.clock.advance(self.chunk_s)
            yield b"state at %d" % index


class Sessions(SessionTable):
    """An image takes as long to begin as each of its chunks takes to make."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.content = []
        self.image_s = 0.0
        self.images = 0

    def image(self):
        self.images += 1
        self.clock.advance(self.image_s)
        return self.chunks()

    def chunks(self):
        for chunk in self.content:
            self.clock.advance(self.image_s)
            yield chunk


@implementer(IForker)
class FakeForker:
    """The child is this process, and done at once; or it hangs; or it fails."""

    def __init__(self):
        self.does = "its job"
        self.signs_of_life = 0
        self.hanging = None

    def run(self, job):
        if self.does == "hang":
            self.hanging = Deferred()
            return self.hanging
        if self.does == "fail":
            return fail(ChildFailed("signal 11"))
        job(self._alive)
        return succeed(None)

    def _alive(self):
        self.signs_of_life += 1


class TakerTests(SynchronousTestCase):
    def setUp(self):
        self.server = Server()
        self.clock = self.server.clock
        self.machine = MachineWithImage(self.clock)
        self.sessions = Sessions(self.clock)
        self.forker = FakeForker()
        self.make()
        self.logged = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def make(self):
        settings = TakingSettings(snapshot_log_bytes=1000, snapshot_ratio=4, snapshot_slice_ms=5)
        state = State(self.machine, self.sessions)
        self.taker = SnapshotTaker(
            state, self.server.store, lambda: meta(self.machine.index), self.clock, self.forker, settings
        )

    def wait(self, done):
        return self.server.wait(done)

    def taken(self):
        """Take one; (its index, what it holds)."""
        snapshot = self.wait(self.taker.take())
        chunks = self.server.chunks(snapshot)
        self.assertEqual(len(chunks), 20)
        return snapshot.meta.last_index, {*chunks}

    def errors(self):
        return [event["log_format"] for event in self.logged if event["log_level"] is LogLevel.error]

    # -- how

    def test_a_child_writes_it_and_gives_signs_of_life(self):
        self.assertEqual(self.taken(), (7, {b"state at 7"}))
        self.assertEqual((self.machine.calls, self.forker.signs_of_life), (["image"], 20))

    def test_a_child_gives_signs_of_life_for_the_sessions_too_and_has_their_table_as_it_is(self):
        self.sessions.content = [b"ab", b"c"]
        self.taken()
        self.assertEqual((self.forker.signs_of_life, self.sessions.images), (22, 0))

    def test_a_machine_without_a_word_about_it_is_forked(self):
        self.machine = Machine(self.clock)
        self.make()
        self.assertEqual(self.taken(), (7, {b"state at 7"}))
        self.assertEqual(self.forker.signs_of_life, 20)

    def test_a_child_that_fails_is_made_up_for_in_slices_and_the_log_says_so(self):
        self.forker.does = "fail"
        self.assertEqual(self.taken(), (7, {b"state at 7"}))
        (warning,) = [event for event in self.logged if event["log_level"] is LogLevel.warn]
        self.assertIn("signal 11", str(warning["error"]))
        self.assertEqual(self.taker.status().failure, "")

    def test_a_child_that_fails_is_made_up_for_at_once_by_a_machine_without_an_image(self):
        self.machine = Machine(self.clock)
        self.make()
        self.forker.does = "fail"
        self.assertEqual(self.taken(), (7, {b"state at 7"}))

    def test_what_makes_up_for_a_child_is_of_its_own_moment(self):
        """S08."""
        self.forker.does = "hang"
        done = self.taker.take()
        self.machine.index = 9
        self.forker.hanging.errback(ChildFailed("killed: silent for 10 s"))
        snapshot = self.wait(done)
        self.assertEqual(snapshot.meta.last_index, 9)
        self.assertEqual({*self.server.chunks(snapshot)}, {b"state at 9"})
        self.assertEqual(self.server.indexes(), [9])

    def test_without_a_way_to_fork_slices_are_taken(self):
        self.forker = None
        self.make()
        self.assertEqual(self.taken(), (7, {b"state at 7"}))

    def test_slices_are_bounded_and_what_is_applied_between_them_does_not_show(self):
        """S08, S12."""
        self.machine.snapshot_way = SnapshotWay.INCREMENTAL
        self.machine.chunk_s = 0.002
        done = self.taker.take()
        self.machine.index = 8
        snapshot = self.wait(done)
        self.assertEqual(snapshot.meta.last_index, 7)
        self.assertEqual({*self.server.chunks(snapshot)}, {b"state at 7"})
        self.assertAlmostEqual(self.taker.status().stall_s, 0.006)

    def test_the_table_of_sessions_is_made_in_slices_too_and_the_longest_stall_counts_it(self):
        self.machine.snapshot_way = SnapshotWay.INCREMENTAL
        self.sessions.content, self.sessions.image_s = [b"ab"] * 10, 0.004
        self.assertEqual(self.taken()[0], 7)
        # The image itself, and a chunk more than fills the slice.
        self.assertAlmostEqual(self.taker.status().stall_s, 0.012)

    def test_a_server_that_stops_does_not_wait_for_all_sessions(self):
        self.machine.snapshot_way = SnapshotWay.INCREMENTAL
        self.sessions.content, self.sessions.image_s = [b"ab"] * 10, 0.004
        self.server.job_seconds = 1
        failures = []
        self.taker.take().addErrback(failures.append)
        stopped = self.taker.stop()
        began = self.clock.seconds()
        self.wait(stopped)
        # The two chunks of the slice, and the removal.
        self.assertLess(self.clock.seconds() - began, 3.5)
        self.assertEqual(len(failures), 1)

    def test_a_small_state_is_taken_at_once(self):
        self.machine.snapshot_way = SnapshotWay.INLINE
        self.assertEqual(self.taken(), (7, {b"state at 7"}))
        self.assertEqual(self.machine.calls, ["snapshot"])

    # -- when

    def test_it_is_due_when_the_log_is_over_its_limit(self):
        self.assertFalse(self.taker.is_due(999))
        self.assertTrue(self.taker.is_due(1000))

    def test_it_is_due_later_when_the_last_one_was_large(self):
        size = self.wait(self.taker.take()).size
        self.assertFalse(self.taker.is_due(4 * size - 1))
        self.assertTrue(self.taker.is_due(4 * size))

    def test_none_is_due_while_one_is_under_way_and_who_asks_gets_that_one(self):
        """S13."""
        first, second = self.taker.take(), self.taker.take()
        self.assertFalse(self.taker.is_due(10**9))
        self.assertEqual(self.wait(first), self.wait(second))
        self.assertEqual(self.machine.calls, ["image"])

    def test_the_same_state_is_not_taken_twice(self):
        """S13."""
        first = self.wait(self.taker.take())
        self.assertEqual(self.successResultOf(self.taker.take()), first)
        self.assertEqual(self.machine.calls, ["image"])

    def test_a_machine_that_has_applied_nothing_has_no_snapshot(self):
        self.machine.index = 0
        self.failureResultOf(self.taker.take(), SnapshotRefused)

    # -- failures

    def test_a_full_disk_costs_this_snapshot_and_the_next_is_due_after_a_while(self):
        self.machine.snapshot_way = SnapshotWay.INCREMENTAL
        self.server.disk.fail("pwrite", error=errno.ENOSPC)
        with self.assertRaises(StorageError):
            self.wait(self.taker.take())
        self.assertEqual(self.server.disk.file_names(), [])
        self.assertEqual(len(self.errors()), 1)
        self.assertIn("No space left", self.taker.status().failure)
        at_limit = self.taker.limit_bytes()
        self.assertFalse(self.taker.is_due(at_limit))
        self.clock.advance(URGENT_RETRY_S)
        self.assertEqual([self.taker.is_due(size) for size in (at_limit - 1, at_limit)], [False, True])
        self.clock.advance(RETRY_S - URGENT_RETRY_S)
        self.assertTrue(self.taker.is_due(at_limit - 1))
        self.assertEqual(self.taken()[0], 7)
        self.assertEqual(self.taker.status().failure, "")

    def test_at_the_limit_the_next_is_due_after_as_long_as_the_last_one_took_and_never_later_than_else(self):
        for seconds, wait in ((URGENT_RETRY_S / 2, URGENT_RETRY_S), (5.0, 5.0), (2 * RETRY_S, RETRY_S)):
            self.forker.does = "hang"
            done = self.taker.take()
            self.clock.advance(seconds)
            self.forker.hanging.errback(ChildFailed("StorageError: x: full", "StorageError"))
            self.assertRaises(StorageError, self.wait, done)
            self.clock.advance(wait - 0.4)
            self.assertFalse(self.taker.is_due(self.taker.limit_bytes()), seconds)
            self.clock.advance(0.5)
            self.assertTrue(self.taker.is_due(self.taker.limit_bytes()), seconds)

    def test_a_disk_that_was_full_for_the_child_is_not_tried_again_at_once(self):
        self.forker.does = "hang"
        done = self.taker.take()
        self.forker.hanging.errback(ChildFailed("StorageError: x: pwrite failed: No space left", "StorageError"))
        with self.assertRaisesRegex(StorageError, "No space left"):
            self.wait(done)
        self.assertEqual(self.machine.calls, [])
        self.assertFalse(self.taker.is_due(10**9))

    def test_a_machine_that_raises_costs_this_snapshot(self):
        self.machine = Machine(self.clock)
        self.forker = None
        self.make()
        self.machine.failure = ValueError("not now")
        with self.assertRaisesRegex(ValueError, "not now"):
            self.wait(self.taker.take())
        self.assertEqual(self.taker.status().failure, "not now")

    def test_a_server_that_stops_gives_up_what_is_under_way(self):
        self.forker.does = "hang"
        done = self.taker.take()
        stopped = self.taker.stop()
        self.wait(stopped)
        self.failureResultOf(done, SnapshotRefused)
        self.failureResultOf(self.taker.take(), SnapshotRefused)
        self.assertFalse(self.taker.is_due(10**9))
        self.assertEqual((self.errors(), self.server.disk.file_names()), ([], []))

    def test_a_server_that_stops_in_the_midst_of_slices_leaves_nothing(self):
        self.machine.snapshot_way = SnapshotWay.INCREMENTAL
        self.machine.chunk_s = 0.01
        done = self.taker.take()
        self.wait(self.taker.stop())
        self.failureResultOf(done, SnapshotRefused)
        self.assertEqual(self.server.disk.file_names(), [])

    def test_stopping_when_nothing_is_under_way_is_done_at_once(self):
        self.successResultOf(self.taker.stop())

    def test_status_says_what_is_under_way_and_how_the_last_one_was(self):
        self.assertEqual((self.taker.status().way, self.taker.status().taken), ("", 0))
        self.forker.does = "hang"
        self.taker.take()
        self.assertEqual(self.taker.status().way, "fork")
        self.clock.advance(2)
        self.forker.hanging.errback(ChildFailed("x"))
        while self.clock.getDelayedCalls():
            self.clock.advance(0)
        status = self.taker.status()
        self.assertEqual((status.way, status.taken, status.seconds, status.stall_s), ("", 1, 2, 0))
