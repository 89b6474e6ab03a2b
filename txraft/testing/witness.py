"""Sees to it that every server's machine is given the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from zope.interface import implementer

from txraft.core.invariants import require
from txraft.interfaces import IStateMachine


@implementer(IStateMachine)
class Witness:
    """Between the node and the machine: a digest of all that was applied up to each index, equal on all servers."""

    def __init__(
        self,
        machine: Any,
        server_id: str,
        digests: dict[int, bytes],
        applying: Callable[[], None],
        judging: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._machine = machine
        self._judging = judging
        self._server_id = server_id
        self._digests = digests
        self._digest = b""
        self._applying = applying

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        for index, command in enumerate(commands, first_index):
            entry = b"%d %d %d " % (index, time_ms, len(command)) + command
            self._digest = hashlib.blake2b(self._digest + entry, digest_size=16).digest()
            seen = self._digests.setdefault(index, self._digest)
            with self._judging():
                require(seen == self._digest, "State Machine Safety", self._server_id, index, command)
        self._applying()
        with self._judging():
            results: Sequence[object] = self._machine.apply(first_index, commands, time_ms)
        return results

    def query(self, request: bytes) -> object:
        with self._judging():
            return self._machine.query(request)

    def snapshot(self) -> Sequence[bytes]:
        chunks: Sequence[bytes] = self._machine.snapshot()
        return chunks

    def restore(self, chunks: Sequence[bytes]) -> None:
        self._machine.restore(chunks)
