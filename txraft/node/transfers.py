"""How far a snapshot between two servers has come, as plain values."""

from __future__ import annotations

import attrs

from txraft.interfaces import Snapshot


@attrs.frozen
class TransferStatus:
    """
    A snapshot on its way `to` or `from` a server: `bytes` of `size` are there. `bytes_per_s` is the mean since it began
    here; `remaining_s` follows from it, and is None while nothing has come.
    """

    server_id: str
    direction: str
    index: int
    bytes: int
    size: int
    bytes_per_s: float
    remaining_s: float | None

    @classmethod
    def of(cls, server_id: str, direction: str, snapshot: Snapshot, offset: int, seconds: float) -> TransferStatus:
        """@param seconds: since it began."""
        rate = offset / seconds if seconds > 0 else 0.0
        remaining_s = (snapshot.size - offset) / rate if rate else None
        return cls(server_id, direction, snapshot.meta.last_index, offset, snapshot.size, rate, remaining_s)
