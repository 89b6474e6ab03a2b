"""Client histories: what is recorded, and the lines that another checker reads."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from txraft.testing.history import HistoryRecorder, Operation, from_json_lines, to_json_lines

ALL_BYTES = bytes(range(256))


class RecorderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now_ns = 0
        self.recorder = HistoryRecorder(lambda: self.now_ns)

    def test_an_operation_has_the_times_of_its_call_and_return(self) -> None:
        self.now_ns = 10
        call = self.recorder.call(b"k", "write", b"v")
        self.now_ns = 30
        call.returned(True)
        self.assertEqual(self.recorder.history(), [Operation(0, b"k", "write", b"v", True, 10, 30)])

    def test_an_operation_that_never_returns_stays_open(self) -> None:
        self.recorder.call(b"k", "write", b"v")
        (operation,) = self.recorder.history()
        self.assertTrue(operation.is_open)
        self.assertEqual((operation.result, operation.return_ns), (None, None))

    def test_an_operation_without_effect_leaves_the_history(self) -> None:
        kept, refused = self.recorder.call(b"k", "write", b"1"), self.recorder.call(b"k", "write", b"2")
        refused.refused()
        kept.returned(True)
        self.assertEqual([operation.argument for operation in self.recorder.history()], [b"1"])

    def test_events_of_one_moment_have_times_in_their_order(self) -> None:
        first = self.recorder.call(b"k", "write", b"1")
        first.returned(True)
        self.recorder.call(b"k", "read")
        one, two = self.recorder.history()
        self.assertLess(one.return_ns, two.call_ns)

    def test_a_process_does_one_operation_at_a_time_and_none_after_an_open_one(self) -> None:
        first, _open, third = (self.recorder.call(b"k", "read") for _ in range(3))
        third.returned(b"")
        first.refused()
        for _ in range(3):
            self.recorder.call(b"k", "read")
        self.assertEqual([operation.process for operation in self.recorder.history()], [1, 2, 0, 2, 3])

    def test_an_operation_ends_once(self) -> None:
        call = self.recorder.call(b"k", "read")
        call.returned(b"1")
        self.assertRaises(ValueError, call.returned, b"2")
        self.assertRaises(ValueError, call.refused)
        refused = self.recorder.call(b"k", "read")
        refused.refused()
        self.assertRaises(ValueError, refused.returned, b"2")

    def test_nothing_is_not_a_result(self) -> None:
        call = self.recorder.call(b"k", "read")
        self.assertRaises(ValueError, call.returned, None)

    def test_half_an_outcome_and_a_return_before_the_call_are_refused(self) -> None:
        for result, return_ns in [(None, 5), (b"", None), (b"", 3)]:
            self.assertRaises(ValueError, Operation, 0, b"k", "read", None, result, 4, return_ns)


HISTORY = [
    Operation(0, b"k", "write", ALL_BYTES, True, 5, 1_700_000_000_000_000_000),
    Operation(1, ALL_BYTES, "cas", (b"1", b"\n"), False, 6, 6),
    Operation(2, b"k", "write", b"", None, 7, None),
    Operation(3, b"n", "add", -3, 10**30, 8, 9),
    Operation(4, b"l", "read", None, (b"a", (1, True)), 10, 11),
]


class JsonLinesTests(SynchronousTestCase):
    def test_each_line_is_one_operation_with_the_keys_that_other_checkers_read(self) -> None:
        text = to_json_lines([Operation(3, b"k\xff", "cas", (b"a", b"b"), True, 5, 9), HISTORY[2]])
        self.assertEqual(
            text,
            '{"process": 3, "key": "k\\u00ff", "operation": "cas", "argument": ["a", "b"], "result": true, '
            '"call": 5, "return": 9}\n'
            '{"process": 2, "key": "k", "operation": "write", "argument": "", "result": null, '
            '"call": 7, "return": null}\n',
        )

    def test_a_plain_reader_of_json_finds_every_operation(self) -> None:
        """What a checker in another language does: one line, one object, integers, null for unknown."""
        text = to_json_lines(HISTORY)
        self.assertTrue(text.isascii())
        for line, operation in zip(text.split("\n"), HISTORY, strict=False):
            found = json.loads(line)
            self.assertEqual(list(found), ["process", "key", "operation", "argument", "result", "call", "return"])
            self.assertEqual((found["call"], found["return"]), (operation.call_ns, operation.return_ns))
            self.assertEqual(found["result"] is None, operation.is_open)
            self.assertEqual(bytes(map(ord, found["key"])), operation.key)

    def test_what_was_exported_is_imported_as_it_was(self) -> None:
        self.assertEqual(from_json_lines(to_json_lines(HISTORY)), HISTORY)

    def test_only_a_newline_ends_a_line(self) -> None:
        """Another tool may write \\x85 or U+2028 as they are; Python's splitlines ends a line at both."""
        text = json.dumps(json.loads(to_json_lines(HISTORY[:1])), ensure_ascii=False)
        self.assertEqual(from_json_lines(text), HISTORY[:1])
        self.assertEqual(from_json_lines(""), [])

    def test_what_json_cannot_say_is_not_exported(self) -> None:
        for value in ["text", 1.5, {1}, (b"", "text")]:
            self.assertRaises(TypeError, to_json_lines, [Operation(0, b"", "write", value, True, 0, 1)])

    def test_a_wrong_line_is_refused_with_its_number(self) -> None:
        good = to_json_lines(HISTORY[:1])
        changes = {
            "process": ["1", 1.0, True, None],
            "key": [None, 1, "\u0100"],
            "operation": [None],
            "argument": [1.5, {}, "\u0100", [1.5]],
            "result": [None, 1.5],
            "call": [None, "5"],
            "return": [None, 1.5, 4, "5"],
        }
        wrong = ["", "nonsense", "[]", "{}", good.replace("process", "proces"), good.replace("{", '{"extra": 1, ')]
        for name, values in changes.items():
            wrong += [json.dumps(json.loads(good) | {name: value}) for value in values]
        for line in wrong:
            error = self.assertRaises(ValueError, from_json_lines, good + line.rstrip() + "\n" + good)
            self.assertIn("line 2", str(error))
