"""Snapshots on a fake disk, and what to do with them in one line each."""

from __future__ import annotations

import random

from twisted.internet.task import Clock

from txraft.core.snapshot import SnapshotMeta
from txraft.framing import Splitter
from txraft.interfaces import Snapshot
from txraft.storage.snapshot_format import Encoder
from txraft.storage.snapshots import SnapshotStore
from txraft.testing.disk import FakeDisk
from txraft.testing.writer import FakeWriter

DIRECTORY = "/snapshots"
CHUNKS = [b"first", b"", b"x" * 3000, bytes(700)]


def meta(last_index=7, last_term=2, **changes):
    fields = {
        "cluster_id": "c",
        "last_index": last_index,
        "last_term": last_term,
        "time_ms": 1000 + last_index,
        "membership": b'{"voters":["s1"]}',
        "membership_index": 1,
    }
    return SnapshotMeta(**(fields | changes))


def encoded(of=None, chunks=CHUNKS):
    """(bytes of the file, the `Snapshot` that it is)."""
    of = of or meta()
    encoder = Encoder(of)
    parts = [encoder.header(), *(data for chunk in chunks for data in encoder.chunk(chunk))]
    end, size, digest = encoder.trailer()
    return b"".join([*parts, end]), Snapshot(of, size, digest)


def payloads_of(data):
    """The frames of a file, without their headers."""
    return Splitter(1 << 21).feed(data)


class Server:
    """One server's snapshots, through restarts."""

    def __init__(self, seed=0, keep=2):
        self.disk = FakeDisk(random.Random(seed))
        self.disk.mkdir(DIRECTORY)
        self.disk.fsync_directory("/")
        self.keep = keep
        self.clock = Clock()
        self.job_seconds = 0.0
        self.start()

    def start(self):
        """A new process; the newest snapshot."""
        self.writer = FakeWriter(self.clock, lambda: self.job_seconds)
        self.store = SnapshotStore(self.disk, DIRECTORY, self.keep, True, self.writer)
        return self.store.recover()

    def crash(self, keep="some"):
        self.writer.crash()
        self.disk.crash(keep)

    def wait(self, done):
        """The result of a Deferred; raises what it failed with."""
        results = []
        done.addBoth(results.append)
        while self.clock.getDelayedCalls():
            self.clock.advance(0.01)
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def take(self, of, chunks=CHUNKS):
        """Write one, as a machine does that makes its chunks in slices."""
        writer = self.store.begin(of)
        for chunk in chunks:
            writer.write(chunk).addErrback(lambda _: None)  # commit fails, too
        return self.wait(writer.commit())

    def receive(self, data, offer, piece_bytes=1000):
        """Take in what another server sends, from where it stopped the last time."""
        partial = self.wait(self.store.receive(offer))
        while partial.offset < len(data):
            self.wait(partial.append(partial.offset, data[partial.offset : partial.offset + piece_bytes]))
        return self.wait(partial.commit())

    def chunks(self, snapshot):
        reader = self.wait(self.store.open(snapshot))
        chunks = []
        while (chunk := self.wait(reader.next_chunk())) is not None:
            chunks.append(chunk)
        self.wait(reader.close())
        return chunks

    def content(self, snapshot):
        """All bytes of it, read as they are sent."""
        reader = self.wait(self.store.open(snapshot))
        pieces = [self.wait(reader.read(offset, 512)) for offset in range(0, snapshot.size, 512)]
        self.wait(reader.close())
        return b"".join(pieces)

    def indexes(self):
        return [snapshot.meta.last_index for snapshot in self.store.kept()]
