"""Entries of sessions, carried out: whatever is new goes to the state machine, as many at a time as are neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from txraft.core.log import EntryRun
from txraft.errors import FatalError
from txraft.sessions import CARRY_OUT, Opening, SessionCommand, SessionTable, decode_entry

Apply = Callable[[int, Sequence[bytes], int], Sequence[object]]
"""See `IStateMachine.apply`."""


class SessionApplier:
    """Stands between one table and one machine, which knows nothing of sessions."""

    def __init__(self, table: SessionTable, apply: Apply) -> None:
        self._table = table
        self._apply = apply

    def apply(self, run: EntryRun) -> list[object]:
        """
        One result for each entry of a run of sessions; a `Failure` for what its client is refused.

        @raise FatalError: one of them is none that this version knows.
        """
        results: list[object] = []
        admitted: list[SessionCommand] = []
        for index, data in enumerate(run.commands, run.first_index):
            try:
                entry = decode_entry(data)
            except ValueError as error:
                raise FatalError(f"entry {index} cannot be carried out: {error}") from None
            if isinstance(entry, Opening) or self._table.is_pending(entry):
                self._carry_out(run, admitted, results)
            outcome = self._table.open(index, entry) if isinstance(entry, Opening) else self._table.admit(entry)
            if outcome is CARRY_OUT:
                assert isinstance(entry, SessionCommand)
                admitted.append(entry)
            else:
                # The machine is promised neighbours only.
                self._carry_out(run, admitted, results)
                results.append(outcome)
        self._carry_out(run, admitted, results)
        return results

    def _carry_out(self, run: EntryRun, admitted: list[SessionCommand], results: list[object]) -> None:
        """What was admitted follows what has a result already."""
        if admitted:
            first_index = run.first_index + len(results)
            made = self._apply(first_index, [entry.command for entry in admitted], run.time_ms)
            results += map(self._table.answer, admitted, made)
            admitted.clear()
