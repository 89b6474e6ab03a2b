"""Simulated time: order, cancellation, and processes that pause, run at another rate, or die."""

from __future__ import annotations

from txraft.testing.clock import ProcessClock, SimulatedClock
from txraft.testing.cluster import Cluster


def run_all(clock: SimulatedClock) -> None:
    while clock.run_next():
        pass


def test_calls_run_in_the_order_of_their_times_and_then_of_their_making():
    clock, order = SimulatedClock(), []
    for delay, name in ((2, "c"), (1, "a"), (2, "d"), (1, "b")):
        clock.callLater(delay, order.append, name)
    run_all(clock)
    assert (order, clock.now) == (["a", "b", "c", "d"], 2)


def test_a_cancelled_call_does_not_run_and_a_delayed_one_runs_later():
    clock, order = SimulatedClock(), []
    clock.callLater(1, order.append, "cancelled").cancel()
    clock.callLater(1, order.append, "delayed").delay(5)
    clock.callLater(3, order.append, "plain")
    run_all(clock)
    assert (order, clock.now) == (["plain", "delayed"], 6)


def test_what_comes_due_while_a_process_is_paused_happens_in_order_when_it_goes_on():
    """T02: all timers fire at once."""
    clock, order = SimulatedClock(), []
    process = ProcessClock(clock)
    for delay in (1, 2, 3):
        process.callLater(delay, order.append, delay)
    process.pause()
    clock.callLater(10, process.resume)
    run_all(clock)
    assert (order, clock.now) == ([1, 2, 3], 10)


def test_nothing_that_a_dead_process_had_planned_happens():
    clock, order = SimulatedClock(), []
    process = ProcessClock(clock)
    process.callLater(1, order.append, "planned")
    process.pause()
    process.when_awake(lambda: order.append("held"))
    process.die()
    process.resume()
    run_all(clock)
    assert order == []


def test_a_fast_clock_calls_earlier_and_shows_a_later_time():
    clock, seen = SimulatedClock(), []
    process = ProcessClock(clock, rate=2.0)
    process.callLater(10, lambda: seen.append((clock.now, process.seconds())))
    run_all(clock)
    assert seen == [(5, 10)]


def test_a_leader_that_was_paused_answers_no_read_after_another_was_elected():
    """T02, C01, C05: it does not know how long it slept, so it must ask."""
    for length in (0.1, 0.3, 1.0, 3.0):
        cluster = Cluster(seed=2)
        cluster.start()
        old = cluster.elect()
        me = old.settings.server_id
        cluster.pause(me)
        answers: list[object] = []
        # A client's request waits in the socket of the paused process.
        cluster.servers[me].clock.when_awake(
            lambda: old.read(b"").addCallbacks(answers.append, lambda failure: answers.append(failure.value))  # noqa: B023
        )
        acknowledged: list[int] = []
        cluster.run(length)
        other = cluster.leader() if cluster.leader() is not old else None
        if other is not None:
            other.propose(b"new").addCallback(acknowledged.append)
            cluster.run(0.2)
        cluster.resume(me)
        cluster.run(1)
        (answer,) = answers
        assert not isinstance(answer, int) or answer >= len(acknowledged)
        assert cluster.elect() is not None


def test_a_process_that_computes_sees_time_pass_and_hears_nothing_meanwhile():
    """T08"""
    clock, seen = SimulatedClock(), []
    process = ProcessClock(clock)

    def compute() -> None:
        for _ in range(3):
            process.be_busy(2)
            seen.append(process.seconds())

    process.callLater(1, compute)
    process.callLater(2, lambda: seen.append((clock.now, process.seconds())))
    run_all(clock)
    assert seen == [3, 5, 7, (7, 7)]
