"""A log store on a fake disk, a history of writes for it, and what may be found after a crash."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator
from typing import Any

from twisted.internet.task import Clock

from txraft.core.log import EntryKind, EntryRun
from txraft.core.messages import HardState
from txraft.errors import StorageError
from txraft.storage.snapshots import SnapshotStore
from txraft.storage.store import LogStore
from txraft.testing.disk import FakeDisk
from txraft.testing.writer import FakeWriter

DATA_DIR = "/raft-data"
LOG = DATA_DIR + "/log"
STATE = DATA_DIR + "/core_map"
SNAPSHOTS = DATA_DIR + "/snapshots"


def run(first_index, commands, term=1, kind=EntryKind.COMMAND, time_ms=1000):
    """A run of these commands; a string makes one command of each letter."""
    if isinstance(commands, str):
        commands = [letter.encode() for letter in commands]
    return EntryRun(first_index, term, kind, time_ms, commands)


def entries(runs):
    """(index, term, command) of each entry: what two logs that are equal have in common."""
    return [
        (run.first_index + offset, run.term, command) for run in runs for offset, command in enumerate(run.commands)
    ]


def replaced(log, runs):
    """What the log `log` of `entries` is when `runs` were written."""
    for run in runs:
        log = [entry for entry in log if entry[0] < run.first_index] + entries([run])
    return log


# (hard state or None, runs): rotations, replaced suffixes, long runs of zeros, a record longer than a segment.
HISTORY = [
    (HardState(1, "s1"), []),
    (None, [run(1, [b""], kind=EntryKind.NOOP)]),
    (None, [run(2, "abc")]),
    (None, [run(5, [b"d" * 300]), run(6, [b"e" * 200], time_ms=1001)]),
    (None, [run(7, [bytes(700), b"f"])]),
    (HardState(2, None), [run(8, "ghij", term=2)]),
    (None, [run(9, "G", term=2), run(10, [b"H" * 900], term=2)]),
    (HardState(3, "s2"), []),
    (None, [run(6, "klmno", term=3)]),
    (None, [run(11, [bytes([n % 251]) * 37 for n in range(90)], term=3)]),
    (HardState(4, "s1"), [run(101, "pq", term=3)]),
    (None, [run(100, "PQR", term=4), run(103, [bytes(64) * 9 + b"s"], term=5)]),
    (None, [run(104, [b"t" * 333], term=5)]),
]


class Server:
    """One server's storage, through restarts, and what it was told that is durable. `disk` is a fake one, or real."""

    def __init__(self, seed=0, segment_bytes=2048, fsync=True, disk=None):
        self.disk = FakeDisk(random.Random(seed)) if disk is None else disk
        self.segment_bytes = segment_bytes
        self.fsync = fsync
        self.incarnations = random.Random(seed + 1)
        self.clock = Clock()
        self.store = self.writer = self.snapshot_writer = None
        self.acknowledged = (HardState(), [])

    def make_store(self, server_id="s1", cluster_id="c"):
        """A new process's store, not open."""
        self.writer, self.snapshot_writer = FakeWriter(self.clock), FakeWriter(self.clock)
        self.store = LogStore(
            data_dir=DATA_DIR,
            log_file=LOG,
            core_map_file=STATE,
            server_id=server_id,
            cluster_id=cluster_id,
            segment_bytes=self.segment_bytes,
            fsync=self.fsync,
            files=self.disk,
            writer=self.writer,
            new_incarnation=lambda: self.incarnations.getrandbits(64),
            monotonic=self.clock.seconds,
            snapshots=SnapshotStore(self.disk, SNAPSHOTS, 2, self.fsync, self.snapshot_writer),
        )
        return self.store

    def open(self, **identity):
        """Start a process on the disk as it is; what it recovers."""
        return self.make_store(**identity).open()

    def write(self, hard_state, runs):
        """One write, to its end; raises what it fails with."""
        return self.finish(self.store.write(hard_state, runs), hard_state, runs)

    def finish(self, done, hard_state=None, runs=()):
        results = []
        done.addBoth(results.append)
        while self.clock.getDelayedCalls():
            self.clock.advance(0)
        if results[0] is not None:
            results[0].raiseException()
        self.acknowledged = (hard_state or self.acknowledged[0], replaced(self.acknowledged[1], runs))

    def write_history(self, history=HISTORY):
        """The history, to its end or to the first failure; answers what there would be if the failed write was done."""
        for hard_state, runs in history:
            attempted = (hard_state or self.acknowledged[0], replaced(self.acknowledged[1], runs))
            try:
                self.write(hard_state, runs)
            except Exception as error:
                return attempted, error
        return self.acknowledged, None

    def crash(self, keep="some"):
        if self.writer is not None:
            self.writer.crash()
            self.snapshot_writer.crash()
        self.disk.crash(keep)

    def close(self):
        self.finish(self.store.close())

    def segments(self):
        return [path for path in self.disk.file_names() if path.startswith(LOG + ".0")]


def found(recovered):
    """The part of a `Recovered` that a history decides."""
    return recovered.hard_state, entries(recovered.runs)


def allowed(acknowledged, attempted):
    """What may be found after a crash: the state is written before the log."""
    return [acknowledged, (attempted[0], acknowledged[1]), attempted]


def count_calls(make: Callable[[], Any], work: Callable[[Any], object]) -> int:
    """How many system calls `work` makes of a server on a fake disk."""
    server = make()
    before = server.disk.calls.total()
    work(server)
    return server.disk.calls.total() - before


def with_each_call_failing(
    make: Callable[[], Any],
    work: Callable[[Any], object],
    error: int,
    written: int = 0,
    only: Container[int] = range(1 << 20),
) -> Iterator[tuple[Any, str, bool]]:
    """
    For each call that `work` makes: a server for which that one failed, its name, and whether `work` said so.

    @param only: the calls that it is done for, numbered from 0.
    """
    sample = make()
    before = sample.disk.calls.copy()
    work(sample)
    made = sample.disk.calls - before
    calls = [(call, number) for call in sorted(made) for number in range(1, made[call] + 1)]
    for place, (call, number) in enumerate(calls):
        if place not in only:
            continue
        server = make()
        server.disk.fail(call, number, error, written)
        try:
            work(server)
        except StorageError:
            yield server, call, True
        else:
            yield server, call, False
