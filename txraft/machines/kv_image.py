"""The kv machine's snapshot: a head, then pair after pair, the same bytes for the same state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from struct import Struct

from zope.interface import implementer

from txraft.images import IRestoring

_MAGIC = b"txraft kv 1\n"
_HEAD = Struct(">QQ")  # last applied index, number of pairs
_PAIR = Struct(">II")  # length of key, length of value
_HEAD_BYTES = len(_MAGIC) + _HEAD.size
SNAPSHOT_CHUNK_BYTES = 128 * 1024


def chunks_of(applied_index: int, state: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The snapshot, cut between pairs, each chunk made when it is asked for."""
    pack = _PAIR.pack
    parts = [_MAGIC, _HEAD.pack(applied_index, len(state))]
    size = 0
    for key, value in state.items():
        parts += (pack(len(key), len(value)), key, value)
        size += _PAIR.size + len(key) + len(value)
        if size >= SNAPSHOT_CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)


@implementer(IRestoring)
class Restoring:
    """
    See `IRestoring`. Where the bytes are cut does not matter, but a pair that is cut is copied for each of its pieces.

    @param restored: called with the last applied index and the state, once all of it is there.
    """

    def __init__(self, restored: Callable[[int, dict[bytes, bytes]], None]) -> None:
        self._restored = restored
        self._state: dict[bytes, bytes] = {}
        self._rest = b""
        self._head: tuple[int, int] | None = None

    def add(self, chunk: bytes) -> None:
        """See `IRestoring`."""
        data, start = self._rest + chunk, 0
        if self._head is None:
            if len(data) < _HEAD_BYTES:
                self._rest = data
                return
            self._head, start = _HEAD.unpack_from(data, len(_MAGIC)), _HEAD_BYTES
            if not data.startswith(_MAGIC):
                raise ValueError("not a snapshot of the kv machine")
        self._rest = data[self._add_pairs(data, start) :]

    def _add_pairs(self, data: bytes, start: int) -> int:
        """Where the first one starts that is not all there."""
        state, unpack, pair_bytes, size = self._state, _PAIR.unpack_from, _PAIR.size, len(data)
        while start + pair_bytes <= size:
            key_bytes, value_bytes = unpack(data, start)
            middle = start + pair_bytes + key_bytes
            stop = middle + value_bytes
            if stop > size:
                break
            state[data[middle - key_bytes : middle]] = data[middle:stop]
            start = stop
        return start

    def finish(self) -> None:
        """See `IRestoring`."""
        if self._head is None:
            raise ValueError("not a snapshot of the kv machine")
        applied_index, number = self._head
        if self._rest or len(self._state) != number:
            raise ValueError(f"a snapshot of {number} pairs, but {len(self._state)} are there, and {self._rest[:40]!r}")
        self._restored(applied_index, self._state)
