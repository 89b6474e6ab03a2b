"""Every server's machine is given the same, and a snapshot is as good as the log that it replaces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from zope.interface import alsoProvides, implementer

from txraft.core.invariants import require
from txraft.images import IPreparedRestore, IRestoring
from txraft.interfaces import IStateMachine


class Record:
    """
    What the machines of one cluster were given, and became.

    `digests` are of all that was applied up to each index, and the same on all servers.
    """

    def __init__(self) -> None:
        self.digests: dict[int, bytes] = {}
        self._commands: dict[int, tuple[int, bytes]] = {}
        self._states: dict[int, bytes] = {}

    def note(self, index: int, time_ms: int, command: bytes, digest: bytes) -> bool:
        """False if another server was given something else, here or before."""
        self._commands.setdefault(index, (time_ms, command))
        return self.digests.setdefault(index, digest) == digest

    def note_state(self, index: int, chunks: Sequence[bytes]) -> bool:
        """False if another server had another state after the command at `index`."""
        digest = _digest(chunks)
        return self._states.setdefault(index, digest) == digest

    def is_replayed(self, machine: Any, index: int, chunks: Sequence[bytes]) -> bool:
        """Whether a machine that has just been made comes to this state by all commands up to `index`."""
        for at, (time_ms, command) in sorted(self._commands.items()):
            if at <= index:
                machine.apply(at, [command], time_ms)
        return _digest(machine.snapshot()) == _digest(chunks)


def _digest(chunks: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(b"%d %b" % (len(chunk), chunk) for chunk in chunks), digest_size=16).digest()


@implementer(IStateMachine)
class Witness:
    """
    Between the node and the machine. Its snapshots say what was applied, so that it goes on from there when restored.
    It is prepared for that if the machine can be.

    :ivar index: the last command's that the machine has applied; 0 before the first.
    """

    def __init__(
        self,
        machine: Any,
        server_id: str,
        record: Record,
        applying: Callable[[], None],
        judging: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.index = 0
        self._machine = machine
        self._judging = judging
        self._server_id = server_id
        self._record = record
        self._digest = b""
        self._applying = applying
        if IPreparedRestore.providedBy(machine):
            alsoProvides(self, IPreparedRestore)

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        for index, command in enumerate(commands, first_index):
            entry = b"%d %d %d " % (index, time_ms, len(command)) + command
            self._digest = hashlib.blake2b(self._digest + entry, digest_size=16).digest()
            is_same = self._record.note(index, time_ms, command, self._digest)
            with self._judging():
                require(index > self.index, "applied twice", self._server_id, index, self.index)
                require(is_same, "State Machine Safety", self._server_id, index, command)
            self.index = index
        self._applying()
        with self._judging():
            results: Sequence[object] = self._machine.apply(first_index, commands, time_ms)
        return results

    def query(self, request: bytes) -> object:
        with self._judging():
            return self._machine.query(request)

    def snapshot(self) -> Sequence[bytes]:
        with self._judging():
            chunks: Sequence[bytes] = self._machine.snapshot()
            self._check_state(chunks)
        return [b"%d" % self.index, self._digest, *chunks]

    def restore(self, chunks: Sequence[bytes]) -> None:
        index, digest, *state = chunks
        self.restored(int(index), digest, lambda: self._machine.restore(state))

    def restoring(self) -> _Restoring:
        """See `IPreparedRestore`; only if the machine is one."""
        return _Restoring(self, self._machine.restoring())

    def restored(self, index: int, digest: bytes, restore: Callable[[], None]) -> None:
        """`restore` makes the state that such a snapshot holds that of the machine."""
        with self._judging():
            require(index >= self.index, "restored from an older snapshot", self._server_id, index, self.index)
            self.index, self._digest = index, digest
            is_same = self._record.digests.get(self.index, b"") == digest
            require(is_same, "State Machine Safety: a snapshot", self._server_id, self.index)
            restore()
            self._check_state(self._machine.snapshot())

    def _check_state(self, chunks: Sequence[bytes]) -> None:
        is_same = self._record.note_state(self.index, chunks)
        require(is_same, "a snapshot and the log behind it are not what the whole log is", self._server_id, self.index)

    def check(self, machine: Any) -> None:
        """The state is that of a new machine to which the whole log was given."""
        with self._judging():
            chunks = self._machine.snapshot()
            is_replayed = self._record.is_replayed(machine, self.index, chunks)
            require(is_replayed, "the state is not what a replay of the log leads to", self._server_id, self.index)


@implementer(IRestoring)
class _Restoring:
    """Of a witness, and of its machine, which is given all but the first two chunks."""

    def __init__(self, witness: Witness, restoring: Any) -> None:
        self._witness = witness
        self._restoring = restoring
        self._head: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        if len(self._head) < 2:
            self._head.append(chunk)
        else:
            self._restoring.add(chunk)

    def finish(self) -> None:
        index, digest = self._head
        self._witness.restored(int(index), digest, self._restoring.finish)
