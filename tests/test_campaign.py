"""
What every commit owes to the simulation: so many seeds, events and faults, everything reached, and nothing broken.

Safety after every event, linearizable histories, and in the liveness endings a leader and commits in time.
"""

from __future__ import annotations

import os

import pytest

from txraft.testing.campaign import Failure, Totals, run_seeds
from txraft.testing.coverage import missing
from txraft.testing.simulation import Options

SEEDS = 1_000
EVENTS = 8_000_000
FAULTS = 100_000

Campaign = tuple[Totals, list[Failure]]


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    return run_seeds([Options.expand(seed) for seed in range(SEEDS)], os.cpu_count() or 1)


def test_no_seed_breaks_anything(campaign: Campaign) -> None:
    _, failures = campaign
    assert [f"{failure.options}: {failure.why}" for failure in failures] == []


def test_every_history_could_be_judged(campaign: Campaign) -> None:
    totals, _ = campaign
    assert totals.undecided == 0


def test_much_has_happened(campaign: Campaign) -> None:
    """Frames that were lost, late or doubled are faults too, but come on top."""
    totals, _ = campaign
    faults = sum(count for kind, count in totals.faults.items() if not kind.startswith("frame "))
    assert totals.seeds == SEEDS
    assert totals.events >= EVENTS
    assert faults >= FAULTS
    assert totals.liveness_endings >= SEEDS / 2


def test_every_outcome_and_every_row_of_the_catalogue_was_reached(campaign: Campaign) -> None:
    totals, _ = campaign
    assert missing(totals.reached) == []
