"""Snapshots on their way to other servers: what the core asks for and the transport does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.leader import Leader
from txraft.interfaces import ISnapshotReader, ISnapshotStore, ISnapshotTransfer, ITransport, Snapshot
from txraft.node.transfers import TransferStatus

_log = Logger()

SAID_AGAIN_S = 60.0
"""So long nothing more is said of the attempts at one server once one has failed, unless one succeeds."""


@attrs.define(eq=False)
class _Outgoing:
    """`reader` and `transfer` come one after the other."""

    leader: Leader
    server_id: str
    snapshot: Snapshot
    began: float
    reader: ISnapshotReader | None = None
    transfer: ISnapshotTransfer | None = None
    offset: int = -1
    is_over: bool = False


class SnapshotSending:
    """
    One server's. `sent_count` are those that arrived.

    At most one is on its way to each server; a leadership that ends takes its own with it.

    @param renew: asks for a new snapshot, as the newest has turned out to be damaged.
    """

    def __init__(
        self, store: ISnapshotStore, transport: ITransport, clock: IReactorTime, renew: Callable[[], object]
    ) -> None:
        self.sent_count = 0
        self._renew = renew
        self._checked: tuple[Leader, Snapshot] | None = None
        self._store = store
        self._transport = transport
        self._clock = clock
        self._outgoing: dict[str, _Outgoing] = {}
        self._failing: dict[str, float] = {}
        """When it was last said of a server that a snapshot did not reach it; in clock seconds."""

    def carry_out(self, leader: Leader | None, wanted: tuple[str, ...]) -> None:
        """Send the newest snapshot to those that are in `wanted`, and to nobody else."""
        if not wanted and not self._outgoing:
            return
        if leader is not None:
            # A write that was done at once had a flush within this one, in which somebody may have been given up.
            wanted = tuple(server_id for server_id in leader.sending.wanted() if server_id in wanted)
        for server_id, outgoing in list(self._outgoing.items()):
            if outgoing.leader is not leader:
                self._end(outgoing)
            elif server_id not in wanted:
                self._not_wanted(outgoing)
            elif outgoing.transfer is not None and outgoing.transfer.offset != outgoing.offset:
                outgoing.offset = outgoing.transfer.offset
                leader.sending.advanced(server_id)
        for server_id in wanted:
            if leader is not None and server_id not in self._outgoing:
                self._begin(leader, server_id)

    def _not_wanted(self, outgoing: _Outgoing) -> None:
        progress = outgoing.leader.progress.get(outgoing.server_id)
        if progress is not None and progress.match_index >= outgoing.snapshot.meta.last_index:
            # It has told the core before it has told the transport.
            self._arrived(outgoing)
        self._end(outgoing)

    def _begin(self, leader: Leader, server_id: str) -> None:
        kept = self._store.kept()
        if not kept or kept[0].meta.last_index < leader.raft.log.base_index:
            return  # the newest has turned out to be damaged; there will be another
        snapshot = kept[0]
        outgoing = _Outgoing(leader, server_id, snapshot, self._clock.seconds())
        self._outgoing[server_id] = outgoing
        leader.sending.begun(server_id, snapshot.meta.last_index)
        opened = self._store.open(snapshot)
        opened.addCallbacks(
            lambda reader: self._send(outgoing, reader), lambda failure: self._failed(outgoing, failure)
        )

    def _send(self, outgoing: _Outgoing, reader: ISnapshotReader) -> None:
        if outgoing.is_over:
            reader.close()
            return
        if outgoing.server_id not in self._failing:
            _log.info(
                "the snapshot at entry {index}, {size} bytes, is sent to {server_id}",
                index=outgoing.snapshot.meta.last_index,
                size=outgoing.snapshot.size,
                server_id=outgoing.server_id,
            )
        outgoing.reader = reader
        outgoing.transfer = transfer = self._transport.send_snapshot(outgoing.server_id, outgoing.snapshot, reader)
        transfer.done.addCallbacks(lambda _: self._sent(outgoing), lambda failure: self._failed(outgoing, failure))

    def _sent(self, outgoing: _Outgoing) -> None:
        if not outgoing.is_over:
            self._arrived(outgoing)
            self._end(outgoing)
            outgoing.leader.sending.sent(outgoing.server_id)

    def _arrived(self, outgoing: _Outgoing) -> None:
        self._failing.pop(outgoing.server_id, None)
        self.sent_count += 1
        _log.info(
            "{server_id} has the snapshot at entry {index}, after {seconds:.1f} s",
            server_id=outgoing.server_id,
            index=outgoing.snapshot.meta.last_index,
            seconds=self._clock.seconds() - outgoing.began,
        )

    def _failed(self, outgoing: _Outgoing, failure: Failure) -> None:
        if not outgoing.is_over:
            self._say_failed(outgoing, failure.getErrorMessage())
            self._end(outgoing)
            outgoing.leader.sending.failed(outgoing.server_id)
            self._check(outgoing)

    def _say_failed(self, outgoing: _Outgoing, why: str) -> None:
        """Not each time: it is tried several times a second, and a disk without room stays so for long."""
        now = self._clock.seconds()
        self._failing = {server_id: said for server_id, said in self._failing.items() if now - said < SAID_AGAIN_S}
        if outgoing.server_id in self._failing:
            return
        self._failing[outgoing.server_id] = now
        _log.warn(
            "the snapshot at entry {index} did not reach {server_id}: {why}",
            index=outgoing.snapshot.meta.last_index,
            server_id=outgoing.server_id,
            why=why,
        )

    def _check(self, outgoing: _Outgoing) -> None:
        """Perhaps the disk has damaged it since it was verified: then nobody could ever take it. Once is enough."""
        if self._checked != (outgoing.leader, outgoing.snapshot):
            self._checked = outgoing.leader, outgoing.snapshot
            checked = self._store.check(outgoing.snapshot)
            checked.addCallback(lambda is_intact: is_intact or self._renew())
            checked.addErrback(lambda failure: _log.warn("checking it: {why}", why=failure.getErrorMessage()))

    def _end(self, outgoing: _Outgoing) -> None:
        outgoing.is_over = True
        del self._outgoing[outgoing.server_id]
        if outgoing.transfer is not None:
            outgoing.transfer.cancel()
        if outgoing.reader is not None:
            outgoing.reader.close()

    def stop(self) -> None:
        """Send nothing more."""
        self.carry_out(None, ())

    def status(self) -> list[TransferStatus]:
        """How far each has come."""
        return [self._status(outgoing) for _, outgoing in sorted(self._outgoing.items())]

    def _status(self, outgoing: _Outgoing) -> TransferStatus:
        transfer: Any = outgoing.transfer
        return TransferStatus.of(
            outgoing.server_id,
            "to",
            outgoing.snapshot,
            transfer.offset if transfer is not None else 0,
            self._clock.seconds() - outgoing.began,
        )
