"""What is under a name of a disk in memory: as a process would read it, and as a loss of power would leave it."""

from __future__ import annotations

from collections.abc import Callable

SECTOR_BYTES = 512


class File:
    """What is in the page cache, what is on the disk, and which sectors differ."""

    def __init__(self) -> None:
        self.cached = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()
        # Sectors of a sync that failed: the kernel calls them clean, so no later sync writes them. Pitfall D01.
        self.lost: set[int] = set()
        self.last_write = (0, b"")

    def write(self, offset: int, data: bytes) -> None:
        old_size, stop = len(self.cached), offset + len(data)
        if stop > old_size:
            self.cached.extend(bytes(stop - old_size))
        self.cached[offset:stop] = data
        touched = range(min(offset, old_size) // SECTOR_BYTES, -(-stop // SECTOR_BYTES))
        self.last_write = (offset, bytes(data))
        self.dirty.update(touched)
        self.lost.difference_update(touched)

    def sync(self) -> None:
        self._persist(self.dirty)
        self.dirty.clear()

    def fail_sync(self) -> None:
        self.lost |= self.dirty
        self.dirty.clear()

    def _persist(self, sectors: set[int]) -> None:
        for sector in sectors:
            start = sector * SECTOR_BYTES
            content = self.cached[start : start + SECTOR_BYTES]
            if start > len(self.durable):
                self.durable.extend(bytes(start - len(self.durable)))
            self.durable[start : start + len(content)] = content

    def crash(self, is_kept: Callable[[], bool]) -> None:
        self._persist({sector for sector in sorted(self.dirty | self.lost) if is_kept()})
        self.cached = bytearray(self.durable)
        self.dirty.clear()
        self.lost.clear()


class Directory:
    """A name that holds names. It has no content of its own here."""

    def crash(self, is_kept: Callable[[], bool]) -> None:
        pass


Node = File | Directory
