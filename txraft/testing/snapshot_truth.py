"""What a server's snapshots are, read from its disk beside the server, which may believe otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txraft.core.snapshot import SnapshotMeta
from txraft.interfaces import IPartialSnapshot, ISnapshotReader, ISnapshotStore, ISnapshotWriter, Snapshot
from txraft.storage.snapshot_format import BadSnapshot, Decoder
from txraft.testing.disk import FakeDisk
from txraft.testing.partial_truth import Receptions
from txraft.testing.session_truth import require_table
from txraft.testing.witness import Record

DIRECTORY = "/data/snapshots"
KEEP = 2
_NAME = re.compile(DIRECTORY + r"/(\d{20})-(\d{20})\.snapshot")


def _path(meta: SnapshotMeta) -> str:
    return f"{DIRECTORY}/{meta.last_index:020d}-{meta.last_term:020d}.snapshot"


def _decode(data: bytes) -> tuple[Snapshot, list[bytes], list[bytes]]:
    """
    What it is, the chunks of its table of sessions, and those of the machine.

    :raises BadSnapshot: it is no whole snapshot.
    """
    decoder = Decoder()
    chunks = decoder.feed(data)
    trailer = decoder.finish(len(data))
    assert decoder.meta is not None
    return Snapshot(decoder.meta, len(data), trailer.digest), [*decoder.sessions], chunks


@implementer(ISnapshotStore)
class TrueSnapshots:
    """
    A snapshot store in front of another one. Whatever counts there is durable and whole, and is what the log says.

    @param configurations: the memberships in this server's log, encoded, by index.
    """

    def __init__(
        self, store: ISnapshotStore, server_id: str, disk: FakeDisk, record: Record, configurations: Mapping[int, bytes]
    ) -> None:
        self._store = store
        self._server_id = server_id
        self._disk = disk
        self._record = record
        self._configurations = configurations
        self._checked: set[Snapshot] = set()
        self._received: set[SnapshotMeta] = set()
        self._failed = disk.failed["unlink"] + disk.failed["readdir"]
        self._receptions = Receptions(server_id, disk, record, DIRECTORY)

    @property
    def problem(self) -> str:
        problem: str = self._store.problem
        return problem

    # -- checks

    def _require(self, holds: bool, what: str, *facts: object) -> None:
        self._record.require(holds, what, self._server_id, *facts)

    def _names(self, ending: str) -> list[str]:
        names = self._disk.file_names()
        return [name for name in names if name.startswith(DIRECTORY + "/") and name.endswith(ending)]

    def opening(self) -> None:
        """A process is about to look what the one before it has left."""
        if self._names(".tmp"):
            self._record.rows.add("S14")

    def opened(self, newest: Snapshot | None) -> None:
        """:raises InvariantBroken: `newest` is not what a start finds on this disk, or it has left something lying."""
        whole = []
        for path in filter(_NAME.fullmatch, self._names(".snapshot")):
            try:
                snapshot, *_ = _decode(self._disk.read_file(path))
            except BadSnapshot:
                continue
            if _path(snapshot.meta) == path:
                whole.append(snapshot)
        expected = max(whole, key=lambda each: each.meta.last_index, default=None)
        self._require(newest == expected, "not the newest snapshot that is whole", newest, expected)
        self._require(not self._names(".tmp"), "half of a snapshot stays", self._names(".tmp"))
        newest_path = _path(newest.meta) if newest is not None else ""
        useless = [path for path in self._names(".part") if path <= newest_path]
        self._require(not useless, "part of an older snapshot stays", useless)
        if self.problem:
            self._record.rows.add("S11")
        # What is older was verified before the server died; its disk may have spoilt it since.
        self._checked.update(self._store.kept())

    def kept(self) -> Sequence[Snapshot]:
        kept: Sequence[Snapshot] = self._store.kept()
        if not self._disk.has_halted and not self._checked.issuperset(kept):
            for snapshot in kept:
                if snapshot not in self._checked:
                    self._check(snapshot)
            self._checked = set(kept)
            # Of what is not kept nothing stays, and least of all something damaged.
            paths = sorted(_path(snapshot.meta) for snapshot in kept)
            self._require(len(kept) <= KEEP, "too many snapshots", paths)
            found, failed = self._names(".snapshot"), self._disk.failed["unlink"] + self._disk.failed["readdir"]
            # What could not be removed is removed with the next.
            is_right = found == paths or (failed > self._failed and {*paths} < {*found})
            self._require(is_right, "kept is not what is there", paths, found)
            self._failed = failed
        return kept

    def _check(self, snapshot: Snapshot) -> None:
        data = self._disk.read_durable(_path(snapshot.meta))
        self._require(data is not None, "a snapshot counts whose name is not durable", snapshot)
        try:
            found, sessions, chunks = _decode(data or b"")
        except BadSnapshot as error:
            self._require(False, "a snapshot counts that is damaged, or not durable", snapshot, error)
        self._require(found == snapshot, "a snapshot counts that is another one", snapshot, found)
        meta = snapshot.meta
        if meta not in self._received:
            index = max((at for at in self._configurations if at <= meta.last_index), default=0)
            is_right = meta.membership_index == index and meta.membership == self._configurations.get(index)
            self._require(is_right, "a snapshot with another membership than the log", meta, index)
            if self._record.applied_index > meta.last_index:
                self._record.rows.add("S08")
        self._require(self._record.note_snapshot(meta), "two snapshots of one index", meta)
        self._require(self._record.is_image(meta.last_index, chunks), "a snapshot is not what a replay leads to", meta)
        if sessions or self._record.tables:
            require_table(self._record, meta.last_index, sessions, self._server_id)

    # -- ISnapshotStore

    def begin(self, meta: SnapshotMeta) -> ISnapshotWriter:
        is_removed = not any(self._disk.failed[call] for call in ("unlink", "readdir"))
        left = self._names(".tmp") if is_removed else []
        self._require(not left, "what failed before was not removed", left)
        writer: ISnapshotWriter = self._store.begin(meta)
        return writer

    def open(self, snapshot: Snapshot) -> Deferred[ISnapshotReader]:
        opened: Deferred[ISnapshotReader] = self._store.open(snapshot)
        return opened

    def check(self, snapshot: Snapshot) -> Deferred[bool]:
        checked: Deferred[bool] = self._store.check(snapshot)
        return checked

    def receive(self, offer: Snapshot) -> Deferred[IPartialSnapshot]:
        def received(partial: IPartialSnapshot) -> IPartialSnapshot:
            parts = self._names(".part")
            self._require(len(parts) <= 1, "parts of several snapshots", parts)
            return partial

        prefix = f"{DIRECTORY}/{offer.meta.last_index:020d}-"
        if any(not path.startswith(prefix) for path in self._names(".part")):
            self._record.rows.add("S06")
        self._received.add(offer.meta)
        done: Deferred[IPartialSnapshot] = self._store.receive(offer)
        return self._receptions.watch(done.addCallback(received), offer)
