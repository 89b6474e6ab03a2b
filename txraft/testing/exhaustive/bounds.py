"""How far a search goes, and where it begins."""

from __future__ import annotations

from dataclasses import dataclass

from txraft.core.log import EntryKind, EntryRun
from txraft.core.membership import Membership
from txraft.core.messages import HardState


@dataclass(frozen=True)
class Disk:
    """What a server's disk holds as a search begins, behind the cluster's first entry: empty ones of `terms`."""

    term: int = 1
    voted_for: str | None = None
    terms: tuple[int, ...] = ()


@dataclass(frozen=True)
class Start:
    """
    All servers have just started, with `disks` (in the servers' order; fewer: the others are new).

    `leaders` and `committed` (terms by index, the one of index 0 included) are what had been before.
    """

    disks: tuple[Disk, ...] = ()
    leaders: tuple[tuple[int, str], ...] = ()
    committed: tuple[int, ...] = (0,)


STARTS = {
    "new": Start(),
    # The leader of term 2 has committed its first entry, and all have it.
    "agreed": Start((Disk(2, "s1", (2,)),) * 3, ((2, "s1"),), (0, 1, 2)),
    # The leader of term 2 had an entry that nobody else has.
    "tail": Start((Disk(3, None, (2,)), Disk(3), Disk(3)), ((2, "s1"),)),
    # The paper's Figure 8 at (c): the leaders of terms 2 and 3 each had an entry that nobody else has.
    "figure8": Start((Disk(3, None, (2,)), Disk(3, "s2", (3,)), Disk(3, "s2")), ((2, "s1"), (3, "s2"))),
}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """
    What may happen along one path, at most.

    `terms`: new terms. `entries`: commands of clients. `crashes`, `reads`, `duplicates`: how often, in the whole
    cluster. `rounds`: elections that one server begins between two of its crashes. `messages`: in flight at once; what
    is too much is lost, every choice of it. `states`: distinct states after which the search gives up.
    """

    servers: int = 3
    terms: int = 2
    entries: int = 1
    crashes: int = 1
    reads: int = 0
    duplicates: int = 0
    rounds: int = 1
    messages: int = 3
    states: int = 1_000_000
    start: Start = STARTS["new"]

    @property
    def server_ids(self) -> tuple[str, ...]:
        return tuple(f"s{number}" for number in range(1, self.servers + 1))

    @property
    def last_term(self) -> int:
        return max([1, *(disk.term for disk in self.start.disks)]) + self.terms

    def disk(self, place: int) -> tuple[HardState, list[EntryRun]]:
        """What the server at `place` starts with, one entry a run."""
        disk = self.start.disks[place] if place < len(self.start.disks) else Disk()
        first = EntryRun(1, 1, EntryKind.CONFIGURATION, 0, [Membership("searched", self.server_ids).encode()])
        runs = [first]
        for index, term in enumerate(disk.terms, 2):
            kind = EntryKind.NOOP if term > runs[-1].term else EntryKind.COMMAND
            runs.append(EntryRun(index, term, kind, 0, [b""]))
        return HardState(disk.term, disk.voted_for), runs
