"""Every disk that a crash may leave: each part of what was not synced, by sector and by change of name."""

from __future__ import annotations

import random
from collections.abc import Iterator

from txraft.testing.disk import FakeDisk


def crashes(disk: FakeDisk, limit: int, rng: random.Random) -> Iterator[FakeDisk]:
    """
    Disks that have crashed; the same may come more than once.

    @param limit: if it is more than so many, `limit` that are drawn, and those that kept all and nothing.
    """
    decisions: list[bool] = []
    for _ in range(limit):
        choice = _Choice(decisions)
        yield disk.crashed(choice)
        decisions = choice.decisions
        # The next one keeps the last thing that this one has lost, and decides anew about what is behind that.
        while decisions and decisions[-1]:
            decisions.pop()
        if not decisions:
            return
        decisions[-1] = True
    yield disk.crashed(lambda: True)
    for _ in range(limit):
        yield disk.crashed(lambda: rng.random() < 0.5)


class _Choice:
    """Answers as it was told, and then no."""

    def __init__(self, decisions: list[bool]) -> None:
        self.decisions: list[bool] = []
        self._told = iter(decisions)

    def __call__(self) -> bool:
        self.decisions.append(next(self._told, False))
        return self.decisions[-1]
