"""
What clients saw: the operations of a run, each with its times and result, for a checker to judge.

As JSON lines one operation is one object with the keys `process`, `key`, `operation`, `argument`, `result`, `call` and
`return`; times are integers in ns, and `result` and `return` are null together, when the outcome is unknown. A string
in `key`, `argument` or `result` stands for bytes, one character U+0000 to U+00FF for each (latin-1).
"""

from __future__ import annotations

import heapq
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import attrs

Value = None | bool | int | bytes | tuple["Value", ...]
"""An argument or a result. No str, so that every string in JSON can stand for bytes."""


@attrs.frozen
class Operation:
    """
    One operation of a client on one key.

    An operation of unknown outcome stays open: `return_ns` and `result` are None, and it may have taken effect at any
    time after its call, or never. All others have a result that is not None. What is known to have had no effect is no
    part of a history.

    @ivar process: does one operation at a time, and none after one that stays open.
    """

    process: int
    key: bytes
    operation: str
    argument: Value
    result: Value
    call_ns: int
    return_ns: int | None

    def __attrs_post_init__(self) -> None:
        if (self.return_ns is None) != (self.result is None):
            raise ValueError(f"a result and the time of its return come together: {self}")
        if self.return_ns is not None and self.return_ns < self.call_ns:
            raise ValueError(f"it returns before its call: {self}")

    @property
    def is_open(self) -> bool:
        """Whether the outcome is unknown."""
        return self.return_ns is None

    def __str__(self) -> str:
        argument = "" if self.argument is None else repr(self.argument)
        outcome = "outcome unknown" if self.is_open else f"{self.result!r} at {self.return_ns}"
        return f"process {self.process} at {self.call_ns}: {self.operation}({argument}) -> {outcome}"


class Call:
    """An operation under way. Neither `returned` nor `refused`: its outcome stays unknown."""

    def __init__(self, recorder: HistoryRecorder, operation: Operation) -> None:
        self._recorder = recorder
        self._operation = operation

    def returned(self, result: Value) -> None:
        """Its result is known; not None. Once, and not after `refused`."""
        self._recorder._returned(self._operation, result)

    def refused(self) -> None:
        """It is known to have had no effect, and leaves the history. Once, and not after `returned`."""
        self._recorder._refused(self._operation)


class HistoryRecorder:
    """
    Records the operations of all clients of a run.

    It numbers the processes itself: a call is given the lowest that is free, and a process whose call never returns
    is never free again. No two times are equal, so that what was recorded later is later in the history too.

    @param now_ns: the time in ns; must not go back.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._last_ns = -1
        self._operations: dict[int, Operation] = {}
        self._free: list[int] = []
        self._processes = 0

    def call(self, key: bytes, operation: str, argument: Value = None) -> Call:
        """An operation begins."""
        if self._free:
            process = heapq.heappop(self._free)
        else:
            process, self._processes = self._processes, self._processes + 1
        started = Operation(process, key, operation, argument, None, self._tick(), None)
        self._operations[started.call_ns] = started
        return Call(self, started)

    def history(self) -> list[Operation]:
        """All operations so far, in the order of their calls; those under way are open."""
        return list(self._operations.values())

    def _returned(self, started: Operation, result: Value) -> None:
        if result is None:
            raise ValueError(f"None is no result: {started}")
        self._free_process(started)
        self._operations[started.call_ns] = attrs.evolve(started, result=result, return_ns=self._tick())

    def _refused(self, started: Operation) -> None:
        self._free_process(started)
        del self._operations[started.call_ns]

    def _free_process(self, started: Operation) -> None:
        if self._operations.get(started.call_ns) is not started:
            raise ValueError(f"it has ended before: {started}")
        heapq.heappush(self._free, started.process)

    def _tick(self) -> int:
        self._last_ns = max(self._last_ns + 1, self._now_ns())
        return self._last_ns


def to_json_lines(history: Iterable[Operation]) -> str:
    """The history as JSON lines (see the module), ASCII only, each line ended by a newline."""
    return "".join(json.dumps(_to_json(operation)) + "\n" for operation in history)


def from_json_lines(text: str) -> list[Operation]:
    """
    The history that these JSON lines are.

    @raise ValueError: a line is not an operation; says which, from 1.
    """
    history = []
    for number, line in enumerate(io.StringIO(text), 1):
        try:
            history.append(_from_json(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number}: {error}") from error
    return history


def _to_json(operation: Operation) -> dict[str, Any]:
    return {
        "process": operation.process,
        "key": _value_to_json(operation.key),
        "operation": operation.operation,
        "argument": _value_to_json(operation.argument),
        "result": _value_to_json(operation.result),
        "call": operation.call_ns,
        "return": operation.return_ns,
    }


# The keys of a line, and the type of what the file holds under them; None where `_value_from_json` decides.
_TYPES: dict[str, tuple[type, ...] | None] = {
    "process": (int,),
    "key": (str,),
    "operation": (str,),
    "argument": None,
    "result": None,
    "call": (int,),
    "return": (int, type(None)),
}


def _from_json(line: Any) -> Operation:
    if not isinstance(line, dict) or line.keys() != _TYPES.keys():
        raise ValueError(f"not an object with the keys {', '.join(_TYPES)}")
    for name, types in _TYPES.items():
        if types is not None and type(line[name]) not in types:
            raise ValueError(f"{name} is {line[name]!r}")
    return Operation(
        process=line["process"],
        key=line["key"].encode("latin-1"),
        operation=line["operation"],
        argument=_value_from_json(line["argument"]),
        result=_value_from_json(line["result"]),
        call_ns=line["call"],
        return_ns=line["return"],
    )


def _value_to_json(value: Value) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, tuple):
        return [_value_to_json(part) for part in value]
    if value is None or isinstance(value, int):
        return value
    raise TypeError(f"a history holds no {type(value).__name__}: {value!r}")


def _value_from_json(value: Any) -> Value:
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, list):
        return tuple(_value_from_json(part) for part in value)
    if value is None or isinstance(value, int):
        return value
    raise ValueError(f"a history holds no {type(value).__name__}: {value!r}")
