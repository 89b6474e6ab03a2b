"""How quickly a file is sent: `snapshot_bandwidth`, for whoever sends one."""

from __future__ import annotations

from collections.abc import Callable

MIN_WAIT_S = 0.001


class Pace:
    """
    One transfer's: says when the next bytes may be sent, so that they are `bandwidth` a second in the mean; 0: as
    quickly as it goes.
    """

    def __init__(self, seconds: Callable[[], float], bandwidth: int) -> None:
        self._seconds = seconds
        self._bandwidth = bandwidth
        self._next = seconds()

    def piece(self, size: int) -> int:
        """So much is to be sent at a time, where `size` would be good: no more than in a second."""
        return min(size, self._bandwidth) if self._bandwidth else size

    def wait_s(self) -> float:
        """How long to wait yet; what is shorter than a clock can tell is not waited for."""
        wait_s = self._next - self._seconds()
        return wait_s if wait_s > MIN_WAIT_S else 0.0

    def sent(self, size: int) -> None:
        """So many bytes more were sent."""
        if self._bandwidth:
            self._next = max(self._next, self._seconds()) + size / self._bandwidth
