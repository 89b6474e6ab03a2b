"""
The replicated log as columns: one list of commands, and runs that say which term, kind and time they have.

Nothing here loops over entries in Python. Positions are indexes of the paper: the first entry has index 1, and 0 is
"before the first entry".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate

from txraft.core.errors import CommittedConflict

ENTRY_OVERHEAD_BYTES = 8
"""Added to a command's length wherever bytes are counted, so that empty commands are not free."""

RUN_OVERHEAD_BYTES = 1024
"""
Added for each run of a message but the first: a log that grew by an entry now and then is all short runs, and each
costs the sender and the receiver as much time as some KiB of commands. It bounds what a turn takes, and the message.
"""


class EntryKind(IntEnum):
    """What an entry is for; the numbers are those on the wire."""

    COMMAND = 0
    NOOP = 1
    CONFIGURATION = 2
    SESSION = 3


class EntryRun:
    """
    Consecutive entries of one term, kind and time. Has no identity: it may be split at any index.

    `encoded` is None until the codec has encoded the run, once; nothing in the core reads it.
    """

    __slots__ = ("commands", "encoded", "first_index", "kind", "term", "time_ms")

    def __init__(
        self,
        first_index: int,
        term: int,
        kind: EntryKind,
        time_ms: int,
        commands: list[bytes],
        encoded: bytes | None = None,
    ) -> None:
        self.first_index = first_index
        self.term = term
        self.kind = kind
        self.time_ms = time_ms
        self.commands = commands
        self.encoded = encoded

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.commands) - 1

    def starting_at(self, index: int) -> EntryRun:
        """The part from `index` on; `self` if that is all of it."""
        if index <= self.first_index:
            return self
        return EntryRun(index, self.term, self.kind, self.time_ms, self.commands[index - self.first_index :])

    def _key(self) -> tuple[object, ...]:
        return (self.first_index, self.term, self.kind, self.time_ms, self.commands)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntryRun) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"EntryRun{self._key()!r}"


class LogSlice:
    """
    A contiguous part of a log, `[first_index, stop_index)`, as runs. Never changed after it was made.

    An empty slice has no runs and `stop_index == first_index`.
    """

    __slots__ = ("first_index", "runs", "stop_index")

    def __init__(self, first_index: int, runs: Sequence[EntryRun] = ()) -> None:
        self.first_index = first_index
        self.runs = tuple(runs)
        self.stop_index = self.runs[-1].last_index + 1 if self.runs else first_index

    @property
    def last_index(self) -> int:
        """The last entry's index; `first_index - 1` if there is none."""
        return self.stop_index - 1

    def __len__(self) -> int:
        return self.stop_index - self.first_index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogSlice) and (self.first_index, self.runs) == (other.first_index, other.runs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"LogSlice({self.first_index}, {self.runs!r})"


def is_contiguous(entries: LogSlice, prev_log_index: int, prev_log_term: int) -> bool:
    """True if `entries` follow the previous entry without gap, and terms and times never decrease."""
    index, term, time_ms = prev_log_index, prev_log_term, 0
    for run in entries.runs:
        if run.first_index != index + 1 or not run.commands or run.term < term or run.time_ms < time_ms:
            return False
        index, term, time_ms = run.last_index, run.term, run.time_ms
    return entries.first_index == prev_log_index + 1


class _Span:
    """Where a run of the log begins, and what its entries share."""

    __slots__ = ("first_index", "kind", "term", "time_ms")

    def __init__(self, first_index: int, term: int, kind: EntryKind, time_ms: int) -> None:
        self.first_index = first_index
        self.term = term
        self.kind = kind
        self.time_ms = time_ms


class Log:
    """
    The entries after `base_index` (0, or the last index of a snapshot), in memory.

    `written_index` is the last index that was handed to the disk, `durable_index` the last one known to be on it;
    `take_unwritten` and `made_durable` move them.
    """

    def __init__(self, base_index: int = 0, base_term: int = 0, base_time_ms: int = 0) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._base_time_ms = base_time_ms
        self.last_index = base_index
        self.durable_index = base_index
        self.written_index = base_index
        self._commands: list[bytes] = []
        self._spans: list[_Span] = []
        self._span_firsts: list[int] = []
        self._cached_slice: tuple[tuple[int, int, int], LogSlice] | None = None
        self._received: list[EntryRun] = []
        """Runs as they came since the last `take_unwritten`: the disk gets the very bytes that the leader encoded."""

    @property
    def first_index(self) -> int:
        """The first index held; `last_index + 1` if the log is empty."""
        return self.base_index + 1

    @property
    def last_term(self) -> int:
        return self._spans[-1].term if self._spans else self.base_term

    @property
    def last_time_ms(self) -> int:
        return self._spans[-1].time_ms if self._spans else self._base_time_ms

    def term(self, index: int) -> int | None:
        """The term of the entry at `index`; None if that entry is not here. 0 at index 0. Cost: one bisect."""
        if index == self.base_index:
            return self.base_term
        if not self.base_index < index <= self.last_index:
            return None
        last = self._spans[-1]
        return last.term if index >= last.first_index else self._span_at(index).term

    def time_ms(self, index: int) -> int:
        """When the entry at `index` was appended; it must be here, or the last one before."""
        return self._base_time_ms if index == self.base_index else self._span_at(index).time_ms

    def kind(self, index: int) -> EntryKind:
        """What the entry at `index` is for; it must be here."""
        return self._span_at(index).kind

    def command(self, index: int) -> bytes:
        """The bytes of the entry at `index`; it must be here."""
        assert self.base_index < index <= self.last_index, (self.base_index, index, self.last_index)
        return self._commands[index - self.base_index - 1]

    def _span_at(self, index: int) -> _Span:
        return self._spans[bisect_right(self._span_firsts, index) - 1]

    def append(self, term: int, kind: EntryKind, time_ms: int, commands: Sequence[bytes]) -> int:
        """
        Add entries behind the last one; answer the first new index.

        A leader's way in. The time never goes back: the last entry's counts if it is later.
        Cost: list.extend; a new run only if term, kind or time differ from the last entry's.
        """
        first_index = self.last_index + 1
        self._extend(first_index, term, kind, max(time_ms, self.last_time_ms), commands)
        return first_index

    def _extend(self, first_index: int, term: int, kind: EntryKind, time_ms: int, commands: Sequence[bytes]) -> None:
        assert first_index == self.last_index + 1 and commands, (first_index, self.last_index, len(commands))
        assert term >= self.last_term, (term, self.last_term)
        last = self._spans[-1] if self._spans else None
        if last is None or last.term != term or last.kind != kind or last.time_ms != time_ms:
            self._spans.append(_Span(first_index, term, kind, time_ms))
            self._span_firsts.append(first_index)
        self._commands.extend(commands)
        self.last_index += len(commands)

    def extend(self, run: EntryRun) -> None:
        """Add a run that another server made, which must start right behind the last entry."""
        self._extend(run.first_index, run.term, run.kind, run.time_ms, run.commands)
        self._received.append(run)

    def truncate(self, last_index: int) -> None:
        """Forget all entries behind `last_index`; what was durable of them no longer counts."""
        assert self.base_index <= last_index <= self.last_index, (self.base_index, last_index, self.last_index)
        del self._commands[last_index - self.base_index :]
        keep = bisect_right(self._span_firsts, last_index)
        del self._spans[keep:], self._span_firsts[keep:]
        self.last_index = last_index
        self.durable_index = min(self.durable_index, last_index)
        self.written_index = min(self.written_index, last_index)
        self._cached_slice = None
        self._received = []

    def compact(self, index: int) -> None:
        """Forget the entries up to `index`, which are on disk and in a snapshot; keep the last one's term and time."""
        assert self.base_index < index <= self.durable_index, (self.base_index, index, self.durable_index)
        at = bisect_right(self._span_firsts, index) - 1
        span = self._spans[at]
        stop = self._span_firsts[at + 1] if at + 1 < len(self._spans) else self.last_index + 1
        gone = at if index + 1 < stop else at + 1
        del self._spans[:gone], self._span_firsts[:gone]
        if gone == at:
            span.first_index = self._span_firsts[0] = index + 1
        del self._commands[: index - self.base_index]
        if self._cached_slice is not None and self._cached_slice[0][0] <= index:
            self._cached_slice = None  # it may be the last that holds what goes
        self.base_index, self.base_term, self._base_time_ms = index, span.term, span.time_ms

    def reset(self, base_index: int, base_term: int, base_time_ms: int) -> None:
        """Begin anew behind a snapshot whose last entry this is; everything that was here is forgotten."""
        self._commands, self._spans, self._span_firsts = [], [], []
        self._cached_slice, self._received = None, []
        self.base_index, self.base_term, self._base_time_ms = base_index, base_term, base_time_ms
        self.last_index = self.durable_index = self.written_index = base_index

    def matches(self, index: int, term: int) -> bool:
        """
        True if the entry at `index` is here with `term`. Paper §5.3, the consistency check.

        What is below `base_index` is committed, so every leader has it and may build on it. Paper §7.
        """
        return index < self.base_index or self.term(index) == term

    def first_conflict(self, entries: LogSlice) -> int | None:
        """
        The first index at which `entries` differ from this log; None if all of them are here.

        `entries` start at or before `last_index + 1`; an index past our end counts as different. Entries at or below
        `base_index` are in a snapshot, hence committed, hence equal.
        Cost: one step per run, here and there; nothing per entry.
        Source: paper §5.3 (two entries of one index and term are the same); Figure 2, receiver's step 3.
        """
        for run in entries.runs:
            index, stop = max(run.first_index, self.base_index + 1), run.last_index + 1
            while index < stop:
                if self.term(index) != run.term:
                    return index
                at = bisect_right(self._span_firsts, index)
                index = self._span_firsts[at] if at < len(self._spans) else self.last_index + 1
        return None

    def merge(self, entries: LogSlice, commit_index: int) -> int | None:
        """
        Make this log hold `entries`; cut it only at the first true conflict. Answer the first index that changed.

        None if every entry was here already: then nothing behind them is touched either.

        :raises CommittedConflict: the difference is at or below `commit_index`.
        Source: paper, Figure 2, AppendEntries receiver, steps 3 and 4.
        """
        conflict = self.first_conflict(entries)
        if conflict is None:
            return None
        if conflict <= commit_index:
            raise CommittedConflict(
                f"entry {conflict} has term {self.term(conflict)} here, is committed (commit index {commit_index}), "
                f"and a leader sent another entry in its place"
            )
        if conflict <= self.last_index:
            self.truncate(conflict - 1)
        for run in entries.runs:
            if run.last_index >= conflict:
                self.extend(run.starting_at(conflict))
        return conflict

    def conflict_hint(self, prev_log_index: int, prev_log_term: int) -> tuple[int, int]:
        """
        (index, term): the last place at or before `prev_log_index` where this log may agree with the sender's.

        It is the last entry whose term is at most `prev_log_term`: no entry of a later term can be in the sender's
        log there. Used by both sides of a refusal, so that each round skips a whole term. Paper §5.3, last part.
        Below `base_index` nothing is known: the index is as it was asked for, and the term 0.
        """
        index = min(prev_log_index, self.last_index)
        if index < self.base_index:
            return index, 0
        while index > self.base_index:
            span = self._span_at(index)
            if span.term <= prev_log_term:
                return index, span.term
            index = span.first_index - 1
        return self.base_index, self.base_term

    def slice(self, first_index: int, max_bytes: int) -> LogSlice:
        """
        The entries from `first_index` on that weigh at most `max_bytes`, see `weight`, but at least one if any.

        The same arguments on an unchanged log give the same object, so that it is encoded once for all peers and the
        disk. Cost: one step per run that is taken and C-level passes over its lengths, none over entries in Python.
        """
        key = (first_index, self.last_index, max_bytes)
        if self._cached_slice is None or self._cached_slice[0] != key:
            stop = self._stop_within(first_index, max_bytes)
            self._cached_slice = (key, LogSlice(first_index, self.runs(first_index, stop)))
        return self._cached_slice[1]

    def _stop_within(self, first_index: int, max_bytes: int) -> int:
        index, at = first_index, bisect_right(self._span_firsts, first_index)
        while index <= self.last_index:
            stop = self._span_firsts[at] if at < len(self._spans) else self.last_index + 1
            size = self.bytes_between(index, stop)
            if size > max_bytes:
                return max(first_index + 1, index + self._count_within(index, stop, max_bytes))
            max_bytes -= size + RUN_OVERHEAD_BYTES
            index, at = stop, at + 1
        return index

    def _count_within(self, first_index: int, stop_index: int, max_bytes: int) -> int:
        """How many of the entries `[first_index, stop_index)` weigh at most `max_bytes`."""
        start, stop = first_index - self.base_index - 1, stop_index - self.base_index - 1
        lengths = map(len, self._commands[start:stop])
        return bisect_right(list(accumulate(map(ENTRY_OVERHEAD_BYTES.__add__, lengths))), max_bytes)

    def weight(self, entries: LogSlice) -> int:
        """What a message with this slice of this log weighs."""
        more_runs = max(0, len(entries.runs) - 1)
        return self.bytes_between(entries.first_index, entries.stop_index) + RUN_OVERHEAD_BYTES * more_runs

    def bytes_between(self, first_index: int, stop_index: int) -> int:
        """What the entries `[first_index, stop_index)` weigh, `ENTRY_OVERHEAD_BYTES` each included."""
        start, stop = first_index - self.base_index - 1, stop_index - self.base_index - 1
        return sum(map(len, self._commands[start:stop])) + ENTRY_OVERHEAD_BYTES * (stop - start)

    def runs(self, first_index: int, stop_index: int) -> list[EntryRun]:
        """The entries `[first_index, stop_index)`, all of which must be here, as new runs."""
        assert self.base_index < first_index <= stop_index <= self.last_index + 1, (first_index, stop_index)
        runs: list[EntryRun] = []
        at = bisect_right(self._span_firsts, first_index) - 1
        index = first_index
        while index < stop_index:
            span = self._spans[at]
            at += 1
            stop = min(stop_index, self._span_firsts[at]) if at < len(self._spans) else stop_index
            commands = self._commands[index - self.base_index - 1 : stop - self.base_index - 1]
            runs.append(EntryRun(index, span.term, span.kind, span.time_ms, commands))
            index = stop
        return runs

    def take_unwritten(self) -> list[EntryRun]:
        """What the disk has not been given yet, and now is; the runs that were received or sent, if they fit."""
        first_index = self.written_index + 1
        received, self._received = self._received, []
        if first_index > self.last_index:
            return []
        self.written_index = self.last_index
        sent = self._cached_slice[1].runs if self._cached_slice else ()
        for runs in (received, sent):
            if runs and (runs[0].first_index, runs[-1].last_index) == (first_index, self.last_index):
                return list(runs)
        return self.runs(first_index, self.last_index + 1)

    def made_durable(self, last_index: int, last_term: int) -> None:
        """
        The disk now holds the log up to `last_index`, whose entry had `last_term` when the write was begun.

        Entries that were replaced while the write was under way do not count: the term tells them apart.
        """
        if self.term(last_index) == last_term:
            self.durable_index = max(self.durable_index, last_index)
