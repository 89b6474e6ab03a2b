"""
Exhaustive mode: every interleaving of a few servers of the real core, within small bounds.

`Search(Bounds(servers=3, terms=2)).run()` answers with a `Result`; `python -m txraft.testing.exhaustive` prints it.
"""

from txraft.testing.exhaustive.bounds import STARTS, Bounds, Disk, Start
from txraft.testing.exhaustive.search import Result, Search

__all__ = ["STARTS", "Bounds", "Disk", "Result", "Search", "Start"]
