"""Every server's machine is given the same, and a snapshot is as good as the log that it replaces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from zope.interface import alsoProvides, implementer

from txraft.core.invariants import require
from txraft.core.snapshot import SnapshotMeta
from txraft.images import IPreparedRestore, IRestoring, ISnapshotImage, SnapshotWay
from txraft.interfaces import IStateMachine, Snapshot
from txraft.node.taking import TakingSettings

if TYPE_CHECKING:
    from txraft.testing.server import Server

SLICE_S = TakingSettings().snapshot_slice_ms / 1000


class Record:
    """
    What the machines of one cluster were given, and became.

    `digests` are of all that was applied up to each index, and the same on all servers.

    @param new_machine: makes a machine that nothing was given yet.
    @param judging: an invariant that is broken within this ends the run.
    """

    def __init__(self, new_machine: Callable[[], Any], judging: Callable[[], AbstractContextManager[None]]) -> None:
        self.digests: dict[int, bytes] = {}
        self._new_machine = new_machine
        self._judging = judging
        self._replaying: Any = None
        self._replayed_index = 0
        self._replays: dict[int, bytes] = {}
        self._metas: dict[tuple[str, int], SnapshotMeta] = {}
        self.received: dict[tuple[str, Snapshot], int] = {}
        """How much has come of each snapshot to each server, in all of its processes."""
        self.rows: set[str] = set()
        """The rows of the catalogue whose situation was seen by those who look after the disks."""
        self._commands: dict[int, tuple[int, bytes]] = {}
        self._states: dict[int, bytes] = {}
        self.tables: dict[int, bytes] = {}
        """Digests of the table of sessions, by the index at which it was seen; see `TrueSessions`."""

    @property
    def applied_index(self) -> int:
        """The last index of which any server's machine was given a command."""
        return max(self._commands, default=0)

    def note(self, index: int, time_ms: int, command: bytes, digest: bytes) -> bool:
        """False if another server was given something else, here or before."""
        self._commands.setdefault(index, (time_ms, command))
        return self.digests.setdefault(index, digest) == digest

    def note_state(self, index: int, chunks: Sequence[bytes]) -> bool:
        """False if another server had another state after the command at `index`."""
        digest = _digest(chunks)
        return self._states.setdefault(index, digest) == digest

    def require(self, holds: bool, what: str, *facts: object) -> None:
        """:raises InvariantBroken: it does not hold; that ends the run, whoever catches it."""
        with self._judging():
            require(holds, what, *facts)

    def note_snapshot(self, meta: SnapshotMeta) -> bool:
        """False if another server of the cluster has a snapshot of this index that stands for something else."""
        return self._metas.setdefault((meta.cluster_id, meta.last_index), meta) == meta

    def is_image(self, last_index: int, chunks: Sequence[bytes]) -> bool:
        """Whether a snapshot's chunks are what a witness writes that was given all commands up to `last_index`."""
        index, digest, *state = chunks
        expected = max((at for at in self._commands if at <= last_index), default=0)
        is_same = int(index) == expected and self.digests.get(expected, b"") == digest
        return is_same and self.is_replayed(expected, state)

    def is_replayed(self, index: int, chunks: Sequence[bytes]) -> bool:
        """Whether this is the state to which all commands up to `index` lead, from the first one on."""
        if index not in self._replays:
            self._replays[index] = self._replay(index)
        return self._replays[index] == _digest(chunks)

    def _replay(self, index: int) -> bytes:
        """Mostly it goes on where the last one has ended."""
        if self._replaying is None or self._replayed_index > index:
            self._replaying, self._replayed_index = self._new_machine(), 0
        for at in sorted(at for at in self._commands if self._replayed_index < at <= index):
            time_ms, command = self._commands[at]
            self._replaying.apply(at, [command], time_ms)
        self._replayed_index = index
        return _digest(self._replaying.snapshot())


def _digest(chunks: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(b"%d %b" % (len(chunk), chunk) for chunk in chunks), digest_size=16).digest()


@implementer(IStateMachine, ISnapshotImage)
class Witness:
    """
    Between the node and the machine. Its snapshots say what was applied, so that it goes on from there when restored.
    It is prepared for that if the machine can be.

    :ivar snapshot_way: see `ISnapshotImage`.
    :ivar index: the last command's that the machine has applied; 0 before the first.
    """

    def __init__(
        self,
        server: Server,
        record: Record,
        judging: Callable[[], AbstractContextManager[None]],
        snapshot_way: SnapshotWay,
    ) -> None:
        self.snapshot_way = snapshot_way
        self._server = server
        self.index = 0
        self._machine = server.machine
        self._judging = judging
        self._server_id = server.server_id
        self._record = record
        self._digest = b""
        if IPreparedRestore.providedBy(server.machine):
            alsoProvides(self, IPreparedRestore)

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        for index, command in enumerate(commands, first_index):
            entry = b"%d %d %d " % (index, time_ms, len(command)) + command
            self._digest = hashlib.blake2b(self._digest + entry, digest_size=16).digest()
            is_same = self._record.note(index, time_ms, command, self._digest)
            with self._judging():
                require(index > self.index, "applied twice", self._server_id, index, self.index)
                require(is_same, "State Machine Safety", self._server_id, index, command)
            self.index = index
        self._server.be_busy(self._server.apply_seconds)
        with self._judging():
            results: Sequence[object] = self._machine.apply(first_index, commands, time_ms)
        return results

    def query(self, request: bytes) -> object:
        with self._judging():
            return self._machine.query(request)

    def snapshot(self) -> Sequence[bytes]:
        is_small = self.snapshot_way is SnapshotWay.INLINE
        self._record.require(is_small, "a machine makes all of its snapshot at once", self._server_id)
        return self._state()

    def _state(self) -> list[bytes]:
        with self._judging():
            chunks: Sequence[bytes] = self._machine.snapshot()
            self._check_state(chunks)
        return [b"%d" % self.index, self._digest, *chunks]

    def image(self) -> Iterator[bytes]:
        """All of it is made now, and takes its time when it is asked for: later changes do not show."""
        chunks, slices = self._state(), self.slices()

        def in_time() -> Iterator[bytes]:
            for chunk in chunks:
                slices.spend()
                yield chunk

        return in_time()

    def slices(self) -> Slices:
        """For one snapshot that is made, or that the machine is restored from."""
        return Slices(self._server, self._record)

    def restore(self, chunks: Sequence[bytes]) -> None:
        index, digest, *state = chunks
        self.restored(int(index), digest, lambda: self._machine.restore(state))

    def restoring(self) -> _Restoring:
        """See `IPreparedRestore`; only if the machine is one."""
        return _Restoring(self, self._machine.restoring())

    def restored(self, index: int, digest: bytes, restore: Callable[[], None]) -> None:
        """`restore` makes the state that such a snapshot holds that of the machine."""
        with self._judging():
            require(index >= self.index, "restored from an older snapshot", self._server_id, index, self.index)
            self.index, self._digest = index, digest
            is_same = self._record.digests.get(self.index, b"") == digest
            require(is_same, "State Machine Safety: a snapshot", self._server_id, self.index)
            restore()
            self._check_state(self._machine.snapshot())

    def _check_state(self, chunks: Sequence[bytes]) -> None:
        is_same = self._record.note_state(self.index, chunks)
        require(is_same, "a snapshot and the log behind it are not what the whole log is", self._server_id, self.index)

    def check(self) -> None:
        """The state is that of a new machine to which the whole log was given."""
        with self._judging():
            chunks = self._machine.snapshot()
            is_replayed = self._record.is_replayed(self.index, chunks)
            require(is_replayed, "the state is not what a replay of the log leads to", self._server_id, self.index)


class Slices:
    """
    The time that a snapshot's chunks take a server: no longer without a break than a slice, and one chunk. S12.
    """

    def __init__(self, server: Server, record: Record) -> None:
        assert server.clock is not None, server.server_id
        self._server = server
        self._clock = server.clock
        self._record = record
        self._turn: float | None = None
        self._busy_s = 0.0

    def spend(self) -> None:
        """A chunk is made or taken now."""
        server, turn = self._server, self._clock.turn
        if turn != self._turn:
            if self._turn is not None and server.chunk_seconds:
                self._record.rows.add("S12")
            self._turn, self._busy_s = turn, 0.0
        is_bounded = self._busy_s <= SLICE_S + 1e-6
        self._record.require(is_bounded, "a snapshot keeps a server from all else", server.server_id, self._busy_s)
        server.be_busy(server.chunk_seconds)
        self._busy_s += server.chunk_seconds * self._clock.rate


@implementer(IRestoring)
class _Restoring:
    """Of a witness, and of its machine, which is given all but the first two chunks."""

    def __init__(self, witness: Witness, restoring: Any) -> None:
        self._witness = witness
        self._restoring = restoring
        self._head: list[bytes] = []
        self._slices = witness.slices()

    def add(self, chunk: bytes) -> None:
        self._slices.spend()
        if len(self._head) < 2:
            self._head.append(chunk)
        else:
            self._restoring.add(chunk)

    def finish(self) -> None:
        index, digest = self._head
        self._witness.restored(int(index), digest, self._restoring.finish)
