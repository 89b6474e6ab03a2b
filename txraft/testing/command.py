"""`raftctl simulate`: many seeds, a progress line, a table, a ledger, and a short script for what fails."""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from txraft.errors import ConfigError
from txraft.testing.campaign import Failure, Totals, add_to_ledger, ledger_totals, run_seeds
from txraft.testing.coverage import EVERYTHING, missing
from txraft.testing.machines import find_simulated
from txraft.testing.profiles import ALL, PROFILES
from txraft.testing.running import command_line, write_regression
from txraft.testing.shrinking import kind_of
from txraft.testing.simulation import Options

PROGRESS_EVERY_S = 0.5
BAR_WIDTH = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `raftctl simulate` takes."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=int, default=200, metavar="N", help="how many seeds (default: 200)")
    which.add_argument("--seed", type=int, metavar="S", help="just this seed")
    which.add_argument("--minutes", type=float, metavar="M", help="as many seeds as fit into this time")
    parser.add_argument("--first-seed", type=int, default=0, metavar="S", help="where to begin (default: 0)")
    parser.add_argument(
        "--profile",
        choices=[ALL, *sorted(PROFILES)],
        default=ALL,
        help="what happens (default: all, each seed the next)",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument(
        "--machine",
        metavar="NAME",
        default="",
        help="your state machine: a plugin's name, or package.module:attribute (default: registers)",
    )
    parser.add_argument(
        "--option",
        type=_key_and_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what raft.conf would hold for that machine; may be repeated",
    )
    parser.add_argument("--ledger", type=pathlib.Path, metavar="FILE", help="add the totals to this file")
    parser.add_argument(
        "--scripts",
        type=pathlib.Path,
        metavar="DIR",
        help="cut a failing run of each kind down, and write it here: a script, and a test that replays it",
    )


def run(options: argparse.Namespace, print_line: Callable[[str], None] = print) -> int:
    """Carry it out. Returns the exit status: 0 only if nothing was violated."""
    # As twistd does it: what is here can be imported.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    machine_options = tuple(options.option)
    if options.machine:
        try:
            find_simulated(options.machine, dict(machine_options))
        except ConfigError as error:
            print(f"raftctl: {error}", file=sys.stderr)
            return 1
    seeds, limit = _seeds(options)
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    progress = _Progress(limit, sys.stderr.isatty())
    totals, failures = run_seeds(
        (Options.expand(seed, options.profile, options.machine, machine_options) for seed in seeds),
        max(1, options.jobs),
        progress.show,
        lambda: deadline is not None and time.monotonic() >= deadline,
    )
    progress.end()
    for line in _table(totals, not options.machine):
        print_line(line)
    _tell_failures(failures, options.scripts, print_line)
    if options.ledger is not None:
        add_to_ledger(options.ledger, totals, options.profile)
        sum_ = ledger_totals(options.ledger)
        print_line(f"ledger {options.ledger}: {sum_.seeds} seeds, {sum_.events} events, {sum_.violations} violations")
    return 1 if failures else 0


def _tell_failures(
    failures: Sequence[Failure], scripts: pathlib.Path | None, print_line: Callable[[str], None]
) -> None:
    """One of each kind in full; a bug that every seed shows is to be seen at a glance, and cut down once."""
    kinds: dict[str, list[Failure]] = {}
    for failure in sorted(failures, key=lambda failure: failure.options.seed):
        kinds.setdefault(kind_of(failure.why), []).append(failure)
    for first, *others in kinds.values():
        print_line(f"VIOLATED by seed {first.options.seed}: {first.why}")
        print_line(f"  again: {command_line(first.options)}")
        if others:
            print_line(f"  also by {len(others)} more: {', '.join(str(other.options.seed) for other in others[:20])}")
        if scripts is not None:
            script, test = write_regression(first.options, first.why, scripts)
            print_line(f"  script: {script}")
            print_line(f"  test: pytest {test}")


def _seeds(options: argparse.Namespace) -> tuple[Iterable[int], int | None]:
    if options.seed is not None:
        return [options.seed], 1
    if options.minutes:
        return itertools.count(options.first_seed), None
    return range(options.first_seed, options.first_seed + options.seeds), options.seeds


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected key=value, not {text!r}")
    return key, value


class _Progress:
    """One line that is drawn over itself, if there is a terminal."""

    def __init__(self, limit: int | None, is_terminal: bool) -> None:
        self._limit = limit
        self._is_terminal = is_terminal
        self._next = 0.0
        self._began = time.monotonic()

    def show(self, totals: Totals) -> None:
        now = time.monotonic()
        if not self._is_terminal or now < self._next:
            return
        self._next = now + PROGRESS_EVERY_S
        bar = f"{totals.seeds} seeds"
        if self._limit:
            done = BAR_WIDTH * totals.seeds // self._limit
            bar = f"[{'#' * done}{'.' * (BAR_WIDTH - done)}] {totals.seeds}/{self._limit}"
        rate = totals.events / max(now - self._began, 0.001)
        faults = totals.faults.total()
        print(
            f"\r{bar}  {rate:,.0f} events/s  {faults:,} faults  {totals.violations} violations ",
            end="",
            file=sys.stderr,
        )

    def end(self) -> None:
        if self._is_terminal:
            print(file=sys.stderr)


def _table(totals: Totals, is_ours: bool) -> Sequence[str]:
    """`is_ours`: it was txraft that was tried, not a user's machine; then it is of interest how thoroughly."""
    never = missing(totals.reached)
    reached = f"{len(EVERYTHING) - len(never):,} of {len(EVERYTHING):,} outcomes and rows were reached"
    rows = [
        ("commit", totals.commit),
        ("seeds", f"{totals.seeds:,} ({totals.liveness_endings:,} end in liveness)"),
        ("events", f"{totals.events:,} ({totals.events_per_core_second:,.0f} per core-second, all checks on)"),
        ("simulated time", f"{totals.simulated_s / 3600:.2f} h"),
        ("leaders", f"{totals.leaders:,}"),
        ("faults", f"{totals.faults.total():,}"),
        *((f"  {kind}", f"{count:,}") for kind, count in sorted(totals.faults.items())),
        ("requests", f"{totals.outcomes.total():,}"),
        *((f"  {kind}", f"{count:,}") for kind, count in sorted(totals.outcomes.items())),
        *((("coverage", reached), *(("  never", name) for name in never)) if is_ours else ()),
        ("undecided", f"{totals.undecided:,} histories too hard to judge"),
        ("violations", f"{totals.violations:,}"),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {value}" for name, value in rows]
