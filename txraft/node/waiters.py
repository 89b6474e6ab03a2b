"""Who waits for what: proposals for their entry to be applied, reads for the leader to be confirmed and caught up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from txraft.core.log import EntryKind, EntryRun
from txraft.errors import OutcomeUnknown


class _Many:
    """One waiter for several commands. `results` holds what was applied of them so far."""

    __slots__ = ("deferred", "missing", "results")

    def __init__(self, count: int) -> None:
        self.missing = count
        self.results: list[object] = []
        self.deferred: Deferred[Any] = Deferred()


_Waiter = Deferred[Any] | _Many

LARGE_BATCH = 64
"""So many commands, and what a batch costs by itself is little beside what they cost: it need not grow."""

GATHER_TURNS = 4
"""For how many turns a batch may grow while nothing is being written."""


def _count(waiter: _Waiter) -> int:
    return waiter.missing if isinstance(waiter, _Many) else 1


def _fail(waiter: _Waiter, error: Exception) -> None:
    (waiter.deferred if isinstance(waiter, _Many) else waiter).errback(error)


class _Appended:
    """What one turn appended: waiters for the entries from `next_index` on, all of `term`, in order."""

    __slots__ = ("next_index", "term", "waiters")

    def __init__(self, first_index: int, term: int, waiters: deque[_Waiter]) -> None:
        self.next_index = first_index
        self.term = term
        self.waiters = waiters

    def answer(self, run: EntryRun, results: Sequence[object]) -> None:
        """Answer those whose entries are in `run`."""
        waiters, at, stop = self.waiters, self.next_index - run.first_index, len(results)
        while waiters and at < stop:
            waiter = waiters[0]
            if isinstance(waiter, _Many):
                part = results[at : at + waiter.missing]
                waiter.results += part
                waiter.missing -= len(part)
                at += len(part)
                if not waiter.missing:
                    waiters.popleft()
                    waiter.deferred.callback(waiter.results)
            else:
                waiters.popleft()
                at += 1
                waiter.callback(results[at - 1])
        self.next_index = run.first_index + at

    def end(self, why: str, kept_index: int) -> None:
        """Fail those with an entry behind `kept_index`."""
        waiters, self.waiters = self.waiters, deque()
        index = self.next_index
        for waiter in waiters:
            first_index, index = index, index + _count(waiter)
            if index - 1 <= kept_index:
                self.waiters.append(waiter)
            else:
                _fail(waiter, OutcomeUnknown(first_index, why))


class Proposals:
    """
    Who waits for entries; each is answered once, with its own entries' results or a failure.

    Commands are gathered until their batch `is_due`, and appended together; until then nothing was done for them.
    """

    def __init__(self) -> None:
        self._kind = EntryKind.COMMAND
        self._commands: list[bytes] = []
        self._before: list[tuple[EntryKind, list[bytes]]] = []
        """What was gathered before `_commands`, which are of `_kind`, in order."""
        self._turns = 0
        self._last_count = 1
        self._gathered: deque[_Waiter] = deque()
        self._appended: deque[_Appended] = deque()

    def __bool__(self) -> bool:
        return bool(self._gathered or self._appended)

    def gather(self, command: bytes, kind: EntryKind = EntryKind.COMMAND) -> Deferred[Any]:
        """Wait for this command's result."""
        if kind is not self._kind:
            self._begin(kind)
        self._commands.append(command)
        waiter: Deferred[Any] = Deferred()
        self._gathered.append(waiter)
        return waiter

    def gather_many(self, commands: Sequence[bytes]) -> Deferred[Any]:
        """Wait for the list of these commands' results."""
        if self._kind is not EntryKind.COMMAND:
            self._begin(EntryKind.COMMAND)
        self._commands += commands
        waiter = _Many(len(commands))
        self._gathered.append(waiter)
        return waiter.deferred

    def _begin(self, kind: EntryKind) -> None:
        if self._commands:
            self._before.append((self._kind, self._commands))
        self._kind, self._commands = kind, []

    @property
    def gathered_count(self) -> int:
        """How many commands wait to be appended."""
        return sum(len(commands) for _, commands in self._before) + len(self._commands)

    def is_due(self, is_writing: bool) -> bool:
        """
        Whether to append now what is gathered; asked once a turn.

        A batch costs each server as much as dozens of commands. So a small one waits: for the end of the write that is
        outstanding, whose successor it will be; and while nothing is being written, as long as each turn brings
        more proposals, for a few turns. One that is alone does not wait for others, which may never come.
        """
        if self.gathered_count >= LARGE_BATCH:
            return True
        if is_writing:
            return False
        last_count, self._last_count = self._last_count, len(self._gathered)
        self._turns += 1
        return self._last_count == last_count or self._turns >= GATHER_TURNS

    def take_gathered(self) -> list[tuple[EntryKind, list[bytes]]]:
        """The commands that are to be appended now, by kind, in order. Say `appended` or `refuse_gathered` next."""
        self._begin(EntryKind.COMMAND)
        gathered, self._before = self._before, []
        self._turns, self._last_count = 0, 1
        return gathered

    def appended(self, first_index: int, term: int) -> None:
        """What was gathered is in the log, from `first_index` on."""
        self._appended.append(_Appended(first_index, term, self._gathered))
        self._gathered = deque()

    def refuse_gathered(self, error: Exception) -> None:
        """What was gathered will not be appended."""
        waiters, self._gathered = self._gathered, deque()
        self.take_gathered()
        for waiter in waiters:
            _fail(waiter, error)

    def answer(self, run: EntryRun, results: Sequence[object]) -> None:
        """The entries of `run` were applied. Whoever waits there for an entry of another term waits for a lost one."""
        last_index = run.last_index
        while self._appended and self._appended[0].next_index <= last_index:
            appended = self._appended[0]
            if appended.term != run.term:
                self._appended.popleft()
                appended.end("another entry took its place", kept_index=0)
                continue
            appended.answer(run, results)
            if appended.waiters:
                return
            # An answer may have led to `end`, which leaves nothing behind.
            if self._appended and self._appended[0] is appended:
                self._appended.popleft()

    def end(self, why: str, kept_index: int) -> None:
        """Fail those with an entry behind `kept_index`; the others' entries will be applied, or what replaced them."""
        for appended in self._appended:
            appended.end(why, kept_index)
        self._appended = deque(appended for appended in self._appended if appended.waiters)


class _Read:
    __slots__ = ("deferred", "is_many", "requests")

    def __init__(self, requests: Sequence[bytes], is_many: bool) -> None:
        self.requests = requests
        self.is_many = is_many
        self.deferred: Deferred[Any] = Deferred()

    def answer(self, query: Callable[[bytes], object]) -> None:
        answers: list[object] = []
        for request in self.requests:
            try:
                answers.append(query(request))
            except Exception as error:
                answers.append(error)
        if self.is_many:
            self.deferred.callback(answers)
        elif isinstance(answers[0], Exception):
            self.deferred.errback(answers[0])
        else:
            self.deferred.callback(answers[0])


class Reads:
    """
    Reads on their way: new, then asked for under one read id, then confirmed at an index, then answered or refused.

    `count` is the number of requests in all of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._new: list[_Read] = []
        self._asked: dict[int, list[_Read]] = {}
        self._confirmed: deque[tuple[int, deque[_Read]]] = deque()
        self._last_id = 0

    def add(self, requests: Sequence[bytes], is_many: bool) -> Deferred[Any]:
        read = _Read(requests, is_many)
        self.count += len(requests)
        self._new.append(read)
        return read.deferred

    def take_new(self) -> int | None:
        """The id under which all new reads are asked for together; None if there are none."""
        if not self._new:
            return None
        self._last_id += 1
        self._asked[self._last_id], self._new = self._new, []
        return self._last_id

    def confirm(self, read_id: int, index: int) -> None:
        """Answer them from the first state that holds everything up to `index`."""
        self._confirmed.append((index, deque(self._asked.pop(read_id))))

    def refuse(self, read_id: int, error: Exception) -> None:
        self._refuse(self._asked.pop(read_id), error)

    def refuse_behind(self, index: int, error: Exception) -> None:
        """Refuse those that were confirmed, and wait for an entry behind `index`."""
        confirmed, self._confirmed = self._confirmed, deque()
        for at, batch in confirmed:
            if at <= index:
                self._confirmed.append((at, batch))
            else:
                self._refuse(batch, error)

    def refuse_all(self, error: Exception) -> None:
        reads = [*self._new]
        for batch in [*self._asked.values(), *(batch for _, batch in self._confirmed)]:
            reads += batch
        self._new, self._asked = [], {}
        self._confirmed.clear()
        self._refuse(reads, error)

    def _refuse(self, reads: Iterable[_Read], error: Exception) -> None:
        for read in reads:
            self.count -= len(read.requests)
            read.deferred.errback(error)

    def can_answer(self, applied_index: int) -> bool:
        return bool(self._confirmed) and self._confirmed[0][0] <= applied_index

    def answer(self, applied_index: int, query: Callable[[bytes], object], is_over: Callable[[], bool]) -> None:
        """Answer those whose index is applied, until `is_over`, but at least one."""
        while self.can_answer(applied_index):
            reads = self._confirmed[0][1]
            while reads:
                read = reads.popleft()
                self.count -= len(read.requests)
                read.answer(query)
                if is_over():
                    break
            if self._confirmed and not self._confirmed[0][1]:
                self._confirmed.popleft()
            if is_over():
                return
