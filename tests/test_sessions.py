"""The table of sessions: decided by the log alone, the same on every server, however the log is cut into calls."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from twisted.python.failure import Failure

from txraft.core.log import EntryKind, EntryRun
from txraft.errors import AnswerNotKept, FatalError, Overloaded, SessionExpired
from txraft.node.in_sessions import SessionApplier
from txraft.sessions import (
    CHUNK_BYTES,
    MAX_SEQUENCE,
    Opening,
    SessionCommand,
    SessionTable,
    decode_entry,
    id_of,
    key_of,
)


class Machine:
    """A command's result is its place, with its bytes; `calls` are the indexes and how many they were given at once."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.calls: list[tuple[int, int]] = []

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> list[object]:
        self.calls.append((first_index, len(commands)))
        self.commands += commands
        place = len(self.commands) - len(commands)
        return [(place + at, command) for at, command in enumerate(commands, 1)]


class Replica:
    def __init__(self, max_sessions: int = 10, max_answers: int = 10) -> None:
        self.machine, self.table, self.index = Machine(), SessionTable(), 0
        self.applier = SessionApplier(self.table, lambda *call: self.machine.apply(*call))
        self.bounds = max_sessions, max_answers

    def apply(self, *entries: Opening | SessionCommand) -> list[object]:
        """The results; a refusal is the exception."""
        run = EntryRun(self.index + 1, 1, EntryKind.SESSION, 0, [entry.encode() for entry in entries])
        self.index = run.last_index
        return [each.value if isinstance(each, Failure) else each for each in self.applier.apply(run)]

    def open(self) -> str:
        [session_id] = self.apply(Opening(7, *self.bounds))
        assert isinstance(session_id, str)
        return session_id

    def propose(self, session_id: str, sequence: int, command: bytes = b"x", lowest: int = 1) -> object:
        [result] = self.apply(SessionCommand.of(session_id, sequence, lowest, command))
        return result


def image(table: SessionTable) -> bytes:
    return b"".join(table.image())


def test_a_command_that_comes_again_is_not_carried_out_and_has_the_same_answer():
    """C07."""
    replica = Replica()
    session = replica.open()
    assert [replica.propose(session, 1, b"a") for _ in range(3)] == [(1, b"a")] * 3
    assert replica.machine.commands == [b"a"]


def test_sequences_belong_to_their_session():
    """C08."""
    replica = Replica()
    one, other = replica.open(), replica.open()
    assert replica.propose(one, 1, b"a") == (1, b"a")
    assert replica.propose(other, 1, b"b") == (2, b"b")
    assert replica.propose(one, 1, b"a") == (1, b"a")


def test_the_machine_is_given_neighbours_only():
    """A repetition, an opening and a refusal have an index, and the machine is not given it."""
    replica = Replica()
    session = replica.open()
    one, two, three = (SessionCommand.of(session, number, 1, b"%d" % number) for number in (1, 2, 3))
    unknown = SessionCommand.of("1-00000000", 1, 1, b"no")
    results = replica.apply(one, two, one, three, Opening(1, 10, 10), unknown, SessionCommand.of(session, 4, 1, b"4"))
    assert replica.machine.calls == [(2, 2), (5, 1), (8, 1)]
    assert results[:4] == [(1, b"1"), (2, b"2"), (1, b"1"), (3, b"3")]
    assert results[4] == "6-00000001"
    assert isinstance(results[5], SessionExpired)
    assert results[6] == (4, b"4")


def test_an_answer_that_the_client_has_had_is_dropped_and_the_command_is_not_carried_out_again():
    replica = Replica()
    session = replica.open()
    for sequence in (1, 2, 3):
        replica.propose(session, sequence, lowest=sequence)
    assert isinstance(replica.propose(session, 2), AnswerNotKept)
    assert len(replica.machine.commands) == 3
    assert replica.propose(session, 3) == (3, b"x")


def test_a_session_that_was_never_opened_or_belongs_to_another_cluster_is_refused():
    """S05: an index that two clusters have used, one of them restored, names a session of each."""
    replica = Replica()
    session = replica.open()
    index, nonce = key_of(session)
    for unknown in (id_of((index, nonce + 1)), id_of((index + 1, nonce))):
        refused = replica.propose(unknown, 1)
        assert isinstance(refused, SessionExpired)
        assert refused.session_id == unknown
    assert replica.machine.commands == []


def test_the_least_recently_used_session_makes_room():
    """C08: a repetition and a refusal are uses, too; the order is that of the log."""
    replica = Replica(max_sessions=3)
    one, two, three = replica.open(), replica.open(), replica.open()
    replica.propose(one, 1)
    replica.propose(two, 1)
    replica.propose(one, 1)
    replica.open()
    assert isinstance(replica.propose(three, 1), SessionExpired)
    replica.open()
    assert isinstance(replica.propose(two, 1), SessionExpired)
    assert replica.propose(one, 1) == (1, b"x")
    assert len(replica.table) == 3


def test_a_lower_bound_of_sessions_counts_when_the_next_is_opened():
    replica = Replica(max_sessions=5)
    for _ in range(5):
        replica.open()
    replica.bounds = (2, 10)
    replica.open()
    assert len(replica.table) == 2


def test_what_a_session_keeps_has_a_bound_and_a_refused_command_is_not_carried_out():
    replica = Replica(max_answers=2)
    session = replica.open()
    replica.propose(session, 1)
    replica.propose(session, 2)
    refused = replica.propose(session, 3)
    assert isinstance(refused, Overloaded)
    assert (refused.bound, refused.limit) == ("max_session_answers", 2)
    assert replica.propose(session, 2) == (2, b"x")
    assert replica.propose(session, 3, lowest=2) == (3, b"x")


def test_a_command_that_is_waited_for_is_never_kept_out_by_those_behind_it():
    replica = Replica(max_answers=3)
    session = replica.open()
    for sequence in (2, 3):
        replica.propose(session, sequence)
    assert isinstance(replica.propose(session, 4), Overloaded)
    assert replica.propose(session, 1) == (3, b"x")


def test_a_result_that_cannot_be_kept_is_an_error_each_time_and_stops_nobody():
    replica = Replica()
    session = replica.open()
    replica.machine.apply = lambda first_index, commands, time_ms: [1.5 for _ in commands]
    for _ in range(2):
        refused = replica.propose(session, 1)
        assert isinstance(refused, AnswerNotKept)
        assert str(refused) == "the command was carried out, but a result of type float cannot be kept"


def random_entries(rng: random.Random, count: int) -> list[Opening | SessionCommand]:
    entries: list[Opening | SessionCommand] = []
    for index in range(1, count + 1):
        if index < 3 or rng.random() < 0.1:
            entries.append(Opening(index, rng.choice((2, 3, 3)), rng.choice((1, 3))))
        else:
            opened = rng.choice([at for at, entry in enumerate(entries, 1) if isinstance(entry, Opening)][-4:])
            sequence = rng.randint(1, 6)
            lowest = rng.randint(1, sequence)
            entries.append(SessionCommand((opened, opened), sequence, lowest, b"%d" % index))
    return entries


@pytest.mark.parametrize("seed", range(60))
def test_however_the_log_is_cut_tables_answers_and_machines_are_the_same(seed):
    """C08, C14: also through a snapshot at any place."""
    rng = random.Random(seed)
    entries = random_entries(rng, 120)
    one_by_one, cut = Replica(), Replica()
    expected = [repr(result) for entry in entries for result in one_by_one.apply(entry)]
    found, start = [], 0
    while start < len(entries):
        stop = start + rng.randint(1, 30)
        found += map(repr, cut.apply(*entries[start:stop]))
        start = stop
        if rng.random() < 0.3:
            restored = SessionTable()
            for chunk in cut.table.image():
                restored.add(chunk)
            cut.table.become(restored)
    assert found == expected
    assert cut.machine.commands == one_by_one.machine.commands
    assert image(cut.table) == image(one_by_one.table)
    assert len(one_by_one.machine.commands) > 10


def test_an_image_is_of_its_moment():
    """S08."""
    replica = Replica()
    session = replica.open()
    replica.propose(session, 1)
    other = replica.open()
    expected, later = image(replica.table), replica.table.image()
    replica.propose(session, 2, lowest=2)
    replica.propose(session, 3)
    replica.open()
    again, latest = image(replica.table), replica.table.image()
    replica.propose(other, 1)
    replica.propose(session, 3, lowest=3)
    assert b"".join(later) == expected
    assert b"".join(latest) == again


def test_a_large_table_is_many_chunks():
    replica = Replica(max_sessions=20_000)
    for _ in range(20_000):
        replica.open()
    session = replica.open()
    replica.machine.apply = lambda first_index, commands, time_ms: [b"y" * 60_000]
    replica.propose(session, 1)
    replica.propose(session, 2)
    chunks = [*replica.table.image()]
    assert len(chunks) > 5
    assert max(map(len, chunks)) < 2 * CHUNK_BYTES
    restored = SessionTable()
    for chunk in chunks:
        restored.add(chunk)
    assert image(restored) == b"".join(chunks)
    assert [*SessionTable().image()] == []


def test_what_is_no_image_is_refused():
    replica = Replica()
    session = replica.open()
    replica.propose(session, 1)
    whole = image(replica.table)
    header = 1 + 8 + 4 + 8 + 4
    for stop in {*range(1, len(whole))} - {header}:
        with pytest.raises(ValueError, match=r"answer|sessions"):
            SessionTable().add(whole[:stop])
    for wrong in (b"?", whole[header:], whole + b"?"):
        with pytest.raises(ValueError, match="unknown"):
            SessionTable().add(wrong)


def test_entries_are_bytes_and_back():
    for entry in (Opening(1, 2, 3), SessionCommand((1, 2), MAX_SEQUENCE, 4, b""), SessionCommand((9, 0), 1, 1, b"ab")):
        assert decode_entry(entry.encode()) == entry
    for wrong in (b"", b"?", b"o", Opening(1, 2, 3).encode() + b"x", SessionCommand((1, 2), 1, 1, b"").encode()[:-1]):
        with pytest.raises(ValueError, match="does not know"):
            decode_entry(wrong)


def test_an_entry_of_another_version_stops_the_server_and_is_named():
    replica = Replica()
    replica.open()
    with pytest.raises(FatalError, match=r"entry 2 cannot be carried out: .* does not know, b'z' and 2 bytes"):
        replica.applier.apply(EntryRun(2, 1, EntryKind.SESSION, 0, [b"z??"]))


@pytest.mark.parametrize(
    "session_id", ["", "1", "0-00000000", "1-0000000g", "1-00000000 ", "-1-00000000", "1-0000000\u0661"]
)
def test_what_is_no_id_is_refused(session_id):
    with pytest.raises(ValueError, match="hexadecimal"):
        SessionCommand.of(session_id, 1, 1, b"x")


@pytest.mark.parametrize(("sequence", "lowest"), [(0, 0), (1, 0), (1, 2), (MAX_SEQUENCE + 1, 1), (-1, -1)])
def test_what_is_no_sequence_is_refused(sequence, lowest):
    with pytest.raises(ValueError, match="1 <= lowest <= sequence"):
        SessionCommand.of("1-00000000", sequence, lowest, b"x")


@pytest.mark.parametrize(("sequence", "lowest"), [(1.0, 1), (1, 1.0), ("1", 1)])
def test_a_sequence_that_is_no_integer_is_refused_before_it_is_in_any_log(sequence, lowest):
    with pytest.raises(TypeError, match=r"a sequence is an int, not (float|str)"):
        SessionCommand.of("1-00000000", sequence, lowest, b"x")


class Answers(dict[int, bytes]):
    """`looked_at` counts how many of them somebody has come by."""

    looked_at = 0

    def __iter__(self):
        for key in super().__iter__():
            self.looked_at += 1
            yield key

    def pop(self, *key):
        self.looked_at += 1
        return super().pop(*key)


@pytest.mark.parametrize("lowest", [2, 998, MAX_SEQUENCE])
def test_answers_that_are_not_wanted_any_more_are_found_by_the_shorter_way(lowest):
    replica = Replica(max_answers=1000)
    key = key_of(replica.open())
    few = {1, 2, 998, 999}
    for kept, most in ((range(1, 1000), min(lowest, 1000)), (few, len(few))):
        session = replica.table._sessions[key]
        session.lowest, session.answers = 1, Answers(dict.fromkeys(kept, b"N"))
        session.raise_lowest(lowest)
        assert set(dict.keys(session.answers)) == {each for each in kept if each >= lowest}
        assert session.answers.looked_at <= most


def test_who_only_looks_at_the_chunks_of_a_table_makes_nobody_copy_a_session():
    replica = Replica()
    session = replica.open()
    replica.propose(session, 1)
    [before] = replica.table._sessions.values()
    assert b"".join(replica.table.chunks()) == image(replica.table)
    replica.propose(session, 2)
    [copied] = replica.table._sessions.values()
    assert copied is not before
    [*replica.table.chunks()]
    replica.propose(session, 3)
    assert [*replica.table._sessions.values()] == [copied]
