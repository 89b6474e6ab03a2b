"""What operators do in a simulated run comes about, and what they are told is so."""

from __future__ import annotations

import dataclasses

import pytest

from txraft.core.change import Change
from txraft.core.errors import InvariantBroken
from txraft.core.membership import Membership
from txraft.testing.operators import check_made
from txraft.testing.schedule import parse_schedule
from txraft.testing.simulation import Options, Simulation

CALM = Options(seed=3, profile="removals", size=3, ending="safety", timing=0, limits=0, spares=1)


def run(*lines: str) -> tuple[Simulation, dict[str, int]]:
    """The rest of the run is as calm as it can be: what was done by its end, by name, and the rows that it reached."""
    simulation = Simulation(CALM, parse_schedule("\n".join(lines)))
    report = simulation.run()
    return simulation, {**report.faults, **report.outcomes, **report.reached}


def test_a_server_is_removed_given_an_empty_disk_and_asked_in_again():
    """M10."""
    simulation, done = run("2000 renew leader-0 s2", "6000 client leader-0 write k1")
    server = simulation.cluster.servers["s2"]
    assert (done["renew"], done["renewed"], done["change: done"], done["M10"]) == (1, 1, 2, 1)
    assert server.is_renewed
    assert "s2" in simulation.cluster._rafts["s2"].membership.voters
    assert not simulation.cluster.is_founder("s2")


def test_nobody_is_given_an_empty_disk_who_is_a_member():
    simulation = Simulation(CALM, [])
    cluster = simulation.cluster
    cluster.start()
    cluster.elect()
    cluster.run(1)
    incarnation = cluster.node("s2").identity.incarnation
    assert not simulation.faults.renew("s2")
    assert cluster.node("s2").identity.incarnation == incarnation


def test_a_member_is_given_another_address_at_which_it_is_reached():
    """M19."""
    simulation, done = run("2000 change leader-0 ~s4", "4000 change leader-0 @s4=s4/1", "6000 client leader-0 write k1")
    assert (done["change: done"], done["M19"]) == (2, 1)
    membership = simulation.cluster._rafts["s4"].membership
    assert (membership.learners, membership.address("s4")) == (("s4",), "s4/1")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (Change(voters=("s4",)), {}),
        (Change(learners=("s1",)), {}),
        (Change(removed=("s1",)), {}),
        (Change(addresses={"s1": "elsewhere"}), {}),
        (Change(voters=("s1",)), {"outgoing": ("s1", "s2")}),
        # In force nowhere.
        (Change(removed=("s4",)), {"voters": ("s1", "s2")}),
    ],
)
def test_an_answer_that_is_not_so_would_be_found(asked, answered):
    """M20."""
    simulation = Simulation(CALM, [])
    cluster = simulation.cluster
    cluster.start()
    node = cluster.elect()
    cluster.run(1)
    membership: Membership = dataclasses.replace(node.raft.membership, **answered)
    with pytest.raises(InvariantBroken, match=r"not what was asked for|called made before"):
        check_made(membership, node, asked)
    check_made(node.raft.membership, node, Change(removed=("s4",)))
