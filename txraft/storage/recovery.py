"""
Reading the log back: all segments in order, as far as the last record that was written completely.

What can be found, and what is done:

- Zeros up to the end of the last segment: nothing was being written.
- A last record of which a sector was never written: the server died while it wrote, so it has told nobody about it. It
  is cut, that is overwritten with zeros, and one log line says so.
- A segment in which the log begins anew, behind others: a snapshot took their place, and the server died before it had
  removed them. What is in them counts no more.
- A segment that has a successor, and no seal that says so: the server died between the two. It gets its seal.
- Anything else, such as a bad record with others behind it, one that is complete but wrong, a segment that is missing
  or at the wrong place: this may have been acknowledged, so nothing is touched, and the server does not start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

import attrs
from twisted.logger import Logger

from txraft import codec
from txraft.core.log import EntryRun
from txraft.errors import DamagedLog, ProtocolError
from txraft.storage import segment as layout
from txraft.storage.files import IFileSystem, Syncs, directory_of, other_format
from txraft.storage.segment import BadHeader, OtherFormat, SegmentHeader

_log = Logger()

_CHUNK_BYTES = 1 << 20

REMEDY = (
    "Nothing was changed. This copy of the log cannot be trusted: restore all files of the log, and the snapshots, as "
    "they were when the server stopped, or move the data directory away and add the server to the cluster again; the "
    "others hold the data"
)


@attrs.define
class Segment:
    """A segment on disk. `stop_offset` is behind its last record; `last_index` is the highest ever written in it."""

    path: str
    header: SegmentHeader
    size: int
    last_index: int
    stop_offset: int = layout.HEADER_BYTES


@attrs.define
class RecoveredLog:
    """The log, and where it goes on: behind the record with `checksum`, in the last segment, which is not sealed."""

    runs: list[EntryRun]
    segments: list[Segment]
    checksum: int
    base_index: int
    """Before the first entry."""
    commit_index: int
    """The last one that was written down."""

    @property
    def last_index(self) -> int:
        return self.runs[-1].last_index if self.runs else self.base_index

    def agrees(self, index: int, term: int) -> bool:
        """Whether the log reaches to `index`, and the entry there, if it is in the log, has this term."""
        for run in reversed(self.runs):
            if run.first_index <= index:
                return index <= self.last_index and run.term == term
        return index == self.base_index


def segment_path(log_path: str, sequence: int) -> str:
    """Where the segment with this sequence is."""
    return f"{log_path}.{sequence:016d}"


def find_segments(files: IFileSystem, log_path: str) -> list[int]:
    """The sequences of the segments that are there, ascending."""
    pattern = re.compile(re.escape(os.path.basename(log_path)) + r"\.(\d{16})")
    names: Sequence[str] = files.list_directory(directory_of(log_path))
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))


def is_untouched(files: IFileSystem, log_path: str, sequences: Sequence[int]) -> bool:
    """True if these segments are all that the beginning of a first start leaves: one, without a record."""
    if list(sequences) != [1]:
        return False
    data, _ = _read(files, segment_path(log_path, 1))
    return len(data) <= layout.HEADER_BYTES


def _read(files: IFileSystem, path: str) -> tuple[bytes, int]:
    """(content up to the last 16 bytes that are not all zero; length of the file)."""
    handle = files.open(path)
    try:
        size: int = files.size(handle)
        # From the end: the zeros that wait for records may be most of the file, and need no memory this way.
        start, tail = size, b""
        while start > 0 and not tail:
            stop, start = start, max(0, start - _CHUNK_BYTES)
            tail = files.pread(handle, start, stop - start).rstrip(b"\0")
        stop = start + len(tail)
        data: bytes = files.pread(handle, 0, stop + -stop % layout.ALIGNMENT)
        return data, size
    finally:
        files.close(handle)


def replay(runs: list[EntryRun], base_index: int, new_runs: Sequence[EntryRun]) -> None:
    """
    Write `new_runs` into the log `runs`, which begins behind `base_index`: each replaces what is there from its first
    index on.

    @raise ValueError: a run begins behind the end of the log, with a gap.
    """
    for run in new_runs:
        last_index = runs[-1].last_index if runs else base_index
        if run.first_index > last_index + 1:
            raise ValueError(f"entries from {run.first_index} on, but the log before them ends at {last_index}")
        while runs and runs[-1].first_index >= run.first_index:
            runs.pop()
        if runs and runs[-1].last_index >= run.first_index:
            runs.append(before(runs.pop(), run.first_index))
        run.encoded = None  # half of the memory, and nobody sends what was just recovered
        runs.append(run)


def before(run: EntryRun, index: int) -> EntryRun:
    """The part of `run` before `index`, which is behind its first entry; `run` if that is all of it."""
    if index > run.last_index:
        return run
    return EntryRun(run.first_index, run.term, run.kind, run.time_ms, run.commands[: index - run.first_index])


class Recovery:
    """
    Recovers one log, once.

    @param first_index: the log must reach back to this index; a snapshot holds what is before.
    @param repair: False leaves a torn record where it is; `torn_bytes` says how long it is.
    """

    def __init__(
        self, files: IFileSystem, syncs: Syncs, log_path: str, log_id: int, first_index: int, repair: bool = True
    ) -> None:
        self.torn_bytes = 0
        self._repair = repair
        self._files = files
        self._syncs = syncs
        self._log_path = log_path
        self._log_id = log_id
        self._first_index = first_index
        self._runs: list[EntryRun] = []
        self._segments: list[Segment] = []
        self._unsealed: list[tuple[Segment, int]] = []
        self._checksum = 0
        self._base_index = 0
        self._commit_index = 0

    def run(self, sequences: Sequence[int], progress: Callable[[int], None] = lambda size: None) -> RecoveredLog:
        """
        The log in the segments with these sequences, at least one. A torn record at its end is cut; a segment that has
        a successor and no seal, because the server died between the two, gets its seal.

        @param progress: called with the size of each segment when it has been read.

        Cost: each segment is read once, as a whole; beside the entries, one segment is in memory at a time.

        @raise DamagedLog: it is not all there. Nothing was changed.
        """
        for sequence in sequences:
            self._recover_segment(sequence, is_last=sequence == sequences[-1])
            progress(self._segments[-1].size)
        for segment, checksum in self._unsealed if self._repair else ():
            # Without it nobody could tell if what comes behind it got lost.
            seal = layout.encode_seal(segment.header, segment.stop_offset, checksum)
            self._write(segment, segment.stop_offset, seal)
        return RecoveredLog(self._runs, self._segments, self._checksum, self._base_index, self._commit_index)

    def _recover_segment(self, sequence: int, is_last: bool) -> None:
        path = segment_path(self._log_path, sequence)
        data, size = _read(self._files, path)
        segment = Segment(path, self._checked_header(path, sequence, data), size, 0)
        segment.last_index = segment.header.first_index - 1
        self._segments.append(segment)
        if is_last and self._base_index >= self._first_index:
            problem = (
                f"the log begins at entry {self._base_index + 1}; those from {self._first_index} on are missing, and "
                "no snapshot in snapshot_dir holds them"
            )
            raise DamagedLog(self._segments[0].path, 0, problem, REMEDY)
        for payload in self._payloads(segment, data):
            self._replay(segment, payload)
        if is_last:
            self._check_end(segment, data)
        elif len(data) > segment.stop_offset + layout.SEAL_BYTES:
            raise self._damaged(segment, "bad record, although the log goes on in the next segment")
        elif not self._is_sealed(segment, data):
            # Or what a crash left of a seal: the next segment knows which record was the last here.
            self._unsealed.append((segment, self._checksum))

    @staticmethod
    def _is_sealed(segment: Segment, data: bytes) -> bool:
        record = layout.decode_record_header(segment.header, data, segment.stop_offset)
        return record is not None and record.is_seal

    def _checked_header(self, path: str, sequence: int, data: bytes) -> SegmentHeader:
        try:
            header = SegmentHeader.decode(data)
        except BadHeader as error:
            raise DamagedLog(path, 0, str(error), REMEDY) from None
        except OtherFormat as error:
            raise other_format(path, error.args[0], layout.FORMAT_VERSION) from None
        if problem := self._misplaced(header, sequence):
            raise DamagedLog(path, 0, problem, REMEDY)
        if not self._segments:
            self._checksum = header.previous_checksum
        if not self._segments or header.begins_anew:
            self._runs.clear()
            self._base_index = header.first_index - 1
        return header

    def _misplaced(self, header: SegmentHeader, sequence: int) -> str:
        """What is wrong with finding this header here; empty if nothing is."""
        if header.log_id != self._log_id:
            return "this segment belongs to another data directory"
        if header.sequence != sequence:
            return f"this is segment {header.sequence} under the name of segment {sequence}"
        if not self._segments:
            return ""
        last = self._segments[-1]
        if sequence != last.header.sequence + 1:
            return f"the segment before this one is missing; the last one found is {last.path}"
        if header.previous_checksum != self._checksum:
            return f"this segment does not follow the last record of {last.path}; records are missing there"
        return ""

    def _payloads(self, segment: Segment, data: bytes) -> Iterator[bytes]:
        """The records from the beginning on that are intact and follow each other; moves the end behind each."""
        while record := layout.decode_record_header(segment.header, data, segment.stop_offset):
            if record.previous_checksum != self._checksum:
                raise self._damaged(segment, "this record does not follow the one before it")
            if record.is_seal:
                return
            payload = layout.decode_payload(segment.header, data, segment.stop_offset, record)
            if payload is None:
                return
            yield payload
            segment.stop_offset += layout.extent(record.length)
            self._checksum = record.checksum

    def _replay(self, segment: Segment, payload: bytes) -> None:
        try:
            runs, commit_index = codec.decode_record(payload)
            replay(self._runs, self._base_index, runs)
        except (ProtocolError, ValueError) as error:
            raise self._damaged(segment, str(error)) from None
        segment.last_index = max(segment.last_index, *(run.last_index for run in runs))
        self._commit_index = max(self._commit_index, commit_index)

    def _check_end(self, segment: Segment, data: bytes) -> None:
        """
        Behind the last intact record of the log: if one that was never completed is there, cut it.

        @raise DamagedLog: what is there may have been acknowledged.
        """
        offset, stop = segment.stop_offset, len(data)
        if stop <= offset:
            return
        record = layout.decode_record_header(segment.header, data, offset)
        if record is not None and record.is_seal:
            missing = segment_path(self._log_path, segment.header.sequence + 1)
            raise self._damaged(segment, f"the log goes on in {missing}, which is missing")
        behind = offset + (layout.RECORD_HEADER_BYTES if record is None else layout.extent(record.length))
        for later in range(behind, stop, layout.ALIGNMENT):
            # A record is begun when the one before is durable. So a later header proves that this one was complete.
            if layout.decode_record_header(segment.header, data, later) is not None:
                raise self._damaged(segment, f"bad record, and another one behind it at offset {later}")
        if record is not None:
            is_torn = stop <= behind and layout.is_torn(data, offset, record)
        else:
            # Its length is unknown; but a record with a complete header and nothing behind it was never completed.
            is_torn = stop <= behind or not any(data[offset:behind])
        if not is_torn:
            raise self._damaged(segment, "this is neither an intact record nor one that was being written")
        self.torn_bytes = stop - offset
        if self._repair:
            self._cut(segment, stop)

    def _cut(self, segment: Segment, stop: int) -> None:
        self._write(segment, segment.stop_offset, bytes(stop - segment.stop_offset))
        _log.warn(
            "{path}: cut {count} bytes at offset {offset}: a record that was being written when the server stopped, "
            "and that nobody has been told of",
            path=segment.path,
            offset=segment.stop_offset,
            count=stop - segment.stop_offset,
        )

    def _write(self, segment: Segment, offset: int, data: bytes) -> None:
        handle = self._files.open(segment.path)
        try:
            self._files.pwrite(handle, offset, data)
            self._syncs.data(handle)
        finally:
            self._files.close(handle)

    def _damaged(self, segment: Segment, problem: str) -> DamagedLog:
        return DamagedLog(segment.path, segment.stop_offset, problem, REMEDY)
