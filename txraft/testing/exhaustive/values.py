"""
Objects of the core as values: plain nested tuples that can be compared, hashed, renamed and made into objects again.

Nothing is listed by hand: an object's fields are found where Python keeps them, so that a field which the core gets
tomorrow is part of the value too. What is of no known kind is refused rather than forgotten.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType
from typing import Any

from txraft.core.log import EntryKind
from txraft.core.membership import Membership
from txraft.core.progress import ReplicationState
from txraft.core.settings import RaftSettings

Value = Any
"""An atom, or a tuple that begins with a class; for an object, its fields' names come next."""


class LongestTimeouts(random.Random):
    """Stands for the randomised timeouts: they are all alike, since a search fires them when it chooses."""

    def randint(self, a: int, b: int) -> int:
        return b


TIMEOUTS = LongestTimeouts(0)


class Root:
    """In a value: the object that was frozen as a whole."""


_ATOMS = frozenset(
    (NoneType, bool, int, str, bytes, type, EntryKind, ReplicationState, Membership, RaftSettings, LongestTimeouts)
)
_SEQUENCES = frozenset((tuple, list, deque))


def freeze(root: object) -> Value:
    """
    The value of `root` and of everything in it; references back to `root` are kept as such.

    Two fields that share an object get an equal one each.

    :raises TypeError: something in it is neither a known atom, nor a container, nor an object with fields.
    """
    return _freeze_object(root, root)


def _freeze(value: Any, root: object) -> Value:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind in _SEQUENCES:
        return (kind, *[_freeze(item, root) for item in value])
    if kind is dict:
        return _frozen_dict([(_freeze(key, root), _freeze(item, root)) for key, item in value.items()])
    return Root if value is root else _freeze_object(value, root)


def _frozen_dict(items: list[tuple[Value, Value]]) -> Value:
    """Without an order of its own: servers that differ in that only are the same."""
    return (dict, *(sorted(items, key=repr) if len(items) > 1 else items))


@cache
def _slots(kind: type) -> tuple[str, ...]:
    return tuple(name for base in kind.__mro__ for name in vars(base).get("__slots__", ()))


def _freeze_object(value: object, root: object) -> Value:
    kind: Any = type(value)
    names = _slots(kind) + tuple(getattr(value, "__dict__", ()))
    if not names:
        raise TypeError(f"no known way to freeze {value!r}")
    return (kind, names, *[_freeze(getattr(value, name), root) for name in names])


def thaw(value: Value) -> Any:
    """A new object that `freeze` made `value` of; it shares nothing that changes with any other."""
    kind, names, *fields = value
    root = kind.__new__(kind)
    _fill(root, names, fields, root)
    return root


def _fill(target: object, names: tuple[str, ...], fields: Sequence[Value], root: object) -> None:
    for name, field in zip(names, fields, strict=True):
        object.__setattr__(target, name, _thaw(field, root))


def _thaw(value: Value, root: object) -> Any:
    if type(value) is not tuple:
        return root if value is Root else value
    kind = value[0]
    if kind in _SEQUENCES:
        return kind([_thaw(item, root) for item in value[1:]])
    if kind is dict:
        return {_thaw(key, root): _thaw(item, root) for key, item in value[1:]}
    target = kind.__new__(kind)
    _fill(target, value[1], value[2:], root)
    return target


def rename(value: Value, names: Mapping[str, str]) -> Value:
    """`value` with every string that is a key of `names` replaced. A `Membership` stays as it is."""
    if type(value) is not tuple:
        return names.get(value, value) if type(value) is str else value
    if value and value[0] is dict:
        return _frozen_dict([(rename(key, names), rename(item, names)) for key, item in value[1:]])
    return tuple([rename(item, names) for item in value])


class Table:
    """Values by number, in the order in which they were met, so that states of the search are short tuples of ints."""

    def __init__(self) -> None:
        self._values: list[Value] = []
        self._numbers: dict[Value, int] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, number: int) -> Value:
        return self._values[number]

    def number(self, value: Value) -> int:
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number
