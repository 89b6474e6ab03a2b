"""Models of small data for `txraft.testing.linearizability`. An operation's result is what each model says it is."""

from __future__ import annotations

from typing import Any

import attrs

from txraft.testing.history import Operation


@attrs.frozen
class Register:
    """
    One value. `read()` -> the value; `write(value)` -> True; `cas((expected, value))` -> whether it was as expected,
    and only then is the value written.
    """

    initial: Any = b""

    def step(self, state: Any, operation: Operation) -> tuple[bool, Any]:
        argument: Any = operation.argument
        if operation.operation == "read":
            return _fits(operation, state), state
        if operation.operation == "write":
            return _fits(operation, True), argument
        if operation.operation == "cas":
            expected, value = argument
            is_expected = state == expected
            return _fits(operation, is_expected), value if is_expected else state
        raise _unknown(operation)

    def only_looks(self, operation: Operation) -> bool:
        return operation.operation == "read" or (operation.operation == "cas" and operation.result is False)


@attrs.frozen
class Counter:
    """A total. `read()` -> the total; `add(amount)` -> the total after it."""

    initial: int = 0

    def step(self, state: int, operation: Operation) -> tuple[bool, int]:
        argument: Any = operation.argument
        if operation.operation == "read":
            return _fits(operation, state), state
        if operation.operation == "add":
            return _fits(operation, state + argument), state + argument
        raise _unknown(operation)

    def only_looks(self, operation: Operation) -> bool:
        return operation.operation == "read"


@attrs.frozen
class AppendList:
    """A list. `read()` -> all values, as a tuple; `append(value)` -> how many there are after it."""

    initial: tuple[Any, ...] = ()

    def step(self, state: tuple[Any, ...], operation: Operation) -> tuple[bool, tuple[Any, ...]]:
        if operation.operation == "read":
            return _fits(operation, state), state
        if operation.operation == "append":
            return _fits(operation, len(state) + 1), (*state, operation.argument)
        raise _unknown(operation)

    def only_looks(self, operation: Operation) -> bool:
        return operation.operation == "read"


def _fits(operation: Operation, result: object) -> bool:
    return operation.is_open or operation.result == result


def _unknown(operation: Operation) -> ValueError:
    return ValueError(f"the model has no such operation: {operation}")
