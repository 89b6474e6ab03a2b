"""
The checker against histories whose verdict is known, and against one that tries everything.

A history is text, one operation a line: `<call>-<return> <operation> <arguments> = <result>`; `-?` and no result for an
unknown outcome, `key:` before the operation where it matters.
"""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from txraft.testing.history import Operation
from txraft.testing.linearizability import Linearizable, Model, NotLinearizable, Undecided, check, require_linearizable
from txraft.testing.models import AppendList, Counter, Register

RESULTS = {"true": True, "false": False, '""': b""}


def history(text: str) -> list[Operation]:
    return [operation(number, line.split()) for number, line in enumerate(text.strip().splitlines())]


def operation(process: int, words: Sequence[str]) -> Operation:
    times, name, *arguments = words
    call, _, returned = times.partition("-")
    result = value(arguments[-1]) if "=" in arguments else None
    arguments = arguments[: arguments.index("=")] if "=" in arguments else arguments
    key, _, name = name.rpartition(":")
    values = tuple(value(word) for word in arguments)
    argument = values if name == "cas" else values[0] if values else None
    return Operation(
        process, key.encode(), name, argument, result, int(call), None if returned == "?" else int(returned)
    )


def value(word: str) -> Any:
    if word.lstrip("-").isdigit():
        return int(word)
    if word.startswith("["):
        return tuple(int(part) for part in word.strip("[]").split(",") if part)
    return RESULTS.get(word, word.encode())


GOOD = {
    "nothing at all": "",
    "reads of what was written": "0-1 write a = true \n 2-3 read = a \n 4-5 read = a",
    "a read of the value before the first": '0-1 read = ""',
    "a read during a write sees the old value": '0-9 write a = true \n 1-2 read = ""',
    "a read during a write sees the new value": "0-9 write a = true \n 1-2 read = a \n 3-4 read = a",
    "two concurrent writes, read in one order": "0-9 write a = true \n 0-9 write b = true \n 10-11 read = b",
    "two concurrent writes, read in the other": "0-9 write a = true \n 0-9 write b = true \n 10-11 read = a",
    "writes in the order that only the reads show":
        "0-20 write a = true \n 0-20 write b = true \n 1-2 read = b \n 3-4 read = a",
    "the later call took effect first": "0-9 write a = true \n 1-8 write b = true \n 10-11 read = a",
    "a return at the time of a call is concurrent": '0-5 write a = true \n 5-6 read = ""',
    "two concurrent cas, of which one succeeds": "0-9 cas \"\" a = true \n 0-9 cas \"\" b = false \n 10-11 read = a",
    "a cas chain in the only order there is":
        '0-9 cas b c = true \n 0-9 cas a b = true \n 0-9 cas "" a = true \n 10-11 read = c',
    "an unknown write seen late": '0-? write a \n 1-2 read = "" \n 3-4 read = "" \n 5-6 read = a \n 7-8 read = a',
    "an unknown write never seen": '0-? write a \n 1-2 read = "" \n 3-4 write b = true \n 5-6 read = b',
    "an unknown write overwritten before it was seen": "0-? write a \n 1-2 write b = true \n 3-4 read = b",
    "an unknown write that lands after a known one": "0-? write a \n 1-2 write b = true \n 3-4 read = a",
    "an unknown cas that succeeded": '0-? cas "" a \n 1-2 read = a',
    "an unknown cas that failed": '0-? cas b a \n 1-2 read = ""',
    "an unknown write that nobody read makes a cas fail": '0-? write a \n 1-2 cas "" b = false',
    "an unknown write and then an unknown cas on it": "0-? write a \n 0-? cas a b \n 5-6 read = b",
    "an unknown read": "0-? read \n 1-2 write a = true",
    "keys are independent": '0-1 x:write a = true \n 2-3 y:read = "" \n 4-5 y:write b = true \n 6-7 x:read = a',
}  # fmt: skip

# The text of the history, and the number of the line at whose return it goes wrong.
BAD = {
    "a stale read": ('0-1 write a = true \n 2-3 write b = true \n 4-5 read = a', 2),
    "a stale read of nothing": ('0-1 write a = true \n 2-3 read = ""', 1),
    "a lost update": ('0-1 write a = true \n 2-3 cas a b = true \n 4-5 cas a c = true', 2),
    "both of two concurrent cas succeed": ('0-9 cas "" a = true \n 0-8 cas "" b = true', 0),
    "a read of a value never written": ("0-1 write a = true \n 2-3 read = c", 1),
    "a read of a value not yet written": ("0-1 read = a \n 2-3 write a = true", 0),
    "reads going back": ('0-20 write a = true \n 1-2 read = a \n 3-4 read = ""', 2),
    "reads going back between two concurrent writes":
        ("0-9 write a = true \n 0-9 write b = true \n 10-11 read = a \n 12-13 read = b", 3),
    "two readers disagree on the order of two writes":
        ("0-30 write a = true \n 0-30 write b = true \n 1-2 read = a \n 3-4 read = b \n 5-6 read = a", 4),
    "a failed cas that succeeded": ('0-1 cas "" a = false \n 2-3 read = a', 0),
    "a failed cas whose value is read": ('0-1 write b = true \n 2-3 cas a c = false \n 4-5 read = c', 2),
    "a successful cas that did nothing": ('0-1 cas "" a = true \n 2-3 read = ""', 1),
    "a cas that failed on the value that was there": ("0-1 write a = true \n 2-3 cas a b = false", 1),
    "an unknown write seen and then not seen": ('0-? write a \n 1-2 read = a \n 3-4 read = ""', 2),
    "an unknown write seen twice":
        ("0-? write a \n 1-2 read = a \n 3-4 write b = true \n 5-6 read = b \n 7-8 read = a", 4),
    "an unknown write seen before its call": ("0-1 read = a \n 2-? write a", 0),
    "an unknown cas that could not succeed": ('0-? cas b a \n 1-2 read = a', 1),
    "one key of several": ('0-1 x:write a = true \n 0-1 y:write a = true \n 2-3 x:read = a \n 4-5 y:read = ""', 3),
}  # fmt: skip


class KnownHistoryTests(SynchronousTestCase):
    def test_good_histories_are_linearizable(self) -> None:
        for name, text in GOOD.items():
            self.assertIsInstance(check(history(text), Register()), Linearizable, name)

    def test_bad_histories_are_not_and_the_operation_is_named_where_it_went_wrong(self) -> None:
        for name, (text, blocked) in BAD.items():
            operations = history(text)
            verdict = check(operations, Register())
            self.assertIsInstance(verdict, NotLinearizable, name)
            self.assertEqual(verdict.blocked, operations[blocked], name)

    def test_the_order_in_which_a_history_is_written_down_does_not_matter(self) -> None:
        rng = random.Random(1)
        for text, expected in [(text, Linearizable) for text in GOOD.values()] + [
            (text, NotLinearizable) for text, _ in BAD.values()
        ]:
            operations = history(text)
            rng.shuffle(operations)
            self.assertIsInstance(check(operations, Register()), expected, text)

    def test_a_counter_adds_each_amount_once(self) -> None:
        good = "0-9 add 2 = 5 \n 0-9 add 3 = 3 \n 0-? add 10 \n 10-11 read = 5 \n 12-13 read = 15"
        self.assertIsInstance(check(history(good), Counter()), Linearizable)
        # One total, reached with different unknown operations, of which others are left.
        good = "0-? add 1 \n 0-? add 1 \n 0-? add 2 \n 1-2 read = 2 \n 3-4 read = 3"
        self.assertIsInstance(check(history(good), Counter()), Linearizable)
        for bad in [
            "0-9 add 2 = 2 \n 0-9 add 3 = 3",
            "0-? add 10 \n 1-2 read = 10 \n 3-4 read = 20",
            "0-1 add -1 = -1 \n 2-3 read = 0",
        ]:
            self.assertIsInstance(check(history(bad), Counter()), NotLinearizable, bad)

    def test_a_list_keeps_every_append_in_its_place(self) -> None:
        good = "0-9 append 1 = 2 \n 0-9 append 2 = 1 \n 0-? append 3 \n 10-11 read = [2,1] \n 12-13 read = [2,1,3]"
        self.assertIsInstance(check(history(good), AppendList()), Linearizable)
        for bad in [
            "0-1 append 1 = 1 \n 2-3 read = []",
            "0-? append 1 \n 1-2 read = [1,1]",
            "0-9 append 1 = 1 \n 0-9 append 2 = 2 \n 10-11 read = [2,1]",
            "0-? append 1 \n 0-? append 2 \n 3-4 read = [1,2] \n 5-6 read = [2,1]",
        ]:
            self.assertIsInstance(check(history(bad), AppendList()), NotLinearizable, bad)

    def test_an_operation_that_the_model_does_not_know_is_an_error(self) -> None:
        for model in (Register(), Counter(), AppendList()):
            self.assertRaises(ValueError, check, history("0-1 reed = a"), model)


class ExplanationTests(SynchronousTestCase):
    def test_a_violation_says_what_could_be_ordered_and_what_not(self) -> None:
        operations = history(
            """
            0-1 x:write a = true
            2-9 x:write b = true
            3-4 x:read = b
            6-? x:cas c d
            5-6 x:read = a
            20-21 x:read = z
            """
        )
        verdict = check(operations, Register())
        assert isinstance(verdict, NotLinearizable)
        self.assertEqual(verdict.key, b"x")
        self.assertEqual(verdict.order, [operations[0], operations[1], operations[2]])
        self.assertEqual(verdict.state, b"b")
        self.assertEqual(verdict.blocked, operations[4])
        self.assertEqual(verdict.unplaced, [operations[3]])
        self.assertEqual(
            str(verdict),
            "not linearizable: key b'x': no order explains\n"
            "  process 4 at 5: read() -> b'a' at 6\n"
            "The longest order (3 operations) ends in the state b'b':\n"
            "  process 0 at 0: write(b'a') -> True at 1\n"
            "  process 1 at 2: write(b'b') -> True at 9\n"
            "  process 2 at 3: read() -> b'b' at 4\n"
            "Under way at that time and not in that order:\n"
            "  process 3 at 6: cas((b'c', b'd')) -> outcome unknown",
        )

    def test_of_several_orders_up_to_the_violation_the_longest_is_shown(self) -> None:
        operations = history('0-9 cas "" c = true \n 0-9 cas "" a = true \n 0-9 cas a b = true \n 1-2 read = z')
        verdict = check(operations, Register())
        assert isinstance(verdict, NotLinearizable)
        self.assertEqual(verdict.order, [operations[1], operations[2]])

    def test_of_several_keys_the_first_is_shown(self) -> None:
        verdict = check(history("0-1 y:read = a \n 0-1 x:read = a \n 0-1 z:read = a"), Register())
        assert isinstance(verdict, NotLinearizable)
        self.assertEqual(verdict.key, b"x")

    def test_a_long_order_is_shown_by_its_end(self) -> None:
        lines = [f"{2 * n}-{2 * n + 1} add 1 = {n + 1}" for n in range(15)] + ["40-41 read = 99"]
        shown = str(check(history("\n".join(lines)), Counter())).splitlines()
        self.assertEqual(shown[3:5], ["  ... 5 before", "  process 5 at 10: add(1) -> 6 at 11"])
        self.assertEqual(len(shown), 3 + 1 + 10)

    def test_what_cannot_be_decided_within_the_bound_does_not_pass(self) -> None:
        operations = history("0-1 x:write a = true \n 0-9 y:write a = true \n 0-9 y:write b = true \n 10-11 y:read = a")
        for bound in range(6):
            verdict = check(operations, Register(), max_steps=bound)
            self.assertEqual(verdict, Undecided(b"y" if bound else b"x", bound))
            error = self.assertRaises(AssertionError, require_linearizable, operations, Register(), max_steps=bound)
            self.assertIn("undecided", str(error))
        self.assertIsInstance(check(operations, Register(), max_steps=6), Linearizable)

    def test_a_violation_counts_more_than_an_undecided_key(self) -> None:
        undecided = "0-9 a:write 1 = true \n 0-9 a:write 2 = true \n 0-9 a:write 3 = true \n 10-11 a:read = 1"
        verdict = check(history(undecided + "\n 0-1 b:read = 1"), Register(), max_steps=3)
        assert isinstance(verdict, NotLinearizable)
        self.assertEqual(verdict.key, b"b")
        self.assertEqual(check(history(undecided), Register(), max_steps=3), Undecided(b"a", 3))

    def test_only_a_linearizable_history_passes_the_assertion(self) -> None:
        require_linearizable(history(GOOD["an unknown write seen late"]), Register())
        error = self.assertRaises(AssertionError, require_linearizable, history(BAD["a stale read"][0]), Register())
        self.assertIn("not linearizable", str(error))


def is_linearizable_by_trying_all(operations: Sequence[Operation], model: Model) -> bool:
    required = {operation.process for operation in operations if not operation.is_open}
    return has_order(operations, model, model.initial, required)


def has_order(operations: Sequence[Operation], model: Model, state: Any, required: set[int]) -> bool:
    """
    The definition, word for word and without any memory: is there an operation that may come first, and so on, until
    those of the required processes are done? A process has one operation.
    """
    if all(operation.process not in required for operation in operations):
        return True
    for number, first in enumerate(operations):
        rest = [*operations[:number], *operations[number + 1 :]]
        if any(other.return_ns is not None and other.return_ns < first.call_ns for other in rest):
            continue
        fits, after = model.step(state, first)
        if fits and has_order(rest, model, after, required):
            return True
    return False


def random_register(rng: random.Random, process: int) -> tuple[str, Any, Any]:
    values = [b"", b"a", b"b"]
    name = rng.choice(["read", "write", "cas"])
    if name == "read":
        return name, None, rng.choice(values)
    if name == "write":
        return name, rng.choice(values[1:]), True
    return name, (rng.choice(values), rng.choice(values[1:])), rng.random() < 0.5


def random_counter(rng: random.Random, process: int) -> tuple[str, Any, Any]:
    amount = rng.choice([1, 2, -1])
    return rng.choice([("read", None, rng.randint(0, 3)), ("add", amount, rng.randint(0, 3))])


def random_list(rng: random.Random, process: int) -> tuple[str, Any, Any]:
    seen = tuple(rng.sample(range(4), rng.randint(0, 2)))
    return rng.choice([("read", None, seen), ("append", process, rng.randint(1, 3))])


def random_history(rng: random.Random, make: Any) -> list[Operation]:
    operations = []
    for process in range(rng.randint(1, 6)):
        name, argument, result = make(rng, process)
        call_ns = rng.randint(0, 8)
        return_ns = None if rng.random() < 0.25 else call_ns + rng.randint(0, 5)
        result = None if return_ns is None else result
        operations.append(Operation(process, b"k", name, argument, result, call_ns, return_ns))
    return operations


class OracleTests(SynchronousTestCase):
    def test_the_checker_agrees_with_one_that_tries_everything(self) -> None:
        for model, make in [
            (Register(), random_register),
            (Counter(), random_counter),
            (AppendList(), random_list),
        ]:
            rng = random.Random(20)
            verdicts: Tally[bool] = Tally()
            for _ in range(4000):
                operations = random_history(rng, make)
                expected = is_linearizable_by_trying_all(operations, model)
                verdict = check(operations, model)
                self.assertIs(type(verdict), Linearizable if expected else NotLinearizable, operations)
                if isinstance(verdict, NotLinearizable):
                    self.check_explanation(verdict, operations, model)
                verdicts[expected] += 1
            # Neither answer may be rare, or the other would do for a checker.
            self.assertGreater(min(verdicts[True], verdicts[False]), 500, (model, verdicts))

    def check_explanation(self, verdict: NotLinearizable, operations: list[Operation], model: Model) -> None:
        """What returned before the blocked one can be ordered; with the blocked one it cannot."""
        by_return = sorted((op for op in operations if op.return_ns is not None), key=lambda op: op.return_ns)
        returned = [operation.process for operation in by_return]
        number = by_return.index(verdict.blocked)
        self.assertTrue(has_order(operations, model, model.initial, set(returned[:number])))
        self.assertFalse(has_order(operations, model, model.initial, set(returned[: number + 1])))
        self.assertLessEqual(set(returned[:number]), {operation.process for operation in verdict.order})
        state = model.initial
        for operation in verdict.order:
            fits, state = model.step(state, operation)
            self.assertTrue(fits)
        self.assertEqual(state, verdict.state)


def real_history(rng: random.Random, count: int, keys: int, processes: int, lost: float) -> list[Operation]:
    """
    What clients of correct registers see: each operation takes effect at one moment between its call and return.

    @param lost: the share whose outcome is unknown; half of those never take effect.
    """
    planned = []
    free_at = [rng.random() * 100 for _ in range(processes)]
    for _ in range(count):
        process = free_at.index(min(free_at))
        call = free_at[process] + rng.random() * 20
        effect, returned = sorted(call + rng.random() * 100 for _ in range(2))
        free_at[process] = returned
        planned.append((effect, call, returned, process, b"%d" % rng.randrange(keys)))
    states: dict[bytes, bytes] = {}
    operations = []
    for number, (_, call, returned, process, key) in enumerate(sorted(planned)):
        state, is_lost = states.get(key, b""), rng.random() < lost
        name, argument, result, after = take_effect(rng, state, b"%d" % number)
        if not is_lost or rng.random() < 0.5:
            states[key] = after
        times = (int(call * 1000), None if is_lost else int(returned * 1000))
        operations.append(Operation(process, key, name, argument, None if is_lost else result, *times))
    return operations


def take_effect(rng: random.Random, state: bytes, fresh: bytes) -> tuple[str, Any, Any, bytes]:
    kind = rng.choice(["read", "write", "cas", "cas"])
    if kind == "read":
        return kind, None, state, state
    if kind == "write":
        return kind, fresh, True, fresh
    expected = rng.choice([state, b"other"])
    is_done = expected == state
    return kind, (expected, fresh), is_done, fresh if is_done else state


def steps_of(operations: Iterable[Operation]) -> int:
    verdict = check(operations, Register(), max_steps=100_000)
    assert isinstance(verdict, Linearizable), verdict
    return verdict.steps


class CostTests(SynchronousTestCase):
    """A step is about two microseconds."""

    def test_two_thousand_operations_of_ten_processes_on_ten_keys_take_few_steps(self) -> None:
        for seed in range(3):
            operations = real_history(random.Random(seed), count=2000, keys=10, processes=10, lost=0)
            self.assertLess(steps_of(operations), 2 * len(operations))

    def test_one_key_for_all_processes_is_affordable_too(self) -> None:
        for seed in range(3):
            operations = real_history(random.Random(seed), count=2000, keys=1, processes=10, lost=0)
            self.assertLess(steps_of(operations), 100 * len(operations))

    def test_unknown_outcomes_do_not_multiply_the_steps(self) -> None:
        """Hundreds of operations are open to the end, dozens on each key: tried in every subset, none would end."""
        for seed in range(3):
            operations = real_history(random.Random(seed), count=2000, keys=10, processes=10, lost=0.2)
            self.assertGreater(sum(operation.is_open for operation in operations), 300)
            self.assertLess(steps_of(operations), 20 * len(operations))

    def test_one_wrong_read_among_thousands_of_operations_is_found(self) -> None:
        for seed in range(5):
            rng = random.Random(seed)
            operations = real_history(rng, count=2000, keys=10, processes=10, lost=0.02)
            reads = [n for n, op in enumerate(operations) if op.operation == "read" and op.result and n > 500]
            wrong = rng.choice(reads)
            operations[wrong] = attrs.evolve(operations[wrong], result=b"")
            verdict = check(operations, Register(), max_steps=100_000)
            assert isinstance(verdict, NotLinearizable), verdict
            self.assertEqual(verdict.blocked, operations[wrong])
