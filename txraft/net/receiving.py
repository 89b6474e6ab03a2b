"""A snapshot that another server sends, on one connection: what it says is carried out, and answered, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.codec import (
    SnapshotData,
    SnapshotEnd,
    SnapshotFrame,
    SnapshotPosition,
    decode_snapshot_frame,
    encode_snapshot_frame,
)
from txraft.errors import ProtocolError, TxraftError
from txraft.framing import frame
from txraft.interfaces import IPartialSnapshot, Snapshot

MAX_FRAME_BYTES = 1 << 20
"""Of a connection for a snapshot; what is sent in one is much less."""

Accept = Callable[[str, Snapshot], Deferred[IPartialSnapshot]]

_log = Logger()


class Reception:
    """
    One connection's. The sender has at most a window under way, so nothing here grows.

    @param write: to the sender.
    @param close: the connection, for this reason.
    """

    def __init__(
        self, sender: str, accept: Accept, write: Callable[[bytes], object], close: Callable[[str], None]
    ) -> None:
        self._sender = sender
        self._accept = accept
        self._write = write
        self._close = close
        self._offer: Snapshot | None = None
        self._partial: Any = None
        self._is_over = False
        self.is_complete = False
        """Whether all of it came, and is installed: that the connection ends then is as it should be."""

    def frames_received(self, frames: list[bytes]) -> None:
        """:raises ProtocolError: no correct server sends that."""
        for payload in frames:
            said = decode_snapshot_frame(payload)
            if isinstance(said, Snapshot) and self._offer is None:
                self._offer = said
                maybeDeferred(self._accept, self._sender, said).addCallback(self._begin).addErrback(self._refuse)
            elif isinstance(said, SnapshotData) and self._partial is not None:
                # Whoever breaks the order is told so like any other that is refused.
                appended = maybeDeferred(self._partial.append, said.offset, said.data)
                appended.addCallback(self._have).addErrback(self._refuse)
            else:
                raise ProtocolError(f"a sender of snapshots sends a {type(said).__name__} now")

    def _begin(self, partial: Any) -> None:
        if self._is_over:
            partial.close()
            return
        self._partial = partial
        self._have(partial.offset)

    def _have(self, offset: int) -> Deferred[None] | None:
        if self._is_over:
            return None
        assert self._offer is not None
        self._say(SnapshotPosition(offset))
        if offset < self._offer.size:
            return None
        committed: Deferred[Any] = self._partial.commit()
        return committed.addCallback(self._committed)

    def _committed(self, _: object) -> None:
        self.is_complete = True
        self._say(SnapshotEnd(""))

    def _refuse(self, failure: Failure) -> None:
        if self._is_over:
            return
        if failure.check(TxraftError) is None:
            _log.failure("receiving a snapshot from {sender} failed", failure, sender=self._sender)
        why = failure.getErrorMessage()
        self._say(SnapshotEnd(why or "refused"))
        self._close(why)

    def _say(self, what: SnapshotFrame) -> None:
        if not self._is_over:
            self._write(frame(encode_snapshot_frame(what)))

    def ended(self) -> None:
        """The connection is gone."""
        self._is_over = True
        if self._partial is not None:
            self._partial.close()
