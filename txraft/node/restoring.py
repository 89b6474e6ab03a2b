"""A snapshot's content, back into a state machine, and the table of sessions beside it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from txraft.errors import FatalError, MachineError
from txraft.images import IPreparedRestore
from txraft.interfaces import ISnapshotReader, ISnapshotStore, Snapshot
from txraft.node.state import State
from txraft.sessions import SessionTable

Restore = Callable[[], None]


@inlineCallbacks
def prepare(store: ISnapshotStore, state: State, snapshot: Snapshot) -> Generator[Deferred[Any], Any, Restore]:
    """
    Read a snapshot, and get a state ready for it, a chunk in a turn: other turns come between them.

    The state is as it was, and goes on, until what this fires with is called; that raises `MachineError` if the machine
    cannot be restored from it, `FatalError` if the sessions cannot. What is read is in memory then, as the new state
    will be. Fails with `StorageError`.
    """
    restoring = _Restoring(state, snapshot)
    reader: ISnapshotReader = yield store.open(snapshot)
    try:
        chunk: bytes | None = yield reader.next_chunk()
        while (coming := reader.next_sessions()) is not None:
            restoring.add_sessions((yield coming))
        while chunk is not None:
            restoring.add(chunk)
            chunk = yield reader.next_chunk()
    except Exception:
        reader.close()
        raise
    # Not in a `finally`: what a crash has left waiting here for ever is thrown away whenever the interpreter likes, and
    # a simulated run must not depend on that.
    reader.close()
    return restoring.finish


class _Restoring:
    """What a machine that has something to say about it prepares; of others, the chunks."""

    def __init__(self, state: State, snapshot: Snapshot) -> None:
        self._machine: Any = state.machine
        self._state = state
        self._sessions = SessionTable()
        self._snapshot = snapshot
        self._prepared: Any = None
        self._chunks: list[bytes] = []
        self._error: Exception | None = None
        self._bad_table: ValueError | None = None
        if IPreparedRestore.providedBy(state.machine):
            self._attempt(self._begin)

    def _begin(self) -> None:
        self._prepared = self._machine.restoring()

    def add_sessions(self, chunk: bytes) -> None:
        """As with what the machine raises, a table that cannot be read counts only if it is needed."""
        if self._bad_table is None:
            try:
                self._sessions.add(chunk)
            except ValueError as error:
                self._bad_table = error

    def add(self, chunk: bytes) -> None:
        if self._prepared is None:
            self._chunks.append(chunk)
        elif self._error is None:
            self._attempt(lambda: self._prepared.add(chunk))

    def finish(self) -> None:
        index = self._snapshot.meta.last_index
        if self._bad_table is not None:
            raise FatalError(f"the sessions in the snapshot at entry {index} cannot be read: {self._bad_table}")
        if self._error is None:
            self._attempt(self._become)
        if self._error is not None:
            raise MachineError(
                f"the state machine cannot be restored from the snapshot at entry {index}"
            ) from self._error
        self._state.sessions.become(self._sessions)

    def _become(self) -> None:
        if self._prepared is None:
            self._machine.restore(self._chunks)
        else:
            self._prepared.finish()

    def _attempt(self, step: Callable[[], None]) -> None:
        """What the machine raises ends this server when the snapshot is to become its state, and not before."""
        try:
            step()
        except Exception as error:
            self._error = self._error or error
