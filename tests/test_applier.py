"""How much a server applies in one turn: what the machine takes counts, and what the sessions take."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from txraft.core.log import EntryKind, Log
from txraft.node.applier import Applier
from txraft.node.waiters import Proposals
from txraft.sessions import Opening, SessionCommand, SessionTable
from txraft.testing.recording import RecordingMachine

SLICE_S = 0.01
COUNT = 5000


class SlowMachine(RecordingMachine):
    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
        self._clock.advance(self._seconds * len(commands))
        return super().apply(first_index, commands, time_ms)


class SlowTable(SessionTable):
    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds

    def admit(self, entry: SessionCommand) -> object:
        self._clock.advance(self._seconds)
        return super().admit(entry)


def turns_of(kind: EntryKind, commands: list[bytes], machine_s: float, table_s: float) -> list[tuple[float, int]]:
    """How long each turn took, and how many entries it applied."""
    clock = Clock()
    log = Log()
    log.append(1, kind, 0, commands)
    raft: Any = SimpleNamespace(log=log, applied_index=0)
    raft.applied = lambda index: setattr(raft, "applied_index", index)
    table = SlowTable(clock, table_s)
    applier = Applier(SlowMachine(clock, machine_s), table, Proposals(), clock, SLICE_S)
    turns = []
    while raft.applied_index < log.last_index:
        began, index = clock.seconds(), raft.applied_index
        applier.apply_until(raft, log.last_index, began + SLICE_S)
        turns.append((clock.seconds() - began, raft.applied_index - index))
    return turns


def session_commands(repeated: bool) -> list[bytes]:
    commands = [
        SessionCommand((1, 1), 1 if repeated else number, 1 if repeated else number, b"x") for number in range(1, COUNT)
    ]
    return [Opening(1, 1, 10).encode(), *(each.encode() for each in commands)]


CASES = {
    "commands": (EntryKind.COMMAND, [b"x"] * COUNT, 1.0, 0.0),
    "commands in a session": (EntryKind.SESSION, session_commands(repeated=False), 1.0, 0.0),
    "the table of sessions": (EntryKind.SESSION, session_commands(repeated=False), 0.0, 1.0),
    "repetitions, which no machine sees": (EntryKind.SESSION, session_commands(repeated=True), 0.0, 1.0),
    "both": (EntryKind.SESSION, session_commands(repeated=False), 0.5, 0.5),
}


@pytest.mark.parametrize("case", CASES)
def test_a_turn_takes_no_longer_than_its_slice_whatever_takes_it(case):
    kind, commands, of_machine, of_table = CASES[case]
    each_s = 0.0002
    turns = turns_of(kind, commands, each_s * of_machine, each_s * of_table)
    # A run that begins just before the slice ends takes half a slice more.
    assert max(seconds for seconds, _ in turns) <= SLICE_S * 1.6
    assert len(turns) <= 2 * COUNT * each_s / SLICE_S, "nor much less"


@pytest.mark.parametrize("case", CASES)
def test_what_takes_no_time_is_applied_in_large_runs(case):
    kind, commands, _, _ = CASES[case]
    assert [count for _, count in turns_of(kind, commands, 0.0, 0.0)] == [COUNT]


@pytest.mark.parametrize("case", CASES)
def test_what_is_slow_alone_is_applied_one_at_a_time(case):
    kind, commands, of_machine, of_table = CASES[case]
    turns = turns_of(kind, commands[:200], of_machine, of_table)
    assert [count for _, count in turns[2:]] == [1] * len(turns[2:])
