"""Many seeds, in several processes, with totals that add up from one run to the next."""

from __future__ import annotations

import json
import multiprocessing
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import attrs
from twisted.logger import globalLogBeginner

from txraft.testing.shrinking import commit
from txraft.testing.simulation import Options, Report, run_options


@attrs.frozen
class Failure:
    """A seed that broke something, and how."""

    options: Options
    why: str


@attrs.define
class Totals:
    """What some seeds did together. Times in seconds."""

    commit: str = attrs.field(factory=commit)
    seeds: int = 0
    events: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    leaders: int = 0
    liveness_endings: int = 0
    violations: int = 0
    undecided: int = 0
    faults: Counter[str] = attrs.field(factory=Counter)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    reached: Counter[str] = attrs.field(factory=Counter)

    def add(self, report: Report, cpu_s: float) -> None:
        """Count one run that broke nothing."""
        self.seeds += 1
        self.events += report.events
        self.simulated_s += report.seconds
        self.cpu_s += cpu_s
        self.leaders += report.leaders
        self.liveness_endings += report.options.ending == "liveness"
        self.undecided += report.is_undecided
        self.faults.update(report.faults)
        self.outcomes.update(report.outcomes)
        self.reached.update(report.reached)

    @property
    def events_per_core_second(self) -> float:
        return self.events / self.cpu_s if self.cpu_s else 0.0


_Outcome = tuple[Report, float] | Failure


def _run(options: Options) -> _Outcome:
    began = time.process_time()
    try:
        return run_options(options), time.process_time() - began
    except Exception as error:
        return Failure(options, f"{type(error).__name__}: {error}")


def run_seeds(
    runs: Iterable[Options],
    jobs: int,
    on_progress: Callable[[Totals], None] = lambda totals: None,
    stop_at: Callable[[], bool] = lambda: False,
) -> tuple[Totals, list[Failure]]:
    """
    Run what seeds have expanded to in `jobs` processes until they end or `stop_at()`; the totals, and what failed.

    `on_progress` is told the totals after every seed.
    """
    totals, failures = Totals(), list[Failure]()
    for outcome in _outcomes(runs, jobs):
        if isinstance(outcome, Failure):
            totals.seeds += 1
            totals.violations += 1
            failures.append(outcome)
        else:
            totals.add(*outcome)
        on_progress(totals)
        if stop_at():
            break
    return totals, failures


def be_quiet() -> None:
    """Servers that stop because their disk failed say so in the log, thousands of times."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


def _outcomes(runs: Iterable[Options], jobs: int) -> Iterator[_Outcome]:
    if jobs == 1:
        yield from map(_run, runs)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=be_quiet) as pool:
        yield from pool.imap_unordered(_run, runs)


def add_to_ledger(path: pathlib.Path, totals: Totals, profile: str) -> None:
    """Add one line of JSON with these totals to a file; the lines of a file are added up by whoever reads it."""
    record = attrs.asdict(totals) | {"profile": profile}
    with path.open("a") as file:
        file.write(json.dumps(record, sort_keys=True) + "\n")


_SUMS = ("seeds", "events", "simulated_s", "cpu_s", "leaders", "liveness_endings", "violations", "undecided")


def ledger_totals(path: pathlib.Path) -> Totals:
    """All lines of a ledger together."""
    totals = Totals(commit="all")
    for line in path.read_text().splitlines():
        record = json.loads(line)
        for name in _SUMS:
            setattr(totals, name, getattr(totals, name) + record[name])
        totals.faults.update(record["faults"])
        totals.outcomes.update(record["outcomes"])
        totals.reached.update(record["reached"])
    return totals
