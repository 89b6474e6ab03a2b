"""A snapshot that is being received, watched beside the server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txraft.interfaces import IPartialSnapshot, Snapshot
from txraft.testing.disk import FakeDisk
from txraft.testing.witness import Record


class Receptions:
    """
    All that one process receives. S06: what is said to be here has come of this snapshot and of no other, all of it is
    said to be here, and nothing is added to one when another has taken its place.
    """

    def __init__(self, server_id: str, disk: FakeDisk, record: Record, directory: str) -> None:
        self._server_id = server_id
        self._disk = disk
        self._record = record
        self._directory = directory
        self._newest: TruePartial | None = None
        self._under_way = 0
        """Calls that may remove what is here of a snapshot."""

    def watch(self, received: Deferred[IPartialSnapshot], offer: Snapshot) -> Deferred[IPartialSnapshot]:
        """A store was asked for a place for `offer`, and nothing has been done about it yet."""
        here = 0 if self._under_way else self._size_of(offer)

        def checked(partial: Any) -> TruePartial:
            added = self._record.received.get((self._server_id, offer), 0)
            facts = (self._server_id, offer.meta.last_index, partial.offset)
            self._record.require(partial.offset <= added, "more is here of a snapshot than came", *facts, added)
            self._record.require(partial.offset >= here, "what is here of a snapshot is to come again", *facts, here)
            self._newest = TruePartial(self, partial, offer)
            return self._newest

        return self.removing(received).addCallback(checked)

    def _size_of(self, offer: Snapshot) -> int:
        meta = offer.meta
        name = f"{meta.last_index:020d}-{meta.last_term:020d}-{offer.size}-{offer.digest.hex()}.part"
        path = f"{self._directory}/{name}"
        return len(self._disk.read_file(path)) if path in self._disk.file_names() else 0

    def removing(self, done: Deferred[Any]) -> Deferred[Any]:
        """Until `done` fires nobody knows what is here."""

        def ended(result: Any) -> Any:
            self._under_way -= 1
            return result

        self._under_way += 1
        return done.addBoth(ended)

    def add(self, partial: TruePartial, offer: Snapshot, stop: int) -> None:
        """Bytes up to `stop` are added to this one."""
        is_newest = partial is self._newest and partial.is_open
        self._record.require(is_newest, "bytes for a snapshot whose place is taken", self._server_id, offer.meta)
        key = (self._server_id, offer)
        self._record.received[key] = max(self._record.received.get(key, 0), stop)


@implementer(IPartialSnapshot)
class TruePartial:
    """In front of another one."""

    def __init__(self, receptions: Receptions, partial: Any, offer: Snapshot) -> None:
        self._receptions = receptions
        self._partial = partial
        self._offer = offer
        self.is_open = True

    @property
    def offset(self) -> int:
        offset: int = self._partial.offset
        return offset

    def append(self, offset: int, data: bytes) -> Deferred[int]:
        self._receptions.add(self, self._offer, offset + len(data))
        appended: Deferred[int] = self._partial.append(offset, data)
        return appended

    def commit(self) -> Deferred[Snapshot]:
        return self._receptions.removing(self._partial.commit())

    def close(self) -> Deferred[None]:
        self.is_open = False
        closed: Deferred[None] = self._partial.close()
        return closed
