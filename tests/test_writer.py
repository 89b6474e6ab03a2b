"""The writer thread: one job at a time, in order, reported on the reactor's thread."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txraft.storage.writer import IWriter, WriterThread
from txraft.testing.writer import FakeWriter

DEADLINE_S = 60


class CallsFromThreads:
    """The part of a reactor that a thread may use; `run_until` is the reactor's thread."""

    def __init__(self):
        self.calls = SimpleQueue()
        self.count = 0

    def callFromThread(self, call, *args):
        self.count += 1
        self.calls.put((call, args))

    def run_until(self, deferred):
        while not deferred.called:
            call, args = self.calls.get(timeout=DEADLINE_S)
            call(*args)
        return deferred


class WriterThreadTests(SynchronousTestCase):
    def setUp(self):
        self.reactor = CallsFromThreads()
        self.writer = WriterThread(self.reactor)
        self.addCleanup(lambda: self.reactor.run_until(self.writer.stop()))

    def result(self, deferred):
        return self.successResultOf(self.reactor.run_until(deferred))

    def test_provides_its_interface(self):
        self.assertTrue(verifyObject(IWriter, self.writer))

    def test_a_job_runs_on_another_thread_and_its_result_comes_back(self):
        self.assertNotEqual(self.result(self.writer.run(threading.get_ident)), threading.get_ident())
        self.assertEqual(self.result(self.writer.run(divmod, 7, 3)), (2, 1))

    def test_a_result_is_reported_on_the_reactors_thread(self):
        """T10: it is the only other thread, so the core is never touched from a foreign one."""
        seen = []
        self.result(self.writer.run(int).addCallback(lambda _: seen.append(threading.get_ident())))
        self.assertEqual(seen, [threading.get_ident()])

    def test_no_thread_exists_before_the_first_job(self):
        """A process may fork between construction and start."""
        before = threading.active_count()
        writer = WriterThread(self.reactor)
        self.assertEqual(threading.active_count(), before)
        self.assertTrue(writer.stop().called)

    def test_jobs_run_in_order_one_at_a_time(self):
        """D16."""
        order = []
        jobs = [self.writer.run(order.append, number) for number in range(200)]
        self.result(jobs[-1])
        self.assertEqual(order, list(range(200)))

    def test_a_failure_is_reported_and_the_next_job_runs(self):
        """D16: a failure is not lost."""
        failed = self.writer.run(divmod, 1, 0)
        self.assertEqual(self.result(self.writer.run(int)), 0)
        self.failureResultOf(failed, ZeroDivisionError)

    def test_afterwards_runs_when_the_result_was_reported_and_before_the_next_job(self):
        order = []
        reported = []
        self.writer.run(
            order.append, 1, afterwards=lambda: (reported.append(self.reactor.calls.qsize()), order.append(2))
        )
        self.result(self.writer.run(order.append, 3))
        self.assertEqual(order, [1, 2, 3])
        self.assertEqual(reported, [1])

    def test_afterwards_does_not_run_behind_a_failure(self):
        order = []
        self.writer.run(divmod, 1, 0, afterwards=lambda: order.append("afterwards")).addErrback(lambda _: None)
        self.result(self.writer.run(int))
        self.assertEqual(order, [])

    def test_stop_finishes_all_jobs_and_ends_the_thread(self):
        before = threading.active_count()
        order = []
        for number in range(20):
            self.writer.run(order.append, number)
        self.assertIsNone(self.result(self.writer.stop()))
        self.assertEqual(order, list(range(20)))
        self.assertEqual(threading.active_count(), before)


class FakeWriterTests(SynchronousTestCase):
    def test_a_job_touches_the_disk_at_half_time_and_is_reported_at_the_end(self):
        clock = Clock()
        writer = FakeWriter(clock, lambda: 1.0)
        order = []
        done = writer.run(order.append, "a", afterwards=lambda: order.append("afterwards"))
        second = writer.run(order.append, "b")
        clock.advance(0.5)
        self.assertEqual(order, ["a"])
        self.assertNoResult(done)
        clock.advance(0.5)
        self.successResultOf(done)
        self.assertEqual(order, ["a", "afterwards"])
        clock.pump([0.5, 0.5])
        self.successResultOf(second)
        self.assertEqual(order, ["a", "afterwards", "b"])

    def test_a_failure_is_reported_without_afterwards(self):
        clock = Clock()
        order = []
        done = FakeWriter(clock).run(divmod, 1, 0, afterwards=lambda: order.append("afterwards"))
        clock.pump([0, 0])
        self.failureResultOf(done, ZeroDivisionError)
        self.assertEqual(order, [])

    def test_after_a_crash_nothing_more_happens(self):
        for seconds in (0.2, 0.7):
            clock = Clock()
            writer = FakeWriter(clock, lambda: 1.0)
            order = []
            done = [writer.run(order.append, number) for number in range(3)]
            clock.advance(seconds)
            writer.crash()
            clock.pump([1.0] * 5)
            self.assertEqual(order, [0][: seconds > 0.5])
            for each in done:
                self.assertNoResult(each)
