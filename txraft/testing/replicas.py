"""
What the replicas of a machine did with the same commands, and the first place where two of them differ.

A `Chronicle` keeps, for each index of the log, what the first replica there answered and what its snapshot was. Every
other replica is compared with that, also the same server's after a restart, and those that `replays` makes.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import attrs
from zope.interface import implementer

from txraft.core.errors import InvariantBroken
from txraft.interfaces import IStateMachine

SHOWN_BYTES = 200
"""How much of a command, a result or a snapshot a message shows."""

SNAPSHOT_BYTES_PER_INDEX = 64 * 1024
"""Larger snapshots are compared at some indexes only, so that the cost of a run stays in proportion."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

Chunks = tuple[bytes, ...]


class MachineBroken(InvariantBroken):
    """A state machine breaks its contract, or what its plugin's `check` demands."""


class StateDiverged(MachineBroken):
    """
    Two replicas of a machine were given the same commands, and differ.

    :ivar index: the first index of the log at which they are known to differ.
    :ivar command: what was applied there.
    :ivar replicas: what they are called: a server's id, and what else is special about it.
    """

    def __init__(self, message: str, index: int, command: bytes, replicas: tuple[str, str]) -> None:
        super().__init__(message)
        self.index = index
        self.command = command
        self.replicas = replicas


def show(value: object) -> str:
    """A result as text that is equal for equal results: without addresses, and sets in order."""
    if type(value) in (set, frozenset):
        return f"{type(value).__name__}({sorted(map(show, value))})"  # type: ignore[call-overload]
    if type(value) in (list, tuple):
        return f"{type(value).__name__}({', '.join(map(show, value))})"  # type: ignore[call-overload]
    if type(value) is dict:
        return f"{{{', '.join(f'{show(key)}: {show(item)}' for key, item in value.items())}}}"
    return _ADDRESS.sub("", repr(value))


def cut(text: str | bytes) -> str:
    """Text, or the repr of bytes, short enough to be read."""
    shown = text if isinstance(text, str) else repr(text[:SHOWN_BYTES])
    rest = len(text) - SHOWN_BYTES
    return shown[: SHOWN_BYTES + 10] + (f"... and {rest} more" if rest > 0 else "")


def take_snapshot(machine: IStateMachine) -> Chunks:
    """:raises TypeError: it is no sequence of bytes."""
    chunks = machine.snapshot()
    if not isinstance(chunks, Sequence) or not all(isinstance(chunk, bytes) for chunk in chunks):
        raise TypeError(f"snapshot() gave {cut(show(chunks))}, not a sequence of bytes")
    return tuple(chunks)


def _cut(chunk: bytes | None) -> str:
    return "nothing" if chunk is None else cut(chunk)


def where_they_differ(one: Chunks, other: Chunks) -> tuple[str, str, str]:
    """Of two snapshots that differ: the first place, and what each of them has there."""
    pairs = enumerate(zip_longest(one, other))
    number, (left, right) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    if left is None or right is None:
        return f"chunk {number}", _cut(left), _cut(right)
    shorter = min(len(left), len(right))
    at = next((at for at in range(shorter) if left[at] != right[at]), shorter)
    start = max(0, at - 30)
    before = "..." if start else ""
    return f"chunk {number}, byte {at}", before + cut(left[start:]), before + cut(right[start:])


@contextlib.contextmanager
def randomness_of(process: str) -> Iterator[None]:
    """
    The module `random` as it is in a process of its own: it differs from one to another.

    And it is the same when this is run again, so that a machine that draws from it fails again, too.
    """
    before = random.getstate()
    random.seed(process)
    try:
        yield
    finally:
        random.setstate(before)


@attrs.define
class Entry:
    """
    What the first replica that came to an index saw there.

    `chunks` is the snapshot after it, of the first that took one; None if nobody did.
    """

    command: bytes
    time_ms: int
    result: str
    replica: str
    chunks: Chunks | None = None
    replica_of_chunks: str = ""


@attrs.frozen
class Question:
    """A query that was answered from the state at `index`, 0 before the first command."""

    index: int
    request: bytes
    answer: str
    replica: str


class Chronicle:
    """
    All commands that were applied, by index, and what came of them; and all queries.

    `splits`: each replica gets the commands in other batches; if not, one at a time.
    """

    def __init__(self, splits: bool) -> None:
        self.splits = splits
        self.entries: dict[int, Entry] = {}
        self.questions: list[Question] = []
        self._stride = 1
        self._is_due: dict[int, bool] = {}

    def note_result(self, replica: str, index: int, command: bytes, time_ms: int, result: str) -> None:
        """:raises StateDiverged: another replica answered otherwise."""
        entry = self.entries.setdefault(index, Entry(command, time_ms, result, replica))
        if entry.result != result:
            self.fail("result", index, replica, result)

    def wants_snapshot(self, index: int) -> bool:
        """Whether replicas are compared at this index; the answer is the same for all of them."""
        return self._is_due.setdefault(index, index % self._stride == 0)

    def note_snapshot(self, replica: str, index: int, chunks: Chunks) -> None:
        """:raises StateDiverged: another replica's snapshot is another one."""
        entry = self.entries[index]
        if entry.chunks is None:
            entry.chunks, entry.replica_of_chunks = chunks, replica
            self._stride = 1 + sum(map(len, chunks)) // SNAPSHOT_BYTES_PER_INDEX
        elif entry.chunks != chunks:
            self.fail_state(index, replica, chunks)

    def fail(self, what: str, index: int, replica: str, found: str) -> None:
        """:raises StateDiverged: always; `replica` found another `what` at this index than the one that was first."""
        entry = self.entries[index]
        raise StateDiverged(
            f"two replicas differ in a {what}: command {cut(entry.command)} at index {index} gave\n"
            f"  {cut(entry.result)} on {entry.replica}\n  {cut(found)} on {replica}{self._hint}",
            index,
            entry.command,
            (entry.replica, replica),
        )

    @property
    def _hint(self) -> str:
        return (
            "\n  (each was given the commands in other batches, which must make no difference)" if self.splits else ""
        )

    def fail_state(self, index: int, replica: str, chunks: Chunks) -> None:
        """:raises StateDiverged: always; the snapshots at this index are not the same."""
        entry = self.entries[index]
        assert entry.chunks is not None
        place, expected, found = where_they_differ(entry.chunks, chunks)
        raise StateDiverged(
            f"two replicas differ in their state: after command {cut(entry.command)} at index {index} their snapshots "
            f"differ from {place} on\n  {expected} on {entry.replica_of_chunks}\n  {found} on {replica}{self._hint}",
            index,
            entry.command,
            (entry.replica_of_chunks, replica),
        )

    def fail_answer(self, question: Question, replica: str, found: str) -> None:
        """:raises StateDiverged: always; the same query, asked of the same state, is answered otherwise."""
        entry = self.entries.get(question.index)
        command = entry.command if entry else b""
        after = f"after command {cut(command)} at index {question.index}" if entry else "before the first command"
        raise StateDiverged(
            f"two replicas differ in an answer: query {cut(question.request)} {after} gave\n"
            f"  {cut(question.answer)} on {question.replica}\n  {cut(found)} on {replica}",
            question.index,
            command,
            (question.replica, replica),
        )


@attrs.frozen
class Answered:
    """A result of a command, or an answer to a query, and the index of the state that gave it."""

    index: int
    value: object


@implementer(IStateMachine)
class Replica:
    """
    A user's machine in one server's process. All that it does is noted in the chronicle, and compared there.

    :ivar applied_index: the last command's; 0 before the first.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        check: Callable[[Any], object],
        chronicle: Chronicle,
        name: str,
        seed: int,
    ) -> None:
        """
        :param check: the user's invariant; it raises if that is broken.
        :param name: what messages call this replica.
        :param seed: the run's.
        """
        self.applied_index = 0
        self._name = name
        self._check = check
        self._chronicle = chronicle
        self._process = f"{seed} {name}"
        self._splitting = random.Random(self._process) if chronicle.splits else None
        with randomness_of(self._process):
            self.machine = make()

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[Answered]:
        """:raises MachineBroken: what the machine did is wrong, or differs from another replica's."""
        answers: list[Answered] = []
        start = 0
        for stop in range(1, len(commands) + 1):
            if stop == len(commands) or self._splitting is None or self._splitting.random() < 0.5:
                answers += self._apply_batch(first_index + start, list(commands[start:stop]), time_ms)
                start = stop
        return answers

    def _apply_batch(self, first_index: int, commands: list[bytes], time_ms: int) -> list[Answered]:
        self.applied_index = index = first_index + len(commands) - 1
        with randomness_of(f"{self._process} {first_index}"):
            with self._blame("apply() raised", commands):
                results = self.machine.apply(first_index, list(commands), time_ms)
            if not isinstance(results, Sequence) or len(results) != len(commands):
                found = f"{cut(show(results))} for {len(commands)} commands"
                raise MachineBroken(f"apply() did not give one result for each command: {found}, {self._at(commands)}")
            for at, (command, result) in enumerate(zip(commands, results, strict=True), first_index):
                self._chronicle.note_result(self._name, at, command, time_ms, show(result))
            if self._chronicle.wants_snapshot(index):
                with self._blame("snapshot() raised", commands):
                    chunks = take_snapshot(self.machine)
                self._chronicle.note_snapshot(self._name, index, chunks)
            with self._blame("check() says that an invariant is broken", commands):
                self._check(self.machine)
        return [Answered(at, result) for at, result in enumerate(results, first_index)]

    @contextlib.contextmanager
    def _blame(self, what: str, commands: Sequence[bytes]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            found = f"{type(error).__name__}: {cut(str(error))}"
            raise MachineBroken(f"{what}: {found}\n  {self._at(commands)}") from error

    def _at(self, commands: Sequence[bytes]) -> str:
        """Where this replica has just come to, by these commands."""
        index, command = self.applied_index, cut(commands[-1])
        if len(commands) == 1:
            return f"command {command} at index {index} on {self._name}"
        first_index = index - len(commands) + 1
        return f"commands at index {first_index} to {index}, the last of them {command}, on {self._name}"

    def query(self, request: bytes) -> Answered:
        """
        What the query raises is an answer like any other.

        :raises MachineBroken: it has changed the state.
        """
        index = self.applied_index
        with randomness_of(f"{self._process} {index}"):
            value = ask(self.machine, request)
            chunks = self._chronicle.entries[index].chunks if index else None
            if chunks is not None and take_snapshot(self.machine) != chunks:
                place, before, after = where_they_differ(chunks, take_snapshot(self.machine))
                raise MachineBroken(
                    f"a query changes the state: query {cut(request)} after index {index} on {self._name}, "
                    f"from {place} on\n  {before} before\n  {after} after"
                )
        self._chronicle.questions.append(Question(index, request, show(value), self._name))
        return Answered(index, value)

    def snapshot(self) -> Sequence[bytes]:
        return [b"%d" % self.applied_index, *take_snapshot(self.machine)]

    def restore(self, chunks: Sequence[bytes]) -> None:
        self.applied_index = int(chunks[0])
        self.machine.restore(chunks[1:])


def ask(machine: Any, request: bytes) -> object:
    """The answer to a query; what it raises is returned."""
    try:
        return machine.query(request)
    except Exception as error:
        return error
