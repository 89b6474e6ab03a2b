"""The workload of the simulation: registers that clients read, write and compare, and what they saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.errors import FatalError, OutcomeUnknown, Refusal
from txraft.interfaces import IStateMachine
from txraft.node import RaftNode
from txraft.testing.history import Call, HistoryRecorder, Operation


@implementer(IStateMachine)
class RegisterMachine:
    """
    A value for each key. Commands are `write key value` and `cas key expected value`; a request is a key.

    `commands` are all that were applied, for whoever checks that none was lost or came twice.
    """

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.commands: list[bytes] = []

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[bool]:
        self.commands += commands
        return [self._apply(command.split(b" ")) for command in commands]

    def _apply(self, words: list[bytes]) -> bool:
        key, value = words[1], words[-1]
        if words[0] == b"cas" and self.values.get(key, b"") != words[2]:
            return False
        self.values[key] = value
        return True

    def query(self, request: bytes) -> bytes:
        return self.values.get(request, b"")

    def snapshot(self) -> Sequence[bytes]:
        return [b"%b %b" % pair for pair in sorted(self.values.items())]

    def restore(self, chunks: Sequence[bytes]) -> None:
        self.values = {key: value for key, _, value in (chunk.partition(b" ") for chunk in chunks)}


class RegisterClients:
    """
    Clients of registers. Every value that is written is new, so that a read tells which write it saw.

    `outcomes` counts results and refusals by name; `waiting` is the number of requests without either.
    """

    def __init__(self, recorder: HistoryRecorder) -> None:
        self.outcomes: dict[str, int] = {}
        self.waiting = 0
        self.unexpected: list[Failure] = []
        self._recorder = recorder
        self._last_value = 0
        self._seen: dict[bytes, bytes] = {}

    def history(self) -> list[Operation]:
        return self._recorder.history()

    def acknowledged(self) -> set[bytes]:
        """The values that were written, as the answers say."""
        writes = [operation for operation in self.history() if operation.result is True]
        return {_value_written(operation.argument) for operation in writes}

    def request(self, node: RaftNode, kind: str, key: bytes) -> Deferred[Any]:
        """Ask a server; fires with True if it was answered and False if it was refused or is unknown."""
        if kind == "read":
            call = self._recorder.call(key, "read")
            return self._follow(node.read(key), call, key)
        self._last_value += 1
        value = b"%d" % self._last_value
        if kind == "write":
            call = self._recorder.call(key, "write", value)
            return self._follow(node.propose(b"write %b %b" % (key, value)), call, key)
        # Mostly what was seen last, so that it often succeeds.
        expected = self._seen.get(key, b"")
        call = self._recorder.call(key, "cas", (expected, value))
        return self._follow(node.propose(b"cas %b %b %b" % (key, expected, value)), call, key)

    def _follow(self, outcome: Deferred[Any], call: Call, key: bytes) -> Deferred[Any]:
        self.waiting += 1

        def ended(result: Any) -> Any:
            self.waiting -= 1
            return result

        def answered(result: Any) -> bool:
            self._count("answered")
            if isinstance(result, bytes):
                self._seen[key] = result
            call.returned(result)
            return True

        def failed(failure: Failure) -> bool:
            error = failure.value
            if not isinstance(error, Refusal | FatalError):
                self.unexpected.append(failure)
            self._count(type(error).__name__)
            # What is not unknown was not done.
            if not isinstance(error, OutcomeUnknown):
                call.refused()
            return False

        return outcome.addBoth(ended).addCallbacks(answered, failed)

    def _count(self, name: str) -> None:
        self.outcomes[name] = self.outcomes.get(name, 0) + 1


def _value_written(argument: Any) -> bytes:
    value: bytes = argument[1] if isinstance(argument, tuple) else argument
    return value
