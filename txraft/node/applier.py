"""Gives committed entries to the state machine, in slices of time, so that heartbeats are never late because of it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from txraft.core.log import EntryKind, EntryRun
from txraft.core.raft import Raft
from txraft.errors import MachineError
from txraft.interfaces import IStateMachine
from txraft.node.in_sessions import SessionApplier
from txraft.node.waiters import Proposals
from txraft.sessions import SessionTable

MAX_CHUNK = 4096
"""Commands given to the state machine in one call at most; fewer while it turns out to be slow."""

FIRST_CHUNK = 16
"""The first call's: nobody knows yet how slow the machine is. Later ones may be this many times larger each."""


class Applier:
    """
    One state machine, and the sessions of its clients. A slice takes about `slice_s` seconds at most: how many commands
    that is, adapts to how long both take.

    :raises MachineError: from `apply_until`; the machine raised, or broke its contract, at the entries it names.
    """

    def __init__(
        self,
        machine: IStateMachine,
        sessions: SessionTable,
        proposals: Proposals,
        clock: IReactorTime,
        slice_s: float,
    ) -> None:
        self._machine = machine
        self._in_sessions = SessionApplier(sessions, self._apply)
        self._proposals = proposals
        self._clock = clock
        self._slice_s = slice_s
        self._chunk = FIRST_CHUNK

    def apply_until(self, raft: Raft, index: int, deadline: float) -> None:
        """Apply and answer committed entries up to `index`, until `deadline` (clock seconds), but at least one run."""
        while raft.applied_index < index:
            stop_index = min(index, raft.applied_index + self._chunk) + 1
            for run in raft.log.runs(raft.applied_index + 1, stop_index):
                results = self._results(run)
                raft.applied(run.last_index)
                # Also with no results: what a no-op has replaced is lost.
                self._proposals.answer(run, results)
                if self._clock.seconds() >= deadline:
                    return

    def _results(self, run: EntryRun) -> Sequence[object]:
        began = self._clock.seconds()
        if run.kind is EntryKind.COMMAND:
            results = self._apply(run.first_index, run.commands, run.time_ms)
        elif run.kind is EntryKind.SESSION:
            # Also what the table of sessions takes counts.
            results = self._in_sessions.apply(run)
        else:
            return ()
        self._adapt(len(run.commands), self._clock.seconds() - began)
        return results

    def _apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        count = len(commands)
        entries = f"entry {first_index}" if count == 1 else f"entries {first_index} to {first_index + count - 1}"
        try:
            results: Sequence[object] = self._machine.apply(first_index, commands, time_ms)
        except Exception as error:
            raise MachineError(f"the state machine raised {type(error).__name__} at {entries}") from error
        if not isinstance(results, Sequence) or len(results) != count:
            raise MachineError(f"the state machine did not give one result for each command at {entries}")
        return results

    def _adapt(self, count: int, seconds: float) -> None:
        """Aim at half a slice, going by the last run."""
        fitting = int(count * self._slice_s / 2 / seconds) if seconds > 0 else MAX_CHUNK
        self._chunk = max(1, min(fitting, self._chunk * FIRST_CHUNK, MAX_CHUNK))
