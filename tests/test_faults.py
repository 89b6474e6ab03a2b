"""Faults of the simulation that aim at something."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from twisted.internet.defer import Deferred, succeed

from txraft.codec import decode_message
from txraft.core.change import Change
from txraft.core.errors import InvariantBroken
from txraft.testing.cluster import Cluster
from txraft.testing.disk import FakeDisk
from txraft.testing.faults import Faults
from txraft.testing.open_requests import OpenRequests
from txraft.testing.registers import RegisterClients
from txraft.testing.schedule import Action


def running_cluster() -> tuple[Cluster, Faults, str]:
    """With the leader's id."""
    cluster = Cluster(seed=1)
    cluster.start()
    leader_id = cluster.elect().settings.server_id
    return cluster, Faults(cluster, random.Random(1)), leader_id


def test_a_replay_brings_back_each_kind_of_message_as_often():
    """Heartbeats are nearly all that is ever sent; what an old vote does would hardly be seen."""
    cluster, _, _ = running_cluster()
    cluster.run(20)
    delivered: Counter[str] = Counter()

    def count(line: bytes) -> None:
        delivered[type(decode_message(line.split(b" ", 1)[1])).__name__] += 1

    cluster.network.trace = count
    cluster.network.replay(600)
    # What is replayed comes at once, its answers later.
    cluster.run(0)
    assert len(delivered) == 6
    assert min(delivered.values()) > 60
    assert delivered.total() == 600


@pytest.mark.parametrize("how", ["pause", "stall", "cut"])
def test_to_strand_the_leader_makes_others_elect_another(how):
    """D14, T02"""
    cluster, faults, leader_id = running_cluster()
    term = cluster.node(leader_id).raft.term
    cluster.node(leader_id).propose(b"x").addErrback(lambda failure: None)
    faults.carry_out(Action(0, "strand", (how,)))
    assert faults.counts[f"strand {how}"] == 1
    assert cluster.is_paused(leader_id) is (how == "pause")
    others = [server_id for server_id in cluster.ids if server_id != leader_id]
    assert all(cluster.network.is_cut(leader_id, other) for other in others) is (how == "cut")
    cluster.servers[leader_id].disk_seconds = lambda: 10.0 if how != "pause" else 0.001
    assert cluster.run_until(lambda: any(cluster.node(other).raft.role.name == "leader" for other in others), 5)
    assert cluster.leader().raft.term > term


def test_without_a_leader_nobody_is_stranded():
    cluster, faults, leader_id = running_cluster()
    for server_id in cluster.ids:
        cluster.crash(server_id)
    faults.carry_out(Action(0, "strand", ("cut",)))
    assert not faults.counts
    assert not cluster.network.is_cut(leader_id, cluster.ids[0])


def test_a_role_in_a_servers_place_is_whoever_has_it_when_it_is_done():
    cluster, faults, leader_id = running_cluster()
    faults.carry_out(Action(0, "pause", ("follower",)))
    assert not cluster.is_paused(leader_id)
    assert sum(map(cluster.is_paused, cluster.ids)) == 1
    faults.carry_out(Action(0, "pause", ("leader",)))
    assert cluster.is_paused(leader_id)


@pytest.mark.parametrize(
    ("direction", "out", "back"), [("out", True, False), ("in", False, True), ("both", True, True)]
)
def test_a_blip_ends_by_itself_and_mends_only_what_it_cut(direction, out, back):
    cluster, faults, _ = running_cluster()
    faults.carry_out(Action(0, "cut", ("s1", "s2")))
    faults.carry_out(Action(0, "blip", ("s1", direction, "100")))
    assert (cluster.network.is_cut("s1", "s3"), cluster.network.is_cut("s3", "s1")) == (out, back)
    cluster.run(0.2)
    assert cluster.network.is_cut("s1", "s2")
    assert not cluster.network.is_cut("s1", "s3")
    assert not cluster.network.is_cut("s3", "s1")


def test_a_bounced_server_comes_back_and_a_hiccup_ends():
    cluster, faults, _ = running_cluster()
    faults.carry_out(Action(0, "bounce", ("s1", "all", "100")))
    faults.carry_out(Action(0, "hiccup", ("s2", "100")))
    assert cluster.servers["s1"].node is None
    assert cluster.is_paused("s2")
    cluster.run(0.2)
    assert cluster.node("s1").raft is not None
    assert not cluster.is_paused("s2")


def test_nothing_ends_by_itself_once_the_runs_ending_has_begun():
    cluster, faults, _ = running_cluster()
    faults.carry_out(Action(0, "bounce", ("s1", "all", "100")))
    faults.carry_out(Action(0, "hiccup", ("s2", "100")))
    faults.carry_out(Action(0, "blip", ("s3", "both", "100")))
    faults.end()
    cluster.run(0.2)
    assert cluster.servers["s1"].node is None
    assert cluster.is_paused("s2")
    assert cluster.network.is_cut("s3", "s1")


def test_a_server_halts_within_a_write_and_starts_again():
    """D02, D08, D21"""
    cluster, faults, leader_id = running_cluster()
    old = cluster.node(leader_id)
    faults.carry_out(Action(0, "halt", (leader_id, "none", "2")))
    old.propose(b"x").addErrback(lambda failure: None)
    cluster.run(0.1)
    assert faults.counts["halt"] == 1
    assert cluster.node(leader_id) is not old
    assert cluster.elect() is not None


def test_an_ambush_cuts_off_the_next_leader_and_no_other():
    """R01: what it has then, nobody else has."""
    cluster, faults, leader_id = running_cluster()
    faults.carry_out(Action(0, "ambush", ("new-leader", "cut", "400", "1")))
    assert not any(cluster.network.is_cut(leader_id, other) for other in cluster.ids)
    cluster.crash(leader_id)
    terms = cluster.leader_count
    assert cluster.run_until(lambda: cluster.leader_count > terms)
    ambushed = cluster.leader().settings.server_id
    assert all(cluster.network.is_cut(ambushed, other) for other in cluster.ids if other != ambushed)
    assert cluster.leader().raft.commit_index < cluster.leader().raft.log.last_index
    cluster.run(0.5)
    assert cluster.elect() is not None


def test_an_ambush_leaves_a_leader_alone_with_the_membership_that_it_has_just_put_in_force():
    """M07: it may have removed itself, and be the only one that can be elected."""
    cluster, faults, leader_id = running_cluster()
    other = next(server_id for server_id in cluster.ids if server_id != leader_id)
    cluster.run(1)
    faults.carry_out(Action(0, "ambush", ("new-membership", "cut", "50", "1")))
    cluster.node(leader_id).change_membership(Change(removed=(other,))).addErrback(lambda failure: None)
    assert cluster.run_until(lambda: faults.counts["ambush cut"], 1)
    assert cluster.node(leader_id).raft.membership.outgoing
    cluster.run(0.01)
    assert not any(cluster.node(at).raft.membership.outgoing for at in cluster.ids if at != leader_id)
    assert cluster.run_until(
        lambda: cluster.node(leader_id).raft.membership.voters == tuple(ids_without(cluster, other)), 5
    )


def ids_without(cluster: Cluster, server_id: str) -> list[str]:
    return [other for other in cluster.ids if other != server_id]


def test_an_usurped_leader_is_still_writing_what_others_replace():
    """R14"""
    cluster, faults, leader_id = running_cluster()
    faults.carry_out(Action(0, "usurp", ("400",)))
    cluster.servers[leader_id].disk_seconds = lambda: 2.0
    cluster.node(leader_id).propose(b"x").addErrback(lambda failure: None)
    assert cluster.run_until(lambda: cluster.leader().settings.server_id != leader_id, 2)
    log = cluster.node(leader_id).raft.log
    assert cluster.run_until(lambda: log.last_term == cluster.leader().raft.term, 0.2)
    assert b"x" not in [log.command(index) for index in range(1, log.last_index + 1)]
    assert log.durable_index < log.last_index
    cluster.run(0.5)
    assert not cluster.network.is_cut(leader_id, "s1" if leader_id != "s1" else "s2")


def test_who_oversleeps_does_not_hear_what_has_become_of_the_others():
    """T02, C01"""
    cluster, faults, leader_id = running_cluster()
    faults.carry_out(Action(0, "oversleep", (leader_id, "1000")))
    assert cluster.is_paused(leader_id)
    assert cluster.run_until(lambda: cluster.leader().settings.server_id != leader_id, 1)
    cluster.run(1.1)
    assert not cluster.is_paused(leader_id)
    assert cluster.network.is_cut("s1", "s2" if leader_id == "s1" else leader_id)
    cluster.run(1.5)
    assert cluster.node(leader_id).raft.role.name == "follower"


@pytest.mark.parametrize("how", ["mute", "sleep", "stall", "kill"])
def test_an_ambush_strikes_whoever_takes_the_role(how):
    cluster, faults, leader_id = running_cluster()
    faults.carry_out(Action(0, "ambush", ("new-pre-candidate", how, "20", "1")))
    cluster.crash(leader_id)
    cluster.run(5)
    assert faults.counts[f"ambush {how}"] == 1
    cluster.elect()


def test_a_server_that_begins_to_stand_is_crowned():
    cluster, faults, leader_id = running_cluster()
    heir = next(server_id for server_id in cluster.ids if server_id != leader_id)
    faults.carry_out(Action(0, "ambush", ("new-pre-candidate", "crown", "20", "1")))
    cluster.network.cut(leader_id, heir)
    assert cluster.run_until(lambda: faults.counts["ambush crown"], 5)
    assert cluster.run_until(lambda: cluster.node(heir).raft.role.name == "leader", 1)


def test_what_no_ambush_is_called_is_an_error():
    cluster, faults, leader_id = running_cluster()
    faults.carry_out(Action(0, "ambush", ("new-leader", "surprise", "20", "1")))
    cluster.crash(leader_id)
    with pytest.raises(ValueError, match="no such ambush: surprise"):
        cluster.run(5)


def test_a_server_that_goes_on_after_its_disk_failed_is_found():
    """T06, D01"""
    cluster, faults, leader_id = running_cluster()
    cluster.servers[leader_id].disk.fail("fdatasync")
    cluster.node(leader_id).propose(b"x").addErrback(lambda failure: None)
    cluster.run(0.1)
    cluster.node(leader_id).failure = None
    with pytest.raises(InvariantBroken, match="goes on after its disk failed"):
        faults.restart_failed()


def test_what_a_server_calls_durable_must_be_on_its_disk():
    """R14: the server itself cannot tell."""
    cluster, _, leader_id = running_cluster()
    log = cluster.node(leader_id).raft.log
    cluster.servers[leader_id].disk_seconds = lambda: 1.0
    cluster.node(leader_id).propose(b"x").addErrback(lambda failure: None)
    cluster.run(0.1)
    assert log.durable_index < log.written_index
    log.durable_index = log.written_index
    with pytest.raises(InvariantBroken, match="what is called durable is not on disk"):
        cluster.run(1)


def test_whoever_does_not_lead_owes_no_answer():
    """C12"""
    cluster, _, leader_id = running_cluster()
    requests = OpenRequests(cluster)
    requests.add(cluster.node(leader_id), ("read", "k1"))
    for _ in range(100):
        cluster.run(0.02)
        requests.check()
    follower_id = next(server_id for server_id in cluster.ids if server_id != leader_id)
    number = requests.add(cluster.node(follower_id), ("read", "k2"))
    with pytest.raises(InvariantBroken, match=f"outlives the leadership.*{follower_id}.*k2"):
        for _ in range(100):
            cluster.run(0.02)
            requests.check()
    requests.answered(number)
    requests.check()
    with pytest.raises(InvariantBroken, match="never"):
        requests.require_none("never")
    cluster.crash(leader_id)
    requests.require_none("what a dead process was asked is never answered")


class _Confused:
    """A server that answers each command with the place of the one before."""

    def propose(self, command: bytes) -> Deferred:
        return succeed((True, 1))


def test_a_command_must_be_answered_with_its_own_result():
    """C09"""
    clients = RegisterClients(lambda: 0)
    machine = clients.machine("s1")
    machine.apply(1, [b"write k1 1", b"write k1 2"], 0)
    clients.request(_Confused(), "write", "k1")
    assert clients.check_history()
    clients.request(_Confused(), "write", "k1")
    with pytest.raises(InvariantBroken, match="the result of another command"):
        clients.check_history()


@pytest.mark.parametrize("number", range(1, 40))
def test_a_server_that_dies_within_a_start_starts_the_next_time(number):
    """D21: the first start, and each later one."""
    cluster = Cluster(seed=number)
    faults = Faults(cluster, random.Random(number))
    for server_id in cluster.ids:
        faults.stumble(server_id, "some", number)
    cluster.elect()
    for server_id in cluster.ids:
        faults.carry_out(Action(0, "stumble", (server_id, "some", str(number))))
    cluster.elect()
    assert faults.counts["halt in a start"] >= (3 if number < 25 else 0)


def test_who_finds_no_room_to_start_stays_down_until_it_is_started_again():
    cluster, faults, leader_id = running_cluster()
    server = cluster.servers[leader_id]
    cluster.crash(leader_id)
    own_disk, server.disk = server.disk, FakeDisk(random.Random(1))
    faults.carry_out(Action(0, "fill-disk", (leader_id, "2000")))
    faults.carry_out(Action(0, "start", (leader_id,)))
    assert server.node is None
    assert faults.counts["no start on a full disk"] == 1
    server.disk = own_disk
    faults.carry_out(Action(0, "start", (leader_id,)))
    assert server.node is not None


def test_a_server_starts_on_a_full_disk_and_goes_on_when_there_is_room():
    """D09"""
    cluster, faults, leader_id = running_cluster()
    faults.carry_out(Action(0, "fill-disk", (leader_id, "2000")))
    for _ in range(40):
        for node in cluster.running():
            node.propose(b"x" * 200).addErrback(lambda failure: None)
        cluster.run(0.04)
        faults.restart_failed()
    assert faults.counts["start on a full disk"] > 0
    cluster.run(1)
    faults.restart_failed()
    last_index = cluster.elect().raft.log.last_index
    assert cluster.run_until(lambda: cluster.node(leader_id).raft.applied_index >= last_index, 5)
