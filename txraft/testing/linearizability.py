"""
Is there one order of all operations that respects real time and that one copy of the data would have given?

`check` looks for it with the algorithm of Wing and Gong as improved by Lowe ("Testing for linearizability", 2017):
depth first, what has been ordered is lifted out of a linked list of calls and returns, and no configuration (what has
been ordered, and the state) is entered twice. Operations on different keys are independent, so that each key is
searched alone. What the data is, and what each operation does to it, is a `Model`; see `models` for some.

What only looks at the state is ordered as soon as it can be, for good. Operations of unknown outcome never have to be
ordered. They are tried last, never where they change nothing or the next one of them makes that vain; and no
configuration is entered if one was that differs only by having used fewer of them.

Limits: the search is exponential at worst, and gives up after a number of steps, with `Undecided`. Ten clients on one
key are cheap for thousands of operations; dozens of unknown outcomes on that key as well are not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import attrs

from txraft.testing.history import Operation

MAX_STEPS = 500_000
"""A second at most for one key."""


class Model(Protocol):
    """What one key holds, and what the operations do to it."""

    @property
    def initial(self) -> Hashable:
        """The state before the first operation."""

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        """
        Whether the operation, done in this state, has its result, and the state after it.

        An open operation has every result. `state` is `initial` or what `step` returned; it must not be changed.
        """

    def only_looks(self, operation: Operation) -> bool:
        """Whether it leaves every state in which it has its result as it is: a read, a cas that failed."""


@attrs.frozen
class Linearizable:
    """There is such an order, for each key. `steps`: what was tried to find it."""

    steps: int


@attrs.frozen
class NotLinearizable:
    """
    No order explains what the clients of one key saw.

    @ivar blocked: the operation at whose return it went wrong: everything that returned before it can be ordered, with
        results as they are, but not this as well.
    @ivar order: the longest order found up to there, and `state` what it leaves.
    @ivar unplaced: what else was under way at that return, or open, and is not in `order`, in the order of calls.
    """

    key: bytes
    blocked: Operation
    order: Sequence[Operation]
    state: Hashable
    unplaced: Sequence[Operation]
    steps: int

    def __str__(self) -> str:
        left_out = len(self.order) - _SHOWN
        return "\n".join(
            [
                f"not linearizable: key {self.key!r}: no order explains",
                f"  {self.blocked}",
                f"The longest order ({len(self.order)} operations) ends in the state {self.state!r}:",
                *([f"  ... {left_out} before"] if left_out > 0 else []),
                *(f"  {operation}" for operation in self.order[-_SHOWN:]),
                *(["Under way at that time and not in that order:"] if self.unplaced else []),
                *(f"  {operation}" for operation in self.unplaced),
            ]
        )


_SHOWN = 10


@attrs.frozen
class Undecided:
    """The search gave up at a key after `steps`; all other keys are linearizable or undecided too."""

    key: bytes
    steps: int

    def __str__(self) -> str:
        return f"undecided: key {self.key!r}: {self.steps} steps were not enough"


Verdict = Linearizable | NotLinearizable | Undecided


def check(history: Iterable[Operation], model: Model, max_steps: int = MAX_STEPS) -> Verdict:
    """
    Judge a history: the first violation by key, else the first key that is undecided, else `Linearizable`.

    A return and a call at the same time count as concurrent. A step is one operation tried in one place.

    @param max_steps: the bound for each key.
    """
    steps = 0
    undecided: Undecided | None = None
    for key, operations in sorted(_by_key(history).items()):
        verdict = _Search(key, operations, model, max_steps).run()
        if isinstance(verdict, NotLinearizable):
            return verdict
        if isinstance(verdict, Undecided):
            undecided = undecided or verdict
        steps += verdict.steps
    return undecided or Linearizable(steps)


def require_linearizable(history: Iterable[Operation], model: Model, max_steps: int = MAX_STEPS) -> None:
    """
    Let only a history pass that is linearizable for sure.

    @raise AssertionError: it is not, or `check` could not decide; says why.
    """
    verdict = check(history, model, max_steps)
    if not isinstance(verdict, Linearizable):
        raise AssertionError(str(verdict))


def _by_key(history: Iterable[Operation]) -> dict[bytes, list[Operation]]:
    keys: dict[bytes, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    return keys


class _Entry:
    """A call or a return in a linked list in the order of time. `operation` is None in the list's head."""

    __slots__ = ("bit", "following", "is_return", "match", "operation", "position", "previous")

    def __init__(self, operation: Operation | None, is_return: bool = False) -> None:
        self.operation = operation
        self.is_return = is_return
        self.bit = 0
        self.position = 0
        self.previous: _Entry | None = None
        self.following: _Entry | None = None
        self.match: _Entry | None = None
        """The return of a call; None for one that stays open."""

    def append_after(self, last: _Entry) -> None:
        self.previous = last
        last.following = self

    def lift(self) -> None:
        """Leave the list, with the return."""
        _unlink(self)
        if self.match is not None:
            _unlink(self.match)

    def unlift(self) -> None:
        """Undo the latest `lift`, which was this entry's."""
        if self.match is not None:
            _relink(self.match)
        _relink(self)


def _unlink(entry: _Entry) -> None:
    assert entry.previous is not None
    entry.previous.following = entry.following
    if entry.following is not None:
        entry.following.previous = entry.previous


def _relink(entry: _Entry) -> None:
    assert entry.previous is not None
    entry.previous.following = entry
    if entry.following is not None:
        entry.following.previous = entry


def _linked(operations: Sequence[Operation]) -> tuple[_Entry, _Entry]:
    """The heads of two lists: calls and returns of all operations with a result, and the calls that stay open."""
    entries = []
    for number, operation in enumerate(operations):
        call = _Entry(operation)
        call.bit = 1 << number
        entries.append((operation.call_ns, False, number, call))
        if operation.return_ns is not None:
            call.match = _Entry(operation, is_return=True)
            entries.append((operation.return_ns, True, number, call.match))
    heads = known, opened = _Entry(None), _Entry(None)
    # At equal times calls come before returns: whoever may be concurrent is.
    for position, (_, _, _, entry) in enumerate(sorted(entries, key=lambda item: item[:3])):
        assert entry.operation is not None
        entry.position = position
        if entry.operation.is_open:
            entry.append_after(opened)
            opened = entry
        else:
            entry.append_after(known)
            known = entry
    return heads


@attrs.frozen
class _Frame:
    """One operation of the order: how to undo it, and what else to try in its place."""

    entry: _Entry
    state: Hashable
    candidates: Iterator[_Entry]


class _Search:
    """The search for an order of one key's operations."""

    def __init__(self, key: bytes, operations: Sequence[Operation], model: Model, max_steps: int) -> None:
        self._key = key
        self._operations = operations
        self._model = model
        self._max_steps = max_steps
        self._known, self._open = _linked(operations)
        self._frames: list[_Frame] = []
        self._state = model.initial
        self._known_done = 0
        self._open_done = 0
        # (known operations done, state) -> the sets of open operations with which that was reached.
        self._entered: dict[tuple[int, Hashable], list[int]] = {}
        self._steps = 0
        self._blocked: _Entry | None = None
        self._longest: list[Operation] = []
        self._longest_state = model.initial

    def run(self) -> Verdict:
        candidates = self._candidates()
        while self._known.following is not None:
            for entry in candidates:
                if self._steps >= self._max_steps:
                    return Undecided(self._key, self._steps)
                self._steps += 1
                if self._enter(entry, candidates):
                    candidates = self._candidates()
                    break
            else:
                if not self._frames:
                    return self._violation()
                candidates = self._leave()
        return Linearizable(self._steps)

    def _candidates(self) -> Iterator[_Entry]:
        """
        What may come next: every call before the first return, those with a result first.

        While a deeper level runs, this waits; that level leaves the lists as it found them.
        """
        entry = self._known.following
        while entry is not None and not entry.is_return:
            yield entry
            entry = entry.following
        assert entry is not None, "a call without its return"
        self._note_blocked(entry)
        opened = self._open.following
        while opened is not None and opened.position < entry.position:
            yield opened
            opened = opened.following

    def _enter(self, entry: _Entry, candidates: Iterator[_Entry]) -> bool:
        """Order this operation next, if it can be, and if that leads to where the search has not been."""
        assert entry.operation is not None
        fits, state = self._model.step(self._state, entry.operation)
        if not fits:
            return False
        known_done, open_done = self._known_done, self._open_done
        if entry.match is not None:
            known_done |= entry.bit
        elif state == self._state or self._makes_last_vain(entry.operation, state):
            return False
        else:
            open_done |= entry.bit
        if not self._is_new(known_done, open_done, state):
            return False
        if self._model.only_looks(entry.operation):
            candidates = iter(())  # whatever follows, nothing is lost by having looked first
        self._frames.append(_Frame(entry, self._state, candidates))
        self._known_done, self._open_done, self._state = known_done, open_done, state
        entry.lift()
        return True

    def _makes_last_vain(self, operation: Operation, state: Hashable) -> bool:
        """Whether the last of the order is open, and this operation gives the same state without it."""
        if not self._frames or self._frames[-1].entry.match is not None:
            return False
        return self._model.step(self._frames[-1].state, operation) == (True, state)

    def _is_new(self, known_done: int, open_done: int, state: Hashable) -> bool:
        reached = self._entered.setdefault((known_done, state), [])
        # From there with fewer open operations used, everything can follow that can follow here.
        if any(used & open_done == used for used in reached):
            return False
        reached.append(open_done)
        return True

    def _leave(self) -> Iterator[_Entry]:
        """Undo the last operation of the order; what else to try in its place."""
        frame = self._frames.pop()
        frame.entry.unlift()
        self._state = frame.state
        if frame.entry.match is not None:
            self._known_done ^= frame.entry.bit
        else:
            self._open_done ^= frame.entry.bit
        return frame.candidates

    def _note_blocked(self, first_return: _Entry) -> None:
        """Remember the furthest return that was not passed, and with what order; of several the longest."""
        if self._blocked is not None:
            if first_return.position < self._blocked.position:
                return
            if first_return is self._blocked and len(self._frames) <= len(self._longest):
                return
        self._blocked = first_return
        self._longest = [frame.entry.operation for frame in self._frames if frame.entry.operation is not None]
        self._longest_state = self._state

    def _violation(self) -> NotLinearizable:
        assert self._blocked is not None and self._blocked.operation is not None
        blocked = self._blocked.operation
        assert blocked.return_ns is not None
        placed = {id(operation) for operation in [blocked, *self._longest]}
        unplaced = [
            operation
            for operation in self._operations
            if operation.call_ns <= blocked.return_ns and id(operation) not in placed
        ]
        return NotLinearizable(
            key=self._key,
            blocked=blocked,
            order=self._longest,
            state=self._longest_state,
            unplaced=sorted(unplaced, key=lambda operation: operation.call_ns),
            steps=self._steps,
        )
