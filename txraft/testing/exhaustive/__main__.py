"""`python -m txraft.testing.exhaustive`: one search, its numbers, and the path to a violation if there is one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from txraft.testing.exhaustive.bounds import STARTS, Bounds
from txraft.testing.exhaustive.search import Result, Search


def parse(arguments: Sequence[str] | None) -> Bounds:
    parser = argparse.ArgumentParser(prog="python -m txraft.testing.exhaustive", description=Bounds.__doc__)
    for field in fields(Bounds):
        if field.name != "start":
            parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--start", choices=sorted(STARTS), default="new")
    given = vars(parser.parse_args(arguments))
    return Bounds(**{**given, "start": STARTS[given["start"]]})


def summary(result: Result) -> str:
    """The numbers on one line."""
    extent = "complete" if result.is_complete else f"complete up to {result.depth} steps"
    rate = result.states / max(result.seconds, 1e-9)
    return (
        f"{result.states} distinct states, {result.transitions} transitions, {extent}, "
        f"{result.core_steps} steps of the core, {result.seconds:.1f} s, {rate:.0f} states/s, digest {result.digest}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, print, and answer 1 if a rule was broken."""
    bounds = parse(arguments)
    print(bounds)
    result = Search(bounds, lambda states, depth: print(f"depth {depth}: {states} states", file=sys.stderr)).run()
    print(summary(result))
    if result.path:
        print("\n".join(["A rule is broken. The shortest path:", *result.path]))
        return 1
    print("No rule is broken.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
