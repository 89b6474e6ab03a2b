"""
The key-value machine: bytes to bytes, what carrot-kv and a subset of Redis need.

The result of a command or a read says by its type how it is to be answered: True is "done", None is "nothing there",
int and bytes are themselves, a list is several, `Status` is a word, `Refused` is an error that the client is told.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

from zope.interface import implementer

from txraft.images import IPreparedRestore, ISnapshotImage, SnapshotWay
from txraft.interfaces import IStateMachine
from txraft.machines import kv_encoding as encoding
from txraft.machines.kv_encoding import Ask, CorruptCommand, Op, SetFlag
from txraft.machines.kv_glob import glob_matcher
from txraft.machines.kv_image import Restoring, chunks_of

_HASH_BITS = 32
_INDEX_MASK = 2**31 - 1


class Status(NamedTuple):
    """An answer that is a word rather than a value, as Redis's TYPE gives it."""

    text: bytes


class Refused(NamedTuple):
    """A request that made no sense to the state it met; nothing was changed. The text starts with Redis's code."""

    text: bytes


NOT_AN_INTEGER = Refused(b"ERR value is not an integer or out of range")
WOULD_OVERFLOW = Refused(b"ERR increment or decrement would overflow")
TOO_LONG = Refused(b"ERR string exceeds maximum allowed size (kv_max_value_bytes)")
CORRUPT = Refused(b"ERR a command that this server cannot read; it was skipped")


@implementer(IStateMachine, ISnapshotImage, IPreparedRestore)
class KeyValueMachine:
    """
    A dict, changed by committed commands only.

    `applied_index` is the index of the last command applied; 0 before the first.
    """

    snapshot_way = SnapshotWay.FORK

    def __init__(self) -> None:
        self.applied_index = 0
        self._state: dict[bytes, bytes] = {}
        self._scan_order: tuple[int, list[bytes]] | None = None

    def __len__(self) -> int:
        return len(self._state)

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> list[object]:
        """See `IStateMachine`. Bytes that are no command give `CORRUPT`: a bad log must not stop a cluster."""
        appliers = self._APPLIERS
        results: list[object] = []
        for command in commands:
            try:
                results.append(appliers[command[0]](self, command))
            except (CorruptCommand, LookupError):
                results.append(CORRUPT)
        self.applied_index = first_index + len(commands) - 1
        return results

    def query(self, request: bytes) -> object:
        """See `IStateMachine`. Never raises: bytes that are no request give `CORRUPT`."""
        try:
            return self._ANSWERERS[request[0]](self, request)
        except (CorruptCommand, LookupError):
            return CORRUPT

    def _set(self, command: bytes) -> object:
        key, value = encoding.unpack_keyed(command)
        self._state[key] = value
        return True

    def _set_with(self, command: bytes) -> object:
        key, value, flags = encoding.unpack_set_with(command)
        old = self._state.get(key)
        refused = SetFlag.IF_PRESENT if old is None else SetFlag.IF_ABSENT
        if not flags & refused:
            self._state[key] = value
        if flags & SetFlag.RETURN_OLD:
            return old
        return None if flags & refused else True

    def _set_new(self, command: bytes) -> object:
        key, value = encoding.unpack_keyed(command)
        if key in self._state:
            return 0
        self._state[key] = value
        return 1

    def _set_many(self, command: bytes) -> object:
        fields = encoding.unpack_fields(command)
        if len(fields) % 2:
            return CORRUPT
        self._state.update(zip(fields[::2], fields[1::2], strict=True))
        return True

    def _delete(self, command: bytes) -> object:
        pop = self._state.pop
        return sum(pop(key, None) is not None for key in encoding.unpack_fields(command))

    def _increment(self, command: bytes) -> object:
        key, amount = encoding.unpack_increment(command)
        old = encoding.parse_integer(self._state.get(key, b"0"))
        if old is None:
            return NOT_AN_INTEGER
        new = old + amount
        if not encoding.MIN_INTEGER <= new <= encoding.MAX_INTEGER:
            return WOULD_OVERFLOW
        self._state[key] = b"%d" % new
        return new

    def _append(self, command: bytes) -> object:
        key, addition, max_value_bytes = encoding.unpack_append(command)
        old = self._state.get(key, b"")
        if len(old) + len(addition) > max_value_bytes:
            return TOO_LONG
        self._state[key] = old + addition
        return len(old) + len(addition)

    def _flush(self, command: bytes) -> object:
        self._state.clear()
        return True

    def _get(self, request: bytes) -> object:
        return self._state.get(request[1:])

    def _get_many(self, request: bytes) -> object:
        return [self._state.get(key) for key in encoding.unpack_fields(request)]

    def _exists(self, request: bytes) -> object:
        return sum(key in self._state for key in encoding.unpack_fields(request))

    def _length(self, request: bytes) -> object:
        return len(self._state.get(request[1:], b""))

    def _type(self, request: bytes) -> object:
        return Status(b"string" if request[1:] in self._state else b"none")

    def _size(self, request: bytes) -> object:
        return len(self._state)

    def _keys(self, request: bytes) -> object:
        return list(filter(glob_matcher(request[1:]), self._state))

    def _scan(self, request: bytes) -> object:
        """
        [next cursor, keys]: every key that was there from the first call to the last is returned once at least.

        Keys go by in order of their CRC, and a cursor says where to go on and the index at which its scan began. So
        any server can answer any cursor, also after the leader has changed: an order that was made at that index or
        later holds all keys that had to be there. Keys of one CRC are never parted.
        Cost: a sort of all keys when a scan begins and something was applied since the last one (0.4 µs a key); else a
        bisection. The last order made is kept: 8 bytes a key.
        """
        cursor, count, pattern = encoding.unpack_scan(request)
        began, position = cursor >> _HASH_BITS, cursor & (2**_HASH_BITS - 1)
        order = self._order_since(began if cursor else self.applied_index & _INDEX_MASK)
        if not cursor:
            began = self.applied_index & _INDEX_MASK
        start = bisect_left(order, position, key=crc32)
        stop = start + max(count, 1)
        if stop < len(order):
            stop = bisect_right(order, crc32(order[stop - 1]), lo=stop - 1, key=crc32)
        following = b"%d" % (began << _HASH_BITS | crc32(order[stop])) if stop < len(order) else b"0"
        matches = glob_matcher(pattern)
        return [following, [key for key in order[start:stop] if key in self._state and matches(key)]]

    def _order_since(self, began: int) -> list[bytes]:
        """All keys by CRC, as they were at index `began` (modulo 2**31) or later."""
        now = self.applied_index & _INDEX_MASK
        made, order = self._scan_order or (now, None)
        if order is None or (made != now and (made - began) & _INDEX_MASK > _INDEX_MASK // 2):
            order = sorted(self._state, key=crc32)
            self._scan_order = (now, order)
        return order

    def snapshot(self) -> list[bytes]:
        """See `IStateMachine`. Servers that applied the same give the same bytes."""
        return list(chunks_of(self.applied_index, self._state))

    def image(self) -> Iterator[bytes]:
        """See `ISnapshotImage`. Cost: a copy of the table, and of nothing that is in it."""
        return chunks_of(self.applied_index, self._state.copy())

    def restore(self, chunks: Sequence[bytes]) -> None:
        """See `IStateMachine`."""
        restoring = self.restoring()
        for chunk in chunks:
            restoring.add(chunk)
        restoring.finish()

    def restoring(self) -> Restoring:
        """See `IPreparedRestore`."""
        return Restoring(self._restored)

    def _restored(self, applied_index: int, state: dict[bytes, bytes]) -> None:
        self.applied_index, self._state, self._scan_order = applied_index, state, None

    _APPLIERS: dict[int, Callable[[KeyValueMachine, bytes], object]] = {
        Op.SET: _set,
        Op.SET_WITH: _set_with,
        Op.SET_NEW: _set_new,
        Op.SET_MANY: _set_many,
        Op.DELETE: _delete,
        Op.INCREMENT: _increment,
        Op.APPEND: _append,
        Op.FLUSH: _flush,
    }

    _ANSWERERS: dict[int, Callable[[KeyValueMachine, bytes], object]] = {
        Ask.GET: _get,
        Ask.GET_MANY: _get_many,
        Ask.EXISTS: _exists,
        Ask.LENGTH: _length,
        Ask.TYPE: _type,
        Ask.SIZE: _size,
        Ask.KEYS: _keys,
        Ask.SCAN: _scan,
    }
