"""The kv machine as a value: commands in, results and snapshots out."""

from __future__ import annotations

import random
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txraft.images import IPreparedRestore, IRestoring, ISnapshotImage
from txraft.interfaces import IStateMachine
from txraft.machines import kv_encoding as encoding
from txraft.machines.kv import (
    CORRUPT,
    NOT_AN_INTEGER,
    TOO_LONG,
    WOULD_OVERFLOW,
    KeyValueMachine,
    Status,
)
from txraft.machines.kv_encoding import Ask, Op, SetFlag
from txraft.machines.kv_image import SNAPSHOT_CHUNK_BYTES

AWKWARD = [b"", b"\x00", b"\r\n", b" ", b"*1\r\n$1\r\n", bytes(range(256)), b"\xff" * 300]


def apply_one(machine: KeyValueMachine, command: bytes) -> object:
    return machine.apply(machine.applied_index + 1, [command], 0)[0]


def get(machine: KeyValueMachine, key: bytes) -> object:
    return machine.query(encoding.GET_PREFIX + key)


def machine_of(**pairs: str) -> KeyValueMachine:
    machine = KeyValueMachine()
    for key, value in pairs.items():
        apply_one(machine, encoding.pack_set(key.encode(), value.encode()))
    return machine


def scan_all(machine: KeyValueMachine, count: int, between: object = None) -> list[bytes]:
    """All keys of a whole scan, with duplicates; `between` is called after each page."""
    cursor, found = 0, []
    while True:
        following, keys = machine.query(encoding.pack_scan(cursor, count, b"*"))  # type: ignore[misc]
        found += keys
        cursor = int(following)
        if not cursor:
            return found
        assert len(found) < 10_000, "the scan does not end"
        if callable(between):
            between()


class ApplyTests(SynchronousTestCase):
    def test_it_is_a_state_machine(self) -> None:
        verifyObject(IStateMachine, KeyValueMachine())

    def test_any_byte_may_be_in_keys_and_values(self) -> None:
        """T12"""
        for key in AWKWARD:
            for value in AWKWARD:
                machine = KeyValueMachine()
                self.assertIs(apply_one(machine, encoding.pack_set(key, value)), True)
                self.assertEqual(get(machine, key), value)

    def test_set_under_a_condition(self) -> None:
        flags_present_result_after = [
            (SetFlag(0), False, True, b"new"),
            (SetFlag(0), True, True, b"new"),
            (SetFlag.IF_ABSENT, False, True, b"new"),
            (SetFlag.IF_ABSENT, True, None, b"old"),
            (SetFlag.IF_PRESENT, False, None, None),
            (SetFlag.IF_PRESENT, True, True, b"new"),
            (SetFlag.RETURN_OLD, False, None, b"new"),
            (SetFlag.RETURN_OLD, True, b"old", b"new"),
            (SetFlag.RETURN_OLD | SetFlag.IF_ABSENT, True, b"old", b"old"),
            (SetFlag.RETURN_OLD | SetFlag.IF_ABSENT, False, None, b"new"),
            (SetFlag.RETURN_OLD | SetFlag.IF_PRESENT, True, b"old", b"new"),
            (SetFlag.RETURN_OLD | SetFlag.IF_PRESENT, False, None, None),
        ]
        for flags, is_present, result, after in flags_present_result_after:
            machine = machine_of(k="old") if is_present else KeyValueMachine()
            self.assertEqual(
                apply_one(machine, encoding.pack_set_with(b"k", b"new", flags)), result, (flags, is_present)
            )
            self.assertEqual(get(machine, b"k"), after, (flags, is_present))

    def test_set_new_counts(self) -> None:
        machine = KeyValueMachine()
        command = encoding.pack_keyed(Op.SET_NEW, b"k", b"1")
        self.assertEqual([apply_one(machine, command), apply_one(machine, command)], [1, 0])

    def test_delete_counts_each_key_once(self) -> None:
        machine = machine_of(a="", b="1")
        self.assertEqual(apply_one(machine, encoding.pack_fields(Op.DELETE, [b"a", b"a", b"b", b"c"])), 2)
        self.assertEqual(len(machine), 0)

    def test_one_command_may_set_many(self) -> None:
        machine = KeyValueMachine()
        self.assertIs(apply_one(machine, encoding.pack_fields(Op.SET_MANY, [b"a", b"1", b"b", b"2", b"a", b"3"])), True)
        self.assertEqual([get(machine, b"a"), get(machine, b"b")], [b"3", b"2"])

    def test_increment_is_decimal_text_of_64_bits(self) -> None:
        for before, amount, result in [
            (None, 1, 1),
            ("41", 1, 42),
            ("1", -2, -1),
            (str(2**63 - 1), 1, WOULD_OVERFLOW),
            (str(-(2**63)), -1, WOULD_OVERFLOW),
            (str(2**63 - 2), 1, 2**63 - 1),
            (str(2**63), 1, NOT_AN_INTEGER),
            ("", 1, NOT_AN_INTEGER),
            (" 1", 1, NOT_AN_INTEGER),
            ("+1", 1, NOT_AN_INTEGER),
            ("01", 1, NOT_AN_INTEGER),
            ("-0", 1, NOT_AN_INTEGER),
            ("1_0", 1, NOT_AN_INTEGER),
            ("\u0661", 1, NOT_AN_INTEGER),
            ("9" * 5000, 1, NOT_AN_INTEGER),
        ]:
            machine = KeyValueMachine() if before is None else machine_of(k=before)
            self.assertEqual(apply_one(machine, encoding.pack_increment(b"k", amount)), result, before)
            after = b"%d" % result if isinstance(result, int) else before.encode()
            self.assertEqual(get(machine, b"k"), after)

    def test_append_obeys_the_limit_in_the_command(self) -> None:
        """The limit is the proposer's: servers with other configurations must come to the same state."""
        machine = KeyValueMachine()
        self.assertEqual(apply_one(machine, encoding.pack_append(b"k", b"abc", 5)), 3)
        self.assertEqual(apply_one(machine, encoding.pack_append(b"k", b"de", 5)), 5)
        self.assertEqual(apply_one(machine, encoding.pack_append(b"k", b"f", 5)), TOO_LONG)
        self.assertEqual(get(machine, b"k"), b"abcde")

    def test_flush_empties(self) -> None:
        machine = machine_of(a="1")
        self.assertIs(apply_one(machine, bytes([Op.FLUSH])), True)
        self.assertEqual(len(machine), 0)

    def test_bytes_that_are_no_command_are_answered_and_change_nothing(self) -> None:
        """T03: a bad log must not stop a cluster."""
        machine = machine_of(a="1")
        before = machine.snapshot()
        corrupt = [
            b"",
            b"\x00",
            b"\xff",
            bytes([Op.SET]),
            bytes([Op.SET]) + b"\0\0\0",
            bytes([Op.SET]) + b"\0\0\0\x05abcd",
            bytes([Op.SET]) + b"\xff\xff\xff\xffabcd",
            encoding.pack_keyed(Op.SET_WITH, b"a", b""),
            encoding.pack_keyed(Op.SET_WITH, b"a", b"\x08v"),
            encoding.pack_fields(Op.SET_MANY, [b"a", b"1", b"b"]),
            bytes([Op.DELETE]) + b"\0\0\0\x01a\0",
            bytes([Op.DELETE]) + b"\0\0\0\x02a",
            encoding.pack_keyed(Op.INCREMENT, b"n", b"1"),
            encoding.pack_keyed(Op.APPEND, b"a", b"123"),
        ]
        self.assertEqual([apply_one(machine, command) for command in corrupt], [CORRUPT] * len(corrupt))
        machine.applied_index -= len(corrupt)
        self.assertEqual(machine.snapshot(), before)

    def test_a_batch_gives_one_result_for_each_command_in_order(self) -> None:
        machine = KeyValueMachine()
        commands = [encoding.pack_increment(b"n", 1), b"?", encoding.pack_increment(b"n", 5)]
        self.assertEqual(machine.apply(7, commands, 0), [1, CORRUPT, 6])
        self.assertEqual(machine.applied_index, 9)


class QueryTests(SynchronousTestCase):
    def test_bytes_that_are_no_request_are_answered(self) -> None:
        machine = machine_of(a="1")
        for request in [b"", b"\x00", bytes([Ask.EXISTS]) + b"\0\0\0\x09a", bytes([Ask.SCAN]) + b"123"]:
            self.assertEqual(machine.query(request), CORRUPT)

    def test_reads(self) -> None:
        machine = machine_of(a="12", b="")
        for request, result in [
            (bytes([Ask.LENGTH]) + b"a", 2),
            (bytes([Ask.LENGTH]) + b"x", 0),
            (bytes([Ask.TYPE]) + b"b", Status(b"string")),
            (bytes([Ask.TYPE]) + b"x", Status(b"none")),
            (encoding.pack_fields(Ask.EXISTS, [b"a", b"a", b"b", b"x"]), 3),
            (encoding.pack_fields(Ask.GET_MANY, [b"a", b"x", b"b"]), [b"12", None, b""]),
            (bytes([Ask.KEYS]) + b"[^b]", [b"a"]),
            (bytes([Ask.SIZE]), 2),
        ]:
            self.assertEqual(machine.query(request), result)

    def test_a_scan_gives_every_key_once_if_nothing_changes(self) -> None:
        machine = machine_of(**{f"key{number}": "" for number in range(1000)})
        for count in (1, 7, 999, 1000, 2**32 - 1):
            self.assertEqual(sorted(scan_all(machine, count)), sorted(machine._state))

    def test_a_scan_misses_no_key_that_was_there_throughout(self) -> None:
        rng = random.Random(5)
        machine = machine_of(**{f"stay{number}": "" for number in range(200)})
        stay = set(machine._state)

        def change() -> None:
            for _ in range(20):
                key = b"come%d" % rng.randrange(500)
                if rng.random() < 0.5:
                    apply_one(machine, encoding.pack_set(key, b""))
                else:
                    apply_one(machine, encoding.pack_fields(Op.DELETE, [key]))
            # Other scans begin meanwhile, and change what is kept of the order.
            machine.query(encoding.pack_scan(0, 1, b"*"))

        found = scan_all(machine, 3, change)
        self.assertEqual(stay - set(found), set())
        self.assertEqual(len([key for key in found if key in stay]), len(stay))

    def test_a_scan_goes_on_at_a_server_that_scanned_earlier(self) -> None:
        """What that server kept of its own scan is older than this one, and lacks keys."""
        machine, other = machine_of(a="", b=""), machine_of(a="", b="")
        scan_all(other, 10)
        for key in (b"c", b"d", b"e", b"f", b"g"):
            for each in (machine, other):
                apply_one(each, encoding.pack_set(key, b""))
        cursor, first = machine.query(encoding.pack_scan(0, 1, b"*"))  # type: ignore[misc]
        _, others = other.query(encoding.pack_scan(int(cursor), 100, b"*"))  # type: ignore[misc]
        self.assertEqual(sorted([*first, *others]), [b"a", b"b", b"c", b"d", b"e", b"f", b"g"])

    def test_a_scan_does_not_return_what_was_deleted_meanwhile(self) -> None:
        machine = machine_of(a="", b="", c="")
        cursor, first = machine.query(encoding.pack_scan(0, 1, b"*"))  # type: ignore[misc]
        apply_one(machine, bytes([Op.FLUSH]))
        self.assertEqual(len(first), 1)
        self.assertEqual(machine.query(encoding.pack_scan(int(cursor), 10, b"*")), [b"0", []])

    def test_a_cursor_that_nobody_gave_is_answered_without_sorting_again(self) -> None:
        machine = machine_of(a="", b="")
        scan_all(machine, 10)
        order = machine._scan_order
        for cursor in (1, 2**31, 2**63, 2**64 - 1):
            machine.query(encoding.pack_scan(cursor, 10, b"*"))
            self.assertIs(machine._scan_order, order)

    def test_a_scan_does_not_part_keys_of_one_hash(self) -> None:
        first, second = colliding_keys()
        machine = KeyValueMachine()
        for key in (first, second, b"x", b"y", b"z"):
            apply_one(machine, encoding.pack_set(key, b""))
        self.assertEqual(sorted(scan_all(machine, 1)), sorted([first, second, b"x", b"y", b"z"]))


def colliding_keys() -> tuple[bytes, bytes]:
    """Two keys of one CRC: the CRC is linear, so any change whose own CRC is that of zeros does it."""
    base = crc32(bytes(8))
    # The polynomial itself, shifted, is such a change.
    for shift in range(32):
        change = (0x1DB710641 << shift).to_bytes(8, "little")
        if crc32(change) == base:
            return bytes(8), change
    raise AssertionError("no collision found")


class SnapshotTests(SynchronousTestCase):
    def test_restoring_a_snapshot_gives_the_same_machine(self) -> None:
        machine = KeyValueMachine()
        for key in AWKWARD:
            for value in AWKWARD:
                apply_one(machine, encoding.pack_set(key + value, value))
        other = machine_of(gone="1")
        other.restore(machine.snapshot())
        self.assertEqual(other._state, machine._state)
        self.assertEqual(other.applied_index, machine.applied_index)
        self.assertEqual(other.snapshot(), machine.snapshot())

    def test_an_image_is_the_snapshot_of_its_moment_whenever_its_chunks_are_made(self) -> None:
        """S08."""
        machine = KeyValueMachine()
        self.assertTrue(verifyObject(ISnapshotImage, machine))
        for number in range(3):
            apply_one(machine, encoding.pack_set(b"key %d" % number, b"x" * SNAPSHOT_CHUNK_BYTES))
        expected, image = machine.snapshot(), machine.image()
        chunks = [next(image)]
        apply_one(machine, encoding.pack_set(b"key 1", b"changed"))
        apply_one(machine, encoding.pack_fields(Op.FLUSH, []))
        chunks += image
        self.assertEqual(chunks, expected)
        self.assertGreater(len(chunks), 2)

    def test_later_changes_do_not_show_in_a_snapshot(self) -> None:
        """S08"""
        machine = machine_of(a="1")
        chunks = machine.snapshot()
        apply_one(machine, encoding.pack_set(b"a", b"2"))
        other = KeyValueMachine()
        other.restore(chunks)
        self.assertEqual(get(other, b"a"), b"1")

    def test_a_large_state_comes_in_chunks_and_where_they_are_cut_does_not_matter(self) -> None:
        machine = machine_of(**{str(number): "x" * 100_000 for number in range(40)})
        chunks = machine.snapshot()
        self.assertGreater(len(chunks), 2)
        self.assertLess(max(map(len, chunks)), SNAPSHOT_CHUNK_BYTES + 200_000)
        whole = b"".join(chunks)
        other = KeyValueMachine()
        other.restore([whole[start : start + 77_777] for start in range(0, len(whole), 77_777)])
        self.assertEqual(other._state, machine._state)

    def test_the_end_of_a_prepared_restore_copies_nothing(self) -> None:
        """S12: however large it is. What a step before it does, has a bound: a chunk."""
        machine = machine_of(**{str(number): "x" * 1000 for number in range(2000)})
        chunks, other = machine.snapshot(), KeyValueMachine()
        self.assertLess(max(map(len, chunks)), SNAPSHOT_CHUNK_BYTES + 2000)
        restoring = other.restoring()
        for chunk in chunks:
            restoring.add(chunk)
        made = restoring._state
        restoring.finish()
        self.assertIs(other._state, made)
        self.assertEqual(made, machine._state)

    def test_a_damaged_snapshot_is_refused_and_changes_nothing(self) -> None:
        whole = b"".join(machine_of(a="1", b="2").snapshot())
        machine = machine_of(old="1")
        before = machine.snapshot()
        damaged = [whole[:cut] for cut in range(len(whole))] + [whole + b"x", b"X" + whole[1:]]
        for data in damaged:
            self.assertRaises(ValueError, machine.restore, [data])
            self.assertEqual(machine.snapshot(), before)

    def test_a_restore_that_is_prepared_changes_nothing_before_its_end(self) -> None:
        """S08: whatever is applied meanwhile."""
        self.assertTrue(verifyObject(IPreparedRestore, KeyValueMachine()))
        expected = machine_of(a="1", b="2").snapshot()
        whole, machine = b"".join(expected), machine_of(old="1")
        self.assertTrue(verifyObject(IRestoring, machine.restoring()))
        for cut in range(len(whole)):
            restoring, before = machine.restoring(), machine.snapshot()
            restoring.add(whole[:cut])
            self.assertEqual(machine.snapshot(), before)
            self.assertRaises(ValueError, restoring.finish)
            apply_one(machine, encoding.pack_set(b"meanwhile", b"%d" % cut))
            restoring = machine.restoring()
            restoring.add(whole[:cut])
            restoring.add(whole[cut:])
        restoring.finish()
        self.assertEqual(machine.snapshot(), expected)

    def test_an_empty_machine_has_a_snapshot(self) -> None:
        machine = machine_of(a="1")
        machine.restore(KeyValueMachine().snapshot())
        self.assertEqual((len(machine), machine.applied_index), (0, 0))


KEYS = st.sampled_from([b"a", b"b", b"c", b""])
VALUES = st.sampled_from([b"", b"1", b"-7", b"text", b"\r\n\x00"])
COMMANDS = st.one_of(
    st.builds(encoding.pack_set, KEYS, VALUES),
    st.builds(encoding.pack_set_with, KEYS, VALUES, st.integers(0, 7).map(SetFlag)),
    st.builds(encoding.pack_increment, KEYS, st.integers(-(2**63), 2**63 - 1)),
    st.builds(encoding.pack_append, KEYS, VALUES, st.integers(0, 8)),
    st.builds(lambda keys: encoding.pack_fields(Op.DELETE, keys), st.lists(KEYS)),
    st.just(bytes([Op.FLUSH])),
    st.binary(max_size=12),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(COMMANDS, max_size=30), st.integers(0, 30))
def test_replay_is_the_same_as_a_snapshot_and_the_rest(commands: list[bytes], cut: int) -> None:
    """T04, S08: however the commands are batched, and wherever a snapshot was taken, state and results are the same."""
    cut = min(cut, len(commands))
    whole = KeyValueMachine()
    results = [apply_one(whole, command) for command in commands]
    first, second = KeyValueMachine(), KeyValueMachine()
    found = first.apply(1, commands[:cut], 5) if cut else []
    second.restore(first.snapshot())
    found += second.apply(cut + 1, commands[cut:], 9) if commands[cut:] else []
    assert found == results
    assert second.snapshot() == whole.snapshot()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_no_bytes_make_the_machine_raise(data: bytes) -> None:
    """T03"""
    machine = machine_of(a="1")
    for first in range(12):
        apply_one(machine, bytes([first]) + data)
        machine.query(bytes([first]) + data)
