"""How much of the core runs when nothing but the simulation runs."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
LEAST_PERCENT = 95
SEEDS = {
    "crashes": 2,
    "full-logs": 2,
    "laggards": 28,
    "late": 3,
    "members": 20,
    "newcomers": 4,
    "removals": 8,
    "snapshots": 4,
    "sessions": 1,
    "standard": 3,
}
"""By profile. Three minutes of one core, all lines of the core being traced."""

PROGRAM = """
import json
import sys

import coverage

measured = coverage.Coverage(data_file=None, config_file=False, branch=True, source=["txraft.core"])
# Imports that only a type checker carries out.
measured.exclude("if TYPE_CHECKING:")
with measured.collect():
    from txraft.testing.campaign import be_quiet
    from txraft.testing.simulation import run_seed

    be_quiet()
    for profile, count in json.loads(sys.argv[1]).items():
        for seed in range(count):
            run_seed(seed, profile)
measured.json_report(outfile="all.json")
# A run that gets there has found a bug of ours.
measured.exclude("raise (InvariantBroken|CommittedConflict)")
measured.json_report(outfile="reachable.json")
measured.report(show_missing=True, skip_covered=True)
"""


def test_the_simulation_alone_takes_nearly_every_branch_of_the_core(tmp_path):
    """A branch that no run takes is one that the checks say nothing about. `pytest -rP` prints which those are."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(SEEDS)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    print(run.stdout, run.stderr)
    assert run.returncode == 0
    all_, reachable = (json.loads((tmp_path / f"{name}.json").read_text())["totals"] for name in ("all", "reachable"))
    print(f"branches: {percent_of_branches(all_):.1f} %; without those to a broken invariant:")
    print(f"branches: {percent_of_branches(reachable):.1f} %, with lines: {reachable['percent_covered']:.1f} %")
    assert reachable["num_branches"] > 200, "the core was measured, not something else"
    assert percent_of_branches(reachable) >= LEAST_PERCENT
    assert min(all_["percent_covered"], reachable["percent_covered"]) >= LEAST_PERCENT


def percent_of_branches(totals: dict[str, float]) -> float:
    return 100 * totals["covered_branches"] / totals["num_branches"]
