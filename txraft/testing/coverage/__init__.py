"""
What simulated runs have reached: each role × message × outcome, and the situation of each row of docs/pitfalls.md.

A check that passes proves nothing about what never happened. Everything is seen from outside: the core counts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from txraft.testing.coverage.catalogue import SITUATIONS
from txraft.testing.coverage.cells import CELLS

EVERYTHING = (*map(str, CELLS), *SITUATIONS)
"""The names of all counters: `role Message: outcome`, and the ids of rows."""


def missing(reached: Mapping[str, int]) -> list[str]:
    """The counters that are at zero, by name."""
    return [name for name in EVERYTHING if not reached.get(name)]
