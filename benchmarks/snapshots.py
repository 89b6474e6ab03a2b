"""
Measures what a snapshot of the kv machine costs the server that goes on: python benchmarks/snapshots.py [--keys N]

A reactor that has ten writes to do every millisecond goes on while snapshots are taken, in each way in turn.
Printed for each: how long it took, and how late that work was at worst and at the 99th percentile, beside what it is
without a snapshot; and the turn in which it is begun, by the clock and by the CPU that it took. Then what a start has
to do: verify a snapshot, read and restore it. On a busy machine work is late for other reasons, too: see "none", and
the load average.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from txraft.core.snapshot import SnapshotMeta
from txraft.forking import Forker
from txraft.images import SnapshotWay
from txraft.interfaces import Snapshot
from txraft.machines.kv import KeyValueMachine
from txraft.machines.kv_encoding import pack_set
from txraft.node.restoring import prepare
from txraft.node.state import State
from txraft.node.taking import SnapshotTaker, TakingSettings
from txraft.storage.files import FileSystem
from txraft.storage.snapshots import SnapshotStore
from txraft.storage.writer import WriterThread

TICK_S = 0.001


class Work:
    """Ten writes each millisecond, and how late each was, in seconds."""

    def __init__(self, reactor: Any, machine: KeyValueMachine, keys: int) -> None:
        self.late: list[float] = []
        self._reactor = reactor
        self._machine = machine
        self._keys = keys
        self._rng = random.Random(1)
        self._due = time.monotonic()
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        self.late.append(now - self._due)
        writes = [pack_set(b"key-%08d" % self._rng.randrange(self._keys), b"%080d" % n) for n in range(10)]
        self._machine.apply(self._machine.applied_index + 1, writes, 0)
        self._due = time.monotonic() + TICK_S
        self._reactor.callLater(TICK_S, self._tick)

    def show(self, what: str, seconds: float, remark: str = "") -> None:
        late = sorted(self.late)
        worst, usual = late[-1] * 1000, late[len(late) * 99 // 100] * 1000
        print(f"{what:12} {seconds:6.2f} s   latest by {worst:6.1f} ms   p99 {usual:5.1f} ms   {remark}", flush=True)
        self.late.clear()


def filled(keys: int) -> KeyValueMachine:
    """A machine with that many keys of 12 bytes and values of 80."""
    machine = KeyValueMachine()
    for start in range(0, keys, 1000):
        machine.apply(start + 1, [pack_set(b"key-%08d" % n, b"%080d" % n) for n in range(start, start + 1000)], 0)
    return machine


async def measure(reactor: Any, keys: int, directory: str) -> None:
    machine = filled(keys)
    writer = WriterThread(reactor)
    store = SnapshotStore(FileSystem(), directory, 2, True, writer)
    store.recover()

    def describe() -> SnapshotMeta:
        return SnapshotMeta("c", machine.applied_index, 1, 0, b"{}", 1)

    taker = SnapshotTaker(State(machine), store, describe, reactor, Forker(reactor, 10), TakingSettings())
    work = Work(reactor, machine, keys)
    await deferLater(reactor, 3)
    work.show("none", 3, f"load average {os.getloadavg()[0]:.1f}")
    snapshot: Snapshot | None = None
    for way in SnapshotWay:
        machine.snapshot_way = way
        before = time.thread_time()
        done = taker.take()
        cpu_s = time.thread_time() - before
        snapshot = await done
        status = taker.status()
        assert status.seconds is not None and status.stall_s is not None
        longest = f"longest turn {status.stall_s * 1000:.1f} ms, CPU of the first {cpu_s * 1000:.1f} ms"
        work.show(way.value, status.seconds, f"{snapshot.size >> 20} MiB, {longest}")
        await deferLater(reactor, 0.5)
        work.late.clear()
    assert snapshot is not None
    started = time.monotonic()
    assert store.recover() == snapshot
    print(f"verified     {time.monotonic() - started:6.2f} s")
    await deferLater(reactor, 0.5)
    work.late.clear()
    started = time.monotonic()
    restored = KeyValueMachine()
    become = await prepare(store, State(restored), snapshot)
    work.show("restore", time.monotonic() - started)
    become()
    await deferLater(reactor, 0.01)
    work.show("... its end", 0.01)
    assert len(restored) == keys
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many keys (default: 1000000)")
    keys = parser.parse_args().keys
    with tempfile.TemporaryDirectory() as directory:
        react(lambda reactor: Deferred.fromCoroutine(measure(reactor, keys, directory)))


if __name__ == "__main__":
    main()
