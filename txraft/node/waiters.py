"""Who waits for what: proposals for their entry to be applied, reads for the leader to be confirmed and caught up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from txraft.core.log import EntryRun
from txraft.errors import OutcomeUnknown


class _Proposal:
    """Commands in the log at `[first_index, stop_index)` with `term`."""

    __slots__ = ("deferred", "first_index", "is_many", "results", "stop_index", "term")

    def __init__(self, first_index: int, count: int, term: int, is_many: bool) -> None:
        self.first_index = first_index
        self.stop_index = first_index + count
        self.term = term
        self.is_many = is_many
        self.deferred: Deferred[Any] = Deferred()
        self.results: list[object] = []


class Proposals:
    """Proposals in the order of their entries; each is answered once, with its own entry's result or a failure."""

    def __init__(self) -> None:
        self._waiting: deque[_Proposal] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, first_index: int, count: int, term: int, is_many: bool) -> Deferred[Any]:
        """Wait for `count` entries from `first_index` on that were appended in `term`."""
        proposal = _Proposal(first_index, count, term, is_many)
        self._waiting.append(proposal)
        return proposal.deferred

    def answer(self, run: EntryRun, results: Sequence[object]) -> None:
        """The entries of `run` were applied. Whoever waits there for an entry of another term waits for a lost one."""
        waiting = self._waiting
        last_index = run.last_index
        while waiting and waiting[0].first_index <= last_index:
            proposal = waiting[0]
            if proposal.term != run.term:
                waiting.popleft()
                proposal.deferred.errback(OutcomeUnknown(proposal.first_index, "another entry took its place"))
                continue
            start = max(proposal.first_index, run.first_index) - run.first_index
            if not proposal.is_many:
                waiting.popleft()
                proposal.deferred.callback(results[start])
                continue
            proposal.results += results[start : proposal.stop_index - run.first_index]
            if proposal.stop_index > last_index + 1:
                return
            waiting.popleft()
            proposal.deferred.callback(proposal.results)

    def end(self, why: str, commit_index: int) -> None:
        """Fail those with an entry behind `commit_index`; the others' entries are committed and will be applied."""
        ended = [proposal for proposal in self._waiting if proposal.stop_index - 1 > commit_index]
        self._waiting = deque(proposal for proposal in self._waiting if proposal.stop_index - 1 <= commit_index)
        for proposal in ended:
            proposal.deferred.errback(OutcomeUnknown(proposal.first_index, why))


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

    def refuse_all(self, error: Exception) -> None:
        reads = [*self._new]
        for batch in [*self._asked.values(), *(batch for _, batch in self._confirmed)]:
            reads += batch
        self._new, self._asked = [], {}
        self._confirmed.clear()
        self._refuse(reads, error)

    def _refuse(self, reads: Sequence[_Read], error: Exception) -> None:
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
