"""Whole clusters in memory under one hardship each: clocks that step, processes that sleep, slow disks and bad ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from twisted.python.failure import Failure

from txraft.core import change as changes
from txraft.core.change import Change
from txraft.core.errors import InvariantBroken
from txraft.errors import Refusal
from txraft.testing.cluster import Cluster
from txraft.testing.recording import RecordingMachine


def test_a_disk_that_forgets_what_was_durable_would_be_found():
    """The simulation compares what each server recovers with what it had in memory, at every restart."""
    cluster = Cluster(seed=2)
    cluster.start()
    leader = cluster.elect()
    disk = cluster.servers["s1"].disk
    leader.propose(b"x")
    cluster.run(1)
    older = disk.read_file("/data/raft.log.0000000000000001")
    leader.propose(b"y")
    cluster.run(1)
    cluster.crash("s1")
    disk.write_file("/data/raft.log.0000000000000001", older)
    cluster.start("s1")
    with pytest.raises(InvariantBroken, match="what was durable is lost"):
        cluster.run(1)


@pytest.mark.parametrize("goes_astray", [False, True])
def test_a_voter_that_has_not_caught_up_would_be_found(monkeypatch, goes_astray):
    """M13: one that is asked in and catches up is none."""
    cluster = Cluster(seed=1, passive=1)
    cluster.start("s1", "s2", "s3")
    leader = cluster.elect()
    if goes_astray:
        monkeypatch.setattr(changes, "newcomers", lambda membership: ())
        leader.change_membership(Change(voters=("s4",))).addErrback(lambda _: None)
        with pytest.raises(InvariantBroken, match="a voter that has not caught up"):
            cluster.run(1)
    else:
        cluster.start("s4")
        leader.change_membership(Change(voters=("s4",)))
        assert cluster.run_until(lambda: leader.raft.membership.voters == ("s1", "s2", "s3", "s4"))


@pytest.mark.parametrize("step_ms", [-3_600_000, -1000, 1000, 3_600_000])
def test_a_wall_clock_that_steps_changes_nothing_but_the_stamps(step_ms):
    """T01: elections do not look at it, and a machine's time never goes back."""
    times: dict[int, list[int]] = {}

    class Watching(RecordingMachine):
        def apply(self, first_index, commands, time_ms):
            times.setdefault(id(self), []).append(time_ms)
            return super().apply(first_index, commands, time_ms)

    cluster = SteppingCluster(seed=4, machine=Watching)
    cluster.start()
    leader = cluster.elect()
    term = leader.raft.term
    for _ in range(20):
        leader.propose(b"x")
        cluster.run(0.1)
        cluster.step_ms += step_ms
    cluster.run(1)
    assert (cluster.leader(), leader.raft.term) == (leader, term)
    assert [len(of_one) for of_one in times.values()] == [20, 20, 20]
    assert all(of_one == sorted(of_one) for of_one in times.values())


class SteppingCluster(Cluster):
    """Its wall clock, the same for all, is `step_ms` off."""

    step_ms = 0

    def _wall_ms(self) -> int:
        return super()._wall_ms() + self.step_ms


def test_a_leader_that_slept_answers_no_read_until_it_knows_that_it_still_leads():
    """T02, C01: pauses of half to ten election timeouts, with a read asked for at the first moment awake."""
    for seed, pause_s in enumerate([0.07, 0.15, 0.3, 0.6, 1.5, 3.0]):
        cluster = Cluster(seed=seed)
        cluster.start()
        old = cluster.elect()
        name = old.settings.server_id
        cluster.pause(name)
        cluster.run(pause_s)
        acknowledged: list[int] = []
        for node in cluster.running():
            if node is not old and node.raft.role.name == "leader":
                node.propose(b"x").addCallbacks(acknowledged.append, lambda failure: failure.trap(Refusal))
        cluster.run(0.1)
        answers: list[object] = []
        old.read(b"").addBoth(answers.append)
        cluster.resume(name)
        cluster.run(1)
        assert len(answers) == 1
        assert isinstance(answers[0], Failure) or answers[0] >= len(acknowledged), (pause_s, answers)


def test_a_disk_slower_than_elections_and_large_entries_hold_back_no_heartbeat():
    """R21: 1 MiB entries, a leader whose disk takes half a second, one peer that gets nothing: nobody campaigns."""
    cluster = Cluster(seed=6)
    cluster.start()
    leader = cluster.elect()
    name, term = leader.settings.server_id, leader.raft.term
    silent = next(server_id for server_id in cluster.ids if server_id != name)
    cluster.servers[name].disk_seconds = lambda: 0.5
    cluster.network.cut(silent, name)
    done: list[int] = []
    for _ in range(8):
        leader.propose(bytes(1 << 20)).addCallback(done.append)
        cluster.run(0.25)
    cluster.run(2)
    assert (cluster.leader(), leader.raft.term, len(done)) == (leader, term, 8)


def test_asserts_switched_off_change_no_run():
    """T15: under `python -O` a simulation, its checks included, goes the same way."""
    program = "from txraft.testing.simulation import run_seed; print(__debug__, run_seed(7))"
    path = os.pathsep.join(sys.path)
    printed = [
        subprocess.run(
            [sys.executable, *flags, "-c", program],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout
        for flags in ([], ["-O"])
    ]
    assert printed[0].startswith("True ")
    assert printed[1] == printed[0].replace("True ", "False ", 1)


def test_a_server_removed_while_it_was_away_is_told_by_a_leader_that_it_does_not_know():
    """M09: those whom it asks for votes say who leads."""
    cluster = Cluster(seed=1, passive=1)
    cluster.start()
    leader = cluster.elect()
    away = next(server_id for server_id in cluster.founders if server_id != leader.settings.server_id)
    leader.propose(b"x")
    cluster.run(1)
    cluster.crash(away, keep="all")
    steps = (
        lambda: leader.change_membership(Change(voters=("s4",))),
        lambda: leader.transfer_leadership("s4"),
        lambda: cluster.node("s4").change_membership(Change(removed=(away,))),
    )
    for step in steps:
        done = []
        step().addCallback(done.append)
        assert cluster.run_until(lambda done=done: bool(done))
    # Nobody reminds it any more of its own accord.
    cluster.run(5)
    cluster.start(away)
    assert cluster.run_until(lambda: cluster.node(away).status().role == "removed")
    assert cluster.leader() is cluster.node("s4")
