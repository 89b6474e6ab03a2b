"""The simplest state machine there is."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from txraft.interfaces import IStateMachine


@implementer(IStateMachine)
class RecordingMachine:
    """Remembers every command; a command's result is its place among them, from 1, a query's answer their number."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.calls = 0
        """How often `apply` was called."""

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
        self.calls += 1
        place = len(self.commands) + 1
        self.commands += commands
        return range(place, place + len(commands))

    def query(self, request: bytes) -> int:
        return len(self.commands)

    def snapshot(self) -> Sequence[bytes]:
        return list(self.commands)

    def restore(self, chunks: Sequence[bytes]) -> None:
        self.commands = list(chunks)
