"""
The steps that log and snapshots take, one server for each, and what may be found when one of them was cut short.

Each is carried out on a disk in memory, and on real files: see `RealDisk`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import attrs
from snapshot_cases import CHUNKS, encoded, meta
from storage_cases import DATA_DIR, LOG, SNAPSHOTS, STATE, Server, entries, replaced, run

from txraft.admin.restore import new_server
from txraft.core.messages import HardState
from txraft.errors import StorageError
from txraft.interfaces import Identity
from txraft.storage.restored import Restoration
from txraft.storage.snapshot_file import SnapshotFileReader
from txraft.storage.stopped import Paths
from txraft.testing.disk import Halted

PATHS = Paths(DATA_DIR, LOG, STATE, SNAPSHOTS)

STATES_PER_CALL = int(os.environ.get("TXRAFT_TEST_STATES", "300"))
"""How many disks that a crash may leave in one call are looked at, before they are drawn. More than 300: all of all."""

STRIDE = 1 if STATES_PER_CALL > 300 else 3
"""Of what takes long, every so many."""


class SnapshotServer(Server):
    """`acknowledged` is (hard state, index of the newest snapshot, entries behind it)."""

    def __init__(self, seed=0, disk=None):
        super().__init__(seed, segment_bytes=1024, disk=disk)
        self.acknowledged = (HardState(), 0, [])
        self.attempted = self.acknowledged

    def do(self, after, start):
        """Do what `start` begins; it may not have come to its end when it fails, but it has if it does not."""
        self.attempted = after
        results = []
        start().addBoth(results.append)
        while self.clock.getDelayedCalls():
            self.clock.advance(0)
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        self.acknowledged = after

    def close(self):
        attempted = self.attempted
        self.do(self.acknowledged, self.store.close)
        self.attempted = attempted

    def write(self, hard_state, *runs):
        old_state, base, log = self.acknowledged
        state = hard_state or old_state
        if hard_state:  # the state comes first
            self.do((state, base, log), lambda: self.store.write(hard_state, []))
        self.do((state, base, replaced(log, runs)), lambda: self.store.write(None, list(runs)))

    def fill(self, first_index, count):
        for one in big(first_index, count):
            self.write(None, one)

    def take(self, index, size=0):
        state, _, log = self.acknowledged
        term = next(term for at, term, _ in log if at == index)

        def begin():
            writer = self.store.snapshots.begin(meta(index, term))
            writer.write(b"state at %d" % index + b"x" * size).addErrback(lambda _: None)
            return writer.commit()

        self.do((state, index, [entry for entry in log if entry[0] > index]), begin)

    def compact(self, first_index):
        self.do(self.acknowledged, lambda: self.store.compact(first_index))

    def install(self, index, term, chunks=CHUNKS):
        """What a follower does: the snapshot comes to its disk, and then the log goes, unless it agrees with it."""
        state, _, log = self.acknowledged
        data, offer = encoded(meta(index, term), chunks)
        agrees = (index, term) in [entry[:2] for entry in log]
        after = (state, index, [entry for entry in log if agrees and entry[0] > index])

        def take_in(partial):
            appended = partial.append(partial.offset, data[partial.offset :])
            committed = appended.addCallback(lambda _: partial.commit())
            return committed.addBoth(lambda result: partial.close().addBoth(lambda _: result))

        self.do(after, lambda: self.store.snapshots.receive(offer).addCallback(take_in))
        if not agrees:
            self.do(after, lambda: self.store.reset(offer.meta))

    def open_again(self):
        self.close()
        return self.open()

    def start(self):
        self.open()

    def look(self):
        """Open, and see what is there. Answers what `acknowledged` would have to be."""
        recovered = self.open()
        last_index = recovered.snapshot.meta.last_index if recovered.snapshot else 0
        log = entries(recovered.runs)
        assert [index for index, _, _ in log] == [*range(recovered.base_index + 1, recovered.base_index + 1 + len(log))]
        terms = {recovered.base_index: recovered.base_term, **{index: term for index, term, _ in log}}
        if recovered.snapshot:
            assert terms[last_index] == recovered.snapshot.meta.last_term
        else:
            assert (recovered.base_index, recovered.base_term) == (0, 0)
        return recovered.hard_state, last_index, [entry for entry in log if entry[0] > last_index]

    def settle(self):
        """
        Start after a crash. What is found, as text: all that was promised, or what was under way too; and it goes on.
        """
        found = self.look()
        assert found in (self.acknowledged, self.attempted), found
        assert not [path for path in self.disk.file_names() if path.startswith(SNAPSHOTS) and ".tmp" in path]
        self.acknowledged = found
        last_index = max([found[1], *(index for index, _, _ in found[2])])
        self.write(HardState(9, "s9"), *big(last_index + 1, 2, term=9))
        self.take(last_index + 1)
        self.compact(last_index + 2)
        self.crash(keep="none")
        assert self.look() == self.acknowledged
        return repr(found)


def big(first_index, count, term=1):
    return [run(first_index + n, [bytes([65 + (first_index + n) % 26]) * 100], term) for n in range(count)]


BACKUP = "/backup"
SAVED = meta(70, 3, cluster_id="old.2.0000000a", membership_index=60)
ME = Identity("c.0.0000000b", "s1", 77)
WHOLE = "whole"


class NewServer(Server):
    """A server whose data directory is to be made."""

    def __init__(self, seed=0, disk=None):
        super().__init__(seed, disk=disk)
        self.disk.write_file(BACKUP, encoded(SAVED, CHUNKS)[0])
        self.acknowledged = self.attempted = ""

    def restore(self, backup=BACKUP):
        reader = SnapshotFileReader(self.disk, backup)
        with contextlib.closing(reader):
            made = Restoration(self.disk, PATHS, 2048).make(reader, new_server(SAVED, ME), lambda done, size: None)
        self.acknowledged = WHOLE
        return made

    def read_chunks(self, snapshot):
        """What the machine would be restored from."""
        path = f"{SNAPSHOTS}/{70:020d}-{3:020d}.snapshot"
        with contextlib.closing(SnapshotFileReader(self.disk, path)) as reader:
            assert reader.verify() == snapshot
        with contextlib.closing(SnapshotFileReader(self.disk, path)) as reader:
            return [*iter(reader.next_chunk, None)]

    def start(self):
        """As its operator does when something was made."""
        if not is_as_before(self):
            self.open(cluster_id="")

    def close(self):
        self.store.close()
        self.clock.pump([0, 0, 0, 0])

    def settle(self):
        """Start after a crash. What is found, as text: nothing, all of it, or what is refused."""
        found = judge(self)
        assert found == WHOLE or not self.acknowledged, found
        return found


def is_as_before(server):
    """Nothing that was made can be found any more: as if nobody had asked."""
    names = {path for path in server.disk.file_names() if path.startswith(DATA_DIR)}
    return names <= {f"{DATA_DIR}/lock", f"{STATE}.tmp"}


def judge(server):
    """What a start finds: all of it, or it refuses; or the directory is as it was before."""
    if is_as_before(server):
        return "as before"
    try:
        after = server.open(cluster_id="")
    except StorageError:
        return "does not start"
    assert after.identity == ME
    assert after.hard_state == HardState(3, None)
    assert (after.runs, after.base_index, after.base_term) == ([], 70, 3)
    assert server.read_chunks(after.snapshot) == CHUNKS
    return WHOLE


Work = Callable[[Any], object]


def take_by_child(server: SnapshotServer, index: int) -> None:
    """As a forked child does, which has the parent's objects once more."""
    state, _, log = server.acknowledged
    term = next(term for at, term, _ in log if at == index)

    def begin():
        writer = server.store.snapshots.begin(meta(index, term))
        server.store.snapshots.begin(meta(index, term)).write_here([], [b"x" * 600, b"y" * 600], lambda: None)
        return writer.adopt()

    server.do((state, index, [entry for entry in log if entry[0] > index]), begin)


def receive_a_part(server: SnapshotServer, index: int, term: int) -> None:
    data, offer = encoded(meta(index, term))

    def take_in(partial):
        return partial.append(0, data[:1000]).addBoth(lambda result: partial.close().addBoth(lambda _: result))

    server.do(server.acknowledged, lambda: server.store.snapshots.receive(offer).addCallback(take_in))


def first_start(server: SnapshotServer) -> None:
    server.open()
    server.write(HardState(1, "s1"), *big(1, 1))


def log_of(count: int) -> Work:
    def prepare(server: SnapshotServer) -> None:
        server.open()
        server.write(HardState(1, "s1"), *big(1, count))

    return prepare


def snapshots_at(*indexes: int) -> Work:
    def prepare(server: SnapshotServer) -> None:
        server.open()
        for one in big(1, max(indexes) + 3):
            server.write(None, one)
        for index in indexes:
            server.take(index)

    return prepare


def log_and_a_part(index: int) -> Work:
    def prepare(server: SnapshotServer) -> None:
        log_of(4)(server)
        receive_a_part(server, index, 1)

    return prepare


@attrs.frozen
class Step:
    """
    What is there before, and what is done then, by a server of its own kind.

    `calls`: in how many of its calls, at least, a crash may leave disks that none before may; `disks`: how many those
    are in all, at least. So that none of this can come to look at nothing.
    """

    prepare: Work
    work: Work
    calls: int
    disks: int
    kind: Callable[..., Any] = SnapshotServer

    def prepared(self, **options: Any) -> Any:
        """A server that is about to do it."""
        server = self.kind(**options)
        self.prepare(server)
        return server

    def cut_short(self, server: Any) -> None:
        """Do it on a disk on which something may go wrong."""
        with contextlib.suppress(Halted, StorageError):
            self.work(server)

    @staticmethod
    def start(server: Any) -> None:
        """Start the server, which may be refused, on a disk on which something may go wrong."""
        with contextlib.suppress(Halted, StorageError):
            server.start()


LARGE = [bytes([65 + n]) * 600 for n in range(12)]

STEPS = {
    "first start": Step(lambda server: None, first_start, 14, 25),
    "vote": Step(log_of(2), lambda server: server.write(HardState(3, "s3")), 3, 4),
    "append": Step(log_of(2), lambda server: server.write(None, *big(3, 1)), 2, 2),
    "append a batch": Step(log_of(2), lambda server: server.write(None, *big(3, 6)), 8, 12),
    "replace a suffix": Step(log_of(6), lambda server: server.write(HardState(2), run(4, "xy", term=2)), 10, 15),
    "rotate": Step(log_of(7), lambda server: server.write(None, *big(8, 9)), 8, 12),
    "append more than a segment": Step(log_of(2), lambda server: server.write(None, run(3, LARGE)), 6, 300),
    "take": Step(log_of(4), lambda server: server.take(3), 3, 6),
    "take a large one": Step(log_of(4), lambda server: server.take(3, size=7000), 6, 300),
    "take by a child": Step(log_of(4), lambda server: take_by_child(server, 3), 6, 30),
    "take, and remove an old one": Step(snapshots_at(2, 4), lambda server: server.take(6), 6, 14),
    "compact": Step(snapshots_at(12), lambda server: server.compact(12), 4, 6),
    "compact much behind two": Step(snapshots_at(40, 50), lambda server: server.compact(50), 12, 15),
    "receive and install": Step(log_of(4), lambda server: server.install(20, 1), 8, 300),
    "receive and install a large one": Step(log_of(4), lambda server: server.install(20, 1, LARGE), 8, 300),
    "install what matches": Step(snapshots_at(2, 5), lambda server: server.install(7, 1), 4, 300),
    "install what contradicts": Step(snapshots_at(2, 5), lambda server: server.install(7, 2), 8, 300),
    "receive another one": Step(log_and_a_part(9), lambda server: server.install(20, 1), 8, 300),
    "go on with a part": Step(log_and_a_part(20), lambda server: server.install(20, 1), 6, 150),
    "restore": Step(lambda server: None, lambda server: server.restore(), 18, 300, NewServer),
}
