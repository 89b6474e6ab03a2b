"""A snapshot's content, back into a state machine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from txraft.errors import MachineError
from txraft.interfaces import ISnapshotReader, ISnapshotStore, IStateMachine, Snapshot


@inlineCallbacks
def read_chunks(store: ISnapshotStore, snapshot: Snapshot) -> Generator[Deferred[Any], Any, list[bytes]]:
    """
    What the machine has written. All of it is in memory then, as the machine's new state will be.

    Fails with `StorageError`.
    """
    reader: ISnapshotReader = yield store.open(snapshot)
    chunks: list[bytes] = []
    try:
        while (chunk := (yield reader.next_chunk())) is not None:
            chunks.append(chunk)
    except Exception:
        reader.close()
        raise
    reader.close()
    return chunks


def restore(machine: IStateMachine, snapshot: Snapshot, chunks: Sequence[bytes]) -> None:
    """:raises MachineError: the machine cannot be restored from it."""
    try:
        machine.restore(chunks)
    except Exception as error:
        index = snapshot.meta.last_index
        raise MachineError(f"the state machine cannot be restored from the snapshot at entry {index}") from error
