"""The files of a server's log, read from its disk beside the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from txraft import codec
from txraft.interfaces import Snapshot
from txraft.storage import segment as layout
from txraft.storage.segment import SegmentHeader
from txraft.testing.disk import FakeDisk
from txraft.testing.snapshot_truth import KEEP

_PREFIX = "/data/raft.log.0"

Require = Callable[..., None]
"""As `txraft.core.invariants.require`."""


class TrueSegments:
    """Those of one disk, when the log is written to, and given up. `require` ends the run if something is wrong."""

    def __init__(self, disk: FakeDisk, require: Require) -> None:
        self._disk = disk
        self._require = require
        self._useless: set[Snapshot] = set()

    def _paths(self) -> list[str]:
        return [path for path in self._disk.file_names() if path.startswith(_PREFIX)]

    def _reaches_back_to(self, snapshot: Snapshot) -> bool:
        """Whether all that was ever written behind it is there; before where a log begins anew there never was any."""
        header = SegmentHeader.decode(self._disk.read_file(self._paths()[0]))
        return header.first_index <= snapshot.meta.last_index + 1 or header.begins_anew

    def opened(self, kept: Sequence[Snapshot]) -> None:
        """A start has found these snapshots. A crash may have undone the removal of one that counted no more."""
        self._useless = {snapshot for snapshot in kept if not self._reaches_back_to(snapshot)}

    def written(self) -> None:
        """D06: a record has been written, and nothing that was there before is behind it, be it torn or of old use."""
        path = self._paths()[-1]
        offset, data = self._disk.last_write(path)
        behind = self._disk.read_file(path)[offset + len(data) :].strip(b"\0")
        self._require(not behind, "something is behind the last record", path, offset + len(data), len(behind))

    def given_up(self, first_index: int, kept: Sequence[Snapshot]) -> None:
        """
        What is before `first_index`, and in each of the snapshots that are `kept`, has been given up.

        S10: no file is left with nothing else in it. S11: what an older snapshot lacks is there, should the newer one
        turn out to be damaged.
        """
        covered_index = kept[-1].meta.last_index if kept else 0
        for path in self._paths()[:-1]:
            highest = _highest_index(self._disk.read_file(path))
            is_of_use = highest >= min(first_index, covered_index + 1)
            facts = (path, highest, first_index, covered_index)
            self._require(is_of_use, "a segment stays of which nothing is needed", *facts)
        for snapshot in kept[:KEEP]:
            is_enough = snapshot in self._useless or self._reaches_back_to(snapshot)
            self._require(is_enough, "what follows the older snapshot is given up", self._paths()[0], snapshot)


def _highest_index(data: bytes) -> int:
    """The highest index of an entry that was ever written to this segment, or before it."""
    header = SegmentHeader.decode(data)
    offset, highest = layout.HEADER_BYTES, header.first_index - 1
    while (record := layout.decode_record_header(header, data, offset)) is not None and not record.is_seal:
        payload = layout.decode_payload(header, data, offset, record)
        assert payload is not None, offset
        runs, _ = codec.decode_record(payload)
        highest = max(highest, *(run.last_index for run in runs))
        offset += layout.extent(record.length)
    return highest
