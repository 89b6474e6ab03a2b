"""A bar that says how far something has come, on a terminal and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

WIDTH = 30


class ProgressBar:
    """
    Drawn on `stream`, at most ten times a second, if that is a terminal.

    @param total: bytes; 0 is all of it.
    """

    def __init__(self, stream: TextIO, total: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._total = total
        self._done = 0
        self._seconds = seconds
        self._started = seconds()
        self._drawn: float | None = None

    def add(self, size: int) -> None:
        """That much more is done."""
        self._done += size
        now = self._seconds()
        if self._stream.isatty() and (self._drawn is None or now - self._drawn >= 0.1):
            self._drawn = now
            self._draw(now)

    def _draw(self, now: float) -> None:
        part = min(1.0, self._done / self._total) if self._total else 1.0
        rate = self._done / max(now - self._started, 0.001) / (1 << 20)
        bar = "#" * round(part * WIDTH)
        self._stream.write(f"\r[{bar:<{WIDTH}}] {part:4.0%} of {self._total / (1 << 20):.1f} MiB, {rate:.0f} MiB/s ")
        self._stream.flush()

    def clear(self) -> None:
        """Take it away, before something else is printed."""
        if self._drawn is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = None
