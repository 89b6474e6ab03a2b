"""The workload of the simulation: registers that clients read, write and compare, and what they saw."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from txraft.core.invariants import require
from txraft.errors import OutcomeUnknown
from txraft.images import IPreparedRestore, IRestoring
from txraft.interfaces import IStateMachine
from txraft.node import RaftNode
from txraft.testing.history import Call, HistoryRecorder
from txraft.testing.linearizability import NotLinearizable, Undecided, check
from txraft.testing.models import Register
from txraft.testing.workload import Outcomes

KEYS = 80
"""Enough that the operations of unknown outcome on each stay few: they are what makes a history hard to judge."""

CHUNK_LINES = 50
"""Each chunk is a job for a disk: a snapshot has several, and yet is quick to read."""


@implementer(IStateMachine)
class RegisterMachine:
    """
    A value for each key. Commands are `write key value` and `cas key expected value`; a request is a key.

    Every result and answer is a pair: a command's success or a key's value, and how many commands were applied by then.
    `commands` are all of those, for whoever checks that none was lost or came twice.
    """

    def __init__(self, values_written: dict[int, bytes] | None = None) -> None:
        """
        @param values_written: is told the value of each command that is applied, by its place among them, from 1.
        """
        self.values: dict[bytes, bytes] = {}
        self.commands: list[bytes] = []
        self._values_written = {} if values_written is None else values_written

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[tuple[bool, int]]:
        return [self._apply(command) for command in commands]

    def _apply(self, command: bytes) -> tuple[bool, int]:
        self.commands.append(command)
        words = command.split(b" ")
        key, value = words[1], words[-1]
        self._values_written[len(self.commands)] = value
        if words[0] == b"cas" and self.values.get(key, b"") != words[2]:
            return False, len(self.commands)
        self.values[key] = value
        return True, len(self.commands)

    def query(self, request: bytes) -> tuple[bytes, int]:
        return self.values.get(request, b""), len(self.commands)

    def snapshot(self) -> Sequence[bytes]:
        lines = [*(b"%b %b" % pair for pair in sorted(self.values.items())), b"", *self.commands]
        return [b"\n".join(lines[start : start + CHUNK_LINES]) for start in range(0, len(lines), CHUNK_LINES)]

    def restore(self, chunks: Sequence[bytes]) -> None:
        lines = b"\n".join(chunks).split(b"\n")
        stop = lines.index(b"")
        self.values = {key: value for key, _, value in (line.partition(b" ") for line in lines[:stop])}
        self.commands = lines[stop + 1 :]

    def restoring(self) -> IRestoring:
        """See `IPreparedRestore`, which not every machine of a run is."""
        return _Restoring(self)


@implementer(IRestoring)
class _Restoring:
    """Of a machine that has no part in it before its end."""

    def __init__(self, machine: RegisterMachine) -> None:
        self._machine = machine
        self._chunks: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def finish(self) -> None:
        self._machine.restore(self._chunks)


class RegisterClients:
    """
    A workload of registers. Every value that is written is new, so that a read tells which write it saw.

    All registers are one machine: a read of any of them has missed something if it was answered from a state before one
    that somebody had been answered from when the read began.

    @param now_ns: the time, for the history.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.outcomes = Outcomes()
        self._recorder = HistoryRecorder(now_ns)
        self._last_value = 0
        self.answered_from = 0
        """The newest state, by the number of commands, from which anybody was answered."""
        self._stale: list[tuple[bytes | None, int, int]] = []
        self._mistaken: list[tuple[bytes, bytes | None]] = []
        self._seen: dict[bytes, bytes] = {}
        self._values_written: dict[int, bytes] = {}

    def machine(self, server_id: str) -> RegisterMachine:
        """See `Workload`, also for what follows. Every other server's is prepared for being restored."""
        machine = RegisterMachine(self._values_written)
        if server_id.endswith(("1", "3", "5")):
            alsoProvides(machine, IPreparedRestore)
        return machine

    def draw(self, rng: random.Random) -> tuple[str, ...]:
        kind = rng.choice(("read", "write", "write", "cas"))
        return kind, f"k{rng.randrange(KEYS)}"

    def probe(self, number: int) -> tuple[str, ...]:
        return ("write", "read")[number % 2], f"k{number}"

    def check_agreement(self, machines: Mapping[str, Any]) -> None:
        writes = [operation for operation in self._recorder.history() if operation.result is True]
        acknowledged = {_value_written(operation.argument) for operation in writes}
        for server_id, machine in sorted(machines.items()):
            values = [command.split(b" ")[-1] for command in machine.commands]
            require(len(set(values)) == len(values), "a command was applied twice", server_id)
            require(acknowledged <= set(values), "an acknowledged write is lost", server_id, acknowledged - set(values))

    def check_history(self) -> bool:
        require(not self._stale, "not linearizable: answered from an old state", *self._stale)
        require(not self._mistaken, "answered with the result of another command", *self._mistaken)
        values = [*self._values_written.values()]
        require(len({*values}) == len(values), "a command was carried out twice")
        verdict = check(self._recorder.history(), Register())
        require(not isinstance(verdict, NotLinearizable), "not linearizable", verdict)
        return not isinstance(verdict, Undecided)

    def request(self, node: RaftNode, *words: str) -> Deferred[bool]:
        kind, name = words
        key = name.encode()
        if kind == "read":
            call = self._recorder.call(key, "read")
            return self._follow(node.read(key), call, key)
        command, value, call = self.write(key, kind)
        return self._follow(node.propose(command), call, key, value)

    def write(self, key: bytes, kind: str) -> tuple[bytes, bytes, Call]:
        """A command that somebody is about to propose, `write` or `cas`; what it writes; and its call, which begins."""
        self._last_value += 1
        value = b"%d" % self._last_value
        if kind == "write":
            return b"write %b %b" % (key, value), value, self._recorder.call(key, "write", value)
        # Mostly what was seen last, so that it often succeeds.
        expected = self._seen.get(key, b"")
        return b"cas %b %b %b" % (key, expected, value), value, self._recorder.call(key, "cas", (expected, value))

    def note_answer(self, answer: tuple[Any, int], value: bytes | None, seen_before: int) -> None:
        """
        Somebody was answered.

        @param value: what the command writes; None for a read.
        @param seen_before: `answered_from` when it was asked.
        """
        _, count = answer
        if count < seen_before:
            self._stale.append((value, count, seen_before))
        # A command's result tells its place.
        if value is not None and self._values_written.get(count) != value:
            self._mistaken.append((value, self._values_written.get(count)))
        self.answered_from = max(self.answered_from, count)
        self.outcomes.answered()

    def _follow(self, outcome: Deferred[Any], call: Call, key: bytes, value: bytes | None = None) -> Deferred[Any]:
        seen_before = self.answered_from

        def answered(answer: tuple[Any, int]) -> bool:
            result, _ = answer
            self.note_answer(answer, value, seen_before)
            if isinstance(result, bytes):
                self._seen[key] = result
            call.returned(result)
            return True

        def failed(failure: Failure) -> bool:
            self.outcomes.failed(failure)
            # What is not unknown was not done.
            if not isinstance(failure.value, OutcomeUnknown):
                call.refused()
            return False

        return outcome.addCallbacks(answered, failed)


def _value_written(argument: Any) -> bytes:
    value: bytes = argument[1] if isinstance(argument, tuple) else argument
    return value
