"""A snapshot's content, back into a state machine, and the table of sessions beside it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from txraft.errors import MachineError
from txraft.images import IPreparedRestore
from txraft.interfaces import ISnapshotReader, ISnapshotStore, Snapshot
from txraft.node.state import State
from txraft.sessions import SessionTable

Restore = Callable[[], None]


@inlineCallbacks
def prepare(store: ISnapshotStore, state: State, snapshot: Snapshot) -> Generator[Deferred[Any], Any, Restore]:
    """
    Read a snapshot, and get a state ready for it, a chunk in a turn: other turns come between them.

    The state is as it was, and goes on, until what this fires with is called; that raises `MachineError` if it cannot
    be restored from it. What is read is in memory then, as the machine's new state will be.
    Fails with `StorageError`.
    """
    restoring = _Restoring(state, snapshot)
    reader: ISnapshotReader = yield store.open(snapshot)
    try:
        while (chunk := (yield reader.next_chunk())) is not None:
            restoring.add_sessions(reader.take_sessions())
            restoring.add(chunk)
        restoring.add_sessions(reader.take_sessions())
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
        if IPreparedRestore.providedBy(state.machine):
            self._attempt(self._begin)

    def _begin(self) -> None:
        self._prepared = self._machine.restoring()

    def add_sessions(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            self._attempt(partial(self._sessions.add, chunk))

    def add(self, chunk: bytes) -> None:
        if self._prepared is None:
            self._chunks.append(chunk)
        elif self._error is None:
            self._attempt(lambda: self._prepared.add(chunk))

    def finish(self) -> None:
        if self._error is None:
            self._attempt(self._become)
        if self._error is not None:
            index = self._snapshot.meta.last_index
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
