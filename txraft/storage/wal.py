"""
Writing the log: one record, one write and one sync for all that a flush has to say.

Records are written over zeros in a file that already has its length, so that a sync has no file system metadata to
write. The next segment is therefore filled ahead of need, a chunk after each record, under the name
`<log_file>.next.tmp`; it gets its header and its name when it is needed. All methods block.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import attrs

from txraft import codec
from txraft.core.log import EntryRun
from txraft.storage import segment as layout
from txraft.storage.files import IFileSystem, Syncs, unlink_if_there
from txraft.storage.recovery import RecoveredLog, Recovery, Segment, find_segments, segment_path
from txraft.storage.segment import SegmentHeader

_MIN_FILL_BYTES = 1 << 14
_FILL_SYNC_BYTES = 1 << 18


@attrs.define
class _Spare:
    """The next segment: zeros up to `filled`, durable up to `synced`."""

    handle: object
    filled: int = 0
    synced: int = 0


class WriteAheadLog:
    """
    The segments `<log_path>.<sequence>`. First `create` or `recover`, then `append`.

    After an exception from any method nothing more may be called but `close`: what is on disk then, only a recovery
    can tell.
    """

    def __init__(self, files: IFileSystem, syncs: Syncs, log_path: str, segment_bytes: int, log_id: int) -> None:
        self._files = files
        self._syncs = syncs
        self._log_path = log_path
        self._segment_bytes = segment_bytes
        self._log_id = log_id
        self._spare_path = log_path + ".next.tmp"
        self._spare: _Spare | None = None
        self._last_extent = 0
        self._handle: object | None = None
        self._checksum = 0
        self._next_index = 1
        self.commit_index = 0
        """What `recover` has found of it."""
        self.segments: list[Segment] = []

    @property
    def used_bytes(self) -> int:
        """How much of the segments is not zeros."""
        return sum(segment.stop_offset for segment in self.segments)

    def create(self, first_index: int = 1) -> None:
        """Make the first segment of a log without entries; the first one will have `first_index`."""
        unlink_if_there(self._files, self._syncs, self._spare_path)
        self._next_index = first_index
        self._add_segment(1, self._next_index, needed=0)

    def recover(self, first_index: int = 1, previous_term: int | None = None) -> list[EntryRun]:
        """
        The log, which must reach back to `first_index`; see `Recovery`. There must be a segment.

        @param previous_term: the term of the entry before `first_index`, which a snapshot ends with; None if there is
            no snapshot. A log that does not agree with that is given up.
        @raise txraft.errors.DamagedLog: the log is not all there. Nothing was changed.
        """
        unlink_if_there(self._files, self._syncs, self._spare_path)
        recovery = Recovery(self._files, self._syncs, self._log_path, self._log_id, first_index)
        recovered: RecoveredLog = recovery.run(find_segments(self._files, self._log_path))
        self.segments, self._checksum = recovered.segments, recovered.checksum
        self._handle = self._files.open(self.segments[-1].path)
        self._next_index = recovered.last_index + 1
        self.commit_index = recovered.commit_index
        if previous_term is not None and not recovered.agrees(first_index - 1, previous_term):
            self.reset(first_index)
            return []
        return recovered.runs

    def append(self, runs: Sequence[EntryRun], commit_index: int = 0) -> None:
        """
        Make `runs` durable: one write and one sync, and a few more when a segment is full.

        A run that starts at or below the last index replaces the log from there on. `commit_index` is written with it.
        """
        assert runs[0].first_index <= self._next_index, (runs[0].first_index, self._next_index)
        payload = codec.encode_record(runs, commit_index)
        extent = layout.extent(len(payload))
        segment = self.segments[-1]
        is_full = segment.stop_offset + extent + layout.SEAL_BYTES > segment.size
        # A crash has taken the record that it was made for. Were it the first segment one day, its header would tell of
        # entries that are not in it.
        is_astray = segment.stop_offset == layout.HEADER_BYTES and segment.header.first_index < runs[0].first_index
        if is_full or is_astray:
            segment = self._add_segment(segment.header.sequence + 1, runs[0].first_index, extent)
        data, self._checksum = layout.encode_record(segment.header, segment.stop_offset, self._checksum, payload)
        self._files.pwrite(self._handle, segment.stop_offset, data)
        self._syncs.data(self._handle)
        segment.stop_offset += extent
        segment.last_index = max(segment.last_index, *(run.last_index for run in runs))
        self._last_extent = extent
        self._next_index = runs[-1].last_index + 1

    def _add_segment(
        self, sequence: int, first_index: int, needed: int, begins_anew: bool = False, payload: bytes = b""
    ) -> Segment:
        """Go on in a new segment, with room for a record of `needed` bytes. It has `payload` in it from the start."""
        size = max(self._segment_bytes, layout.HEADER_BYTES + needed + layout.SEAL_BYTES)
        header = SegmentHeader(self._log_id, sequence, first_index, self._checksum, begins_anew)
        segment = Segment(segment_path(self._log_path, sequence), header, size, first_index - 1)
        sealed = self._checksum
        content = header.encode()
        if payload:
            record, self._checksum = layout.encode_record(header, segment.stop_offset, sealed, payload)
            content += record
            segment.stop_offset += needed
        spare = self._filled_spare(size)
        self._files.pwrite(spare.handle, 0, content)
        self._syncs.file(spare.handle)
        self._files.rename(self._spare_path, segment.path)
        self._syncs.directory_of(segment.path)
        if self._handle is not None:
            self._seal(self.segments[-1], sealed)
        # Opened by its new name, which is the one that an error must tell.
        self._spare = None
        self._files.close(spare.handle)
        self._handle = self._files.open(segment.path)
        self.segments.append(segment)
        return segment

    def _filled_spare(self, size: int) -> _Spare:
        while not self._fill_spare(size, _FILL_SYNC_BYTES):
            pass
        assert self._spare is not None
        return self._spare

    def _seal(self, segment: Segment, checksum: int) -> None:
        """Say in the old segment that there is a next one; without this, nobody could tell if that got lost."""
        seal = layout.encode_seal(segment.header, segment.stop_offset, checksum)
        self._files.pwrite(self._handle, segment.stop_offset, seal)
        self._syncs.data(self._handle)
        # Forgotten first, here and below: who closes a file twice may close one that somebody else has opened.
        handle, self._handle = self._handle, None
        self._files.close(handle)

    def prepare(self) -> None:
        """
        Do a bounded part of what the next segment needs. Call it after each `append`, when nobody waits.

        Twice as much as the last record took, so that the next segment is ready when this one is half full.
        """
        self._fill_spare(self._segment_bytes, max(_MIN_FILL_BYTES, 2 * self._last_extent))

    def _fill_spare(self, size: int, chunk_bytes: int) -> bool:
        """Write up to `chunk_bytes` more zeros into the spare; True when it has `size` and is durable."""
        if self._spare is None:
            self._spare = _Spare(self._files.create(self._spare_path))
        spare = self._spare
        chunk_bytes = min(chunk_bytes, size - spare.filled)
        if chunk_bytes > 0:
            self._files.pwrite(spare.handle, spare.filled, bytes(chunk_bytes))
            spare.filled += chunk_bytes
        unsynced = spare.filled - spare.synced
        # Now and then, not all at the end: whoever writes next waits for it.
        if unsynced >= _FILL_SYNC_BYTES or (unsynced and spare.filled >= size):
            self._syncs.file(spare.handle)
            spare.synced = spare.filled
        return spare.filled >= size

    def release(self, first_index: int) -> None:
        """
        Give up the segments that hold no entry at or above `first_index`. One of them becomes the next segment.

        Those entries must be in a snapshot, and committed. Oldest first, each for good before the next, so that a
        crash leaves no gap.
        """
        count = 0
        while count < len(self.segments) - 1 and self.segments[count].last_index < first_index:
            count += 1
        self._release(count)

    def _release(self, count: int) -> None:
        for _ in range(count):
            segment = self.segments.pop(0)
            if self._spare is None and segment.size == self._segment_bytes:
                self._files.rename(segment.path, self._spare_path)
                self._spare = _Spare(self._files.open(self._spare_path))
            else:
                self._files.unlink(segment.path)
            self._syncs.directory_of(segment.path)

    def reset(self, first_index: int) -> None:
        """
        Give up the whole log; it goes on with `first_index`, and what is before that is in a snapshot.

        A crash in the midst leaves the old log or the new one.
        """
        self.replace(first_index, [])

    def replace(self, first_index: int, runs: Sequence[EntryRun]) -> None:
        """Give up the whole log for one that begins with `first_index` and holds `runs`. See `reset`."""
        payload = codec.encode_record(runs) if runs else b""
        needed = layout.extent(len(payload)) if runs else 0
        segment = self._add_segment(self.segments[-1].header.sequence + 1, first_index, needed, True, payload)
        segment.last_index = runs[-1].last_index if runs else first_index - 1
        self._next_index = segment.last_index + 1
        self._release(len(self.segments) - 1)

    def close(self) -> None:
        """Let go of the files; what was appended is durable already. One that cannot be closed does not keep others."""
        handles = self._handle, self._spare and self._spare.handle
        self._handle = self._spare = None
        with ExitStack() as stack:
            for handle in filter(None, handles):
                stack.callback(self._files.close, handle)
