"""The simulation itself: it repeats, it reaches its faults, it finds planted bugs, and it cuts a failure down."""

from __future__ import annotations

import pathlib
import random
import subprocess
import sys
from collections import Counter

import pytest
from twisted.internet.defer import succeed

from txraft.core.follower import Follower
from txraft.node import RaftNode
from txraft.testing import replay
from txraft.testing.profiles import PROFILES
from txraft.testing.schedule import Action, draw, parse_schedule
from txraft.testing.shrinking import failure_of, parse_script, script, shrink
from txraft.testing.simulation import Options, Simulation, run_seed

ROOT = pathlib.Path(__file__).parents[1]
REGRESSIONS = sorted((ROOT / "tests" / "regressions").glob("*.txt"))


def test_what_was_found_once_does_not_come_back():
    """Scripts of `raftctl simulate --scripts tests/regressions`."""
    for path in REGRESSIONS:
        replay(path)


def test_a_seed_gives_the_same_run_in_every_process():
    """No hash order, no clock, no address decides anything."""
    program = "from txraft.testing.simulation import run_seed; print([run_seed(s).digest for s in (1, 2, 3)])"
    digests = set()
    for hash_seed in ("0", "12345"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT), "PATH": ""}
        command = [sys.executable, "-c", program]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(run.stdout)
    assert len(digests) == 1
    assert str([run_seed(s).digest for s in (1, 2, 3)]) in digests.pop()


def test_different_seeds_give_different_runs():
    assert run_seed(1).digest != run_seed(2).digest


def test_every_fault_and_every_outcome_is_reached():
    """A fault that never happens proves nothing."""
    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    for seed in range(272, 272 + 3 * len(PROFILES)):
        report = run_seed(seed)
        faults.update(report.faults)
        outcomes.update(report.outcomes)
        endings[report.options.ending] += 1
    kinds = {"crash", "partition", "bridge", "ring", "cut", "reset", "replay", "pause", "clock", "slow apply"}
    kinds |= {"strand pause", "strand stall", "strand cut"}
    kinds |= {"disk stalled", "disk EIO", "disk ENOSPC", "network heavy", "network terrible"}
    kinds |= {"rot refused", "rot harmless", "lost write", "lost write refused"}
    kinds |= {"wiped disk", "cloned disk", "wrong cluster"}
    kinds |= {"lag", "snapshot", "slow snapshots", "garbled snapshot", "snapshot EIO", "snapshot ENOSPC"}
    assert kinds <= set(faults), kinds - set(faults)
    assert {"answered", "NotLeader", "OutcomeUnknown"} <= set(outcomes)
    assert min(endings.values()) >= 4
    assert set(endings) == {"safety", "liveness", "agreement"}
    assert outcomes["answered"] > 2000


def test_a_schedule_is_text_and_back():
    drawn = draw(random.Random(1), PROFILES["standard"], ["s1", "s2", "s3"], lambda rng: ("read", "k1"))
    assert parse_schedule("\n".join(["# a comment", "", *map(str, drawn)])) == drawn
    with pytest.raises(ValueError, match="invalid literal"):
        Action.parse("soon crash s1")


def test_a_planted_bug_is_found_and_cut_down_to_what_it_needs(monkeypatch):
    """R04, R13: a follower that claims what its disk does not have."""
    monkeypatch.setattr(Follower, "_match_index", property(lambda self: self.proved_index))
    options, schedule = first_failure()
    short = shrink(options, schedule)
    assert len(short) < len(schedule) / 4
    assert failure_of(options, short) == failure_of(options, schedule)
    text = script(options, short, "planted")
    assert parse_script(text) == (options, short)
    monkeypatch.undo()
    assert failure_of(options, short) is None


def test_servers_that_answer_reads_from_memory_are_found(monkeypatch):
    """C01: a check that passes these would show nothing."""
    monkeypatch.setattr(RaftNode, "read", lambda self, request: succeed(self.machine.query(request)))
    options, schedule = first_failure()
    assert "not linearizable" in (failure_of(options, schedule) or "")


def first_failure() -> tuple[Options, list[Action]]:
    for seed in range(50):
        simulation = Simulation(Options.expand(seed))
        if failure_of(simulation.options, simulation.schedule) is not None:
            return simulation.options, simulation.schedule
    raise AssertionError("a planted bug was not found in 50 seeds")


def test_only_a_failing_schedule_can_be_cut_down():
    with pytest.raises(ValueError, match="does not fail"):
        shrink(Options.expand(1), [])
