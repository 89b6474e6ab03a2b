"""What operators ask of a server, and the table of what can go wrong: over whole servers on simulated time."""

from __future__ import annotations

import errno
import inspect
import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from txraft import errors
from txraft.admin import problems
from txraft.admin.operations import MAX_PAYLOAD_BYTES, Operations
from txraft.admin.problems import KINDS, KINDS_BY_CODE, BadRequest, Kind, as_sentence, problem_of
from txraft.errors import ChangeFailed, ChangeRefused, ChangeUnderWay, NotLeader, SnapshotRefused, Stopped
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster


def operations(cluster: Cluster, node: RaftNode, reachable: tuple[str, ...] = ()) -> Operations:
    def probe(server_id: str, address: str) -> Deferred[str]:
        return succeed("reachable" if address in reachable else "cannot connect: nobody there")

    return Operations(node, probe, read_server_id=read_name, seconds=cluster.clock.seconds)


def read_name(text: str) -> str:
    if not text.isalnum():
        raise ValueError(f"{text!r} is no name")
    return text


def outcome(cluster: Cluster, deferred: Deferred[Any], seconds: float = 30) -> Any:
    """What became of it: an answer that is JSON, or an exception of the table."""
    found: list[Any] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    assert cluster.run_until(lambda: bool(found), seconds), "nothing was decided"
    if isinstance(found[0], Exception):
        assert problem_of(found[0]).code != "internal_error", found
    else:
        json.dumps(found[0])
    return found[0]


def started(size: int = 3, passive: int = 0, seed: int = 1, absent: tuple[str, ...] = ()) -> tuple[Cluster, Operations]:
    cluster = Cluster(seed=seed, size=size, passive=passive)
    cluster.start(*(server_id for server_id in cluster.ids if server_id not in absent))
    leader = cluster.elect()
    return cluster, operations(cluster, leader, reachable=tuple(cluster.ids))


def voters(answer: dict[str, Any]) -> list[str]:
    return [member["server_id"] for member in answer["members"] if member["role"] == "voter"]


def test_servers_are_added_and_removed_in_one_answer_each():
    cluster, leader = started(size=1, passive=2)
    assert voters(outcome(cluster, leader.change(add=["s2", "s3"]))) == ["s1", "s2", "s3"]
    assert voters(outcome(cluster, leader.change(remove=["s2"]))) == ["s1", "s3"]
    answer = outcome(cluster, leader.change(learners=["s2"]))
    assert {member["server_id"]: member["role"] for member in answer["members"]}["s2"] == "learner"


def test_a_server_takes_the_place_of_another_whatever_that_was():
    cluster, leader = started(size=3, passive=2)
    outcome(cluster, leader.change(learners=["s4"]))
    answer = outcome(cluster, leader.change(replace={"s4": "s5"}))
    roles = {member["server_id"]: member["role"] for member in answer["members"]}
    assert roles == {"s1": "voter", "s2": "voter", "s3": "voter", "s5": "learner"}
    again = outcome(cluster, leader.change(replace={"s4": "s5"}))
    assert again["members"] == answer["members"], "asking again for what is so is answered, and makes no voter of it"


def test_nothing_takes_the_place_of_a_stranger():
    cluster, leader = started(size=3, passive=1)
    refused = outcome(cluster, leader.change(replace={"s9": "s4"}))
    assert isinstance(refused, ChangeRefused)
    assert "s9 is no member" in str(refused)


@pytest.mark.parametrize("arguments", [{"add": ["no/name"]}, {"remove": [""]}, {"replace": {"s1": "a b"}}])
def test_what_is_no_server_id_is_a_bad_request(arguments):
    cluster, leader = started()
    assert isinstance(outcome(cluster, leader.change(**arguments)), BadRequest)


def test_server_ids_are_host_and_port_and_a_host_alone_has_the_port_of_this_server():
    class Node:
        class settings:
            server_id = "10.0.0.1:29922"

    read = Operations(Node()).server_id  # type: ignore[arg-type]
    assert [read("10.0.0.2"), read("B:7"), read("::1")] == ["10.0.0.2:29922", "b:7", "[::1]:29922"]


def test_a_second_change_is_told_to_ask_again():
    cluster, leader = started(size=3, passive=2, absent=("s4",))
    first = leader.change(add=["s4"])
    cluster.run(0.05)
    refused = outcome(cluster, leader.change(add=["s5"]), 1)
    assert isinstance(refused, ChangeUnderWay)
    assert isinstance(outcome(cluster, first), ChangeFailed)


def test_progress_shows_who_catches_up_and_where_it_is():
    cluster, leader = started(size=1, passive=1, absent=("s2",))
    assert leader.progress() == {"leader_id": "s1", "catching_up": [], "snapshots": [], "hand_over_to": None}
    asked = leader.change(add=["s2"])
    cluster.run(0.1)
    [server] = leader.progress()["catching_up"]
    assert (server["server_id"], server["round"], server["rounds"], server["match_index"]) == ("s2", 1, 10, 0)
    assert server["goal_index"] >= 2
    cluster.start("s2")
    outcome(cluster, asked)
    assert leader.progress()["catching_up"] == []


def test_the_leadership_is_handed_over():
    cluster, leader = started()
    heir = next(server_id for server_id in cluster.ids if server_id != leader.status()["server_id"])
    assert outcome(cluster, leader.transfer(heir))["leader_id"] == heir
    assert isinstance(outcome(cluster, leader.transfer(heir)), NotLeader)


def test_a_snapshot_is_taken_and_one_that_cannot_be_kept_harms_nothing():
    cluster, leader = started(size=1)
    taken = outcome(cluster, leader.snapshot())
    assert taken["last_index"] == leader.status()["applied_index"] and taken["bytes"] > 0
    outcome(cluster, leader.append(b"x"))
    cluster.servers["s1"].disk.fail("pwrite", error=errno.ENOSPC)
    refused = outcome(cluster, leader.snapshot())
    assert isinstance(refused, SnapshotRefused) and "cannot be kept" in str(refused)
    assert problem_of(refused).sentence.endswith("Nothing was done.")
    assert outcome(cluster, leader.append(b"y")) == {"result": "2"}


def test_a_plan_shows_what_is_survived_before_and_after_and_changes_nothing():
    cluster, leader = started(size=3, passive=2)
    index = leader.node.raft.log.last_index
    plan = outcome(cluster, leader.plan(add=["s4"]))
    assert (plan["before"]["quorum"], plan["before"]["failures_survived"]) == (2, 1)
    assert (plan["after"]["quorum"], plan["after"]["failures_survived"]) == (3, 1)
    assert plan["servers"] == [{"server_id": "s4", "is_reachable": True, "detail": "reachable"}]
    assert plan["notes"] == ["4 voters survive no more failures than 3."]
    assert outcome(cluster, leader.plan(add=["s4", "s5"]))["after"]["failures_survived"] == 2
    assert leader.node.raft.log.last_index == index


def test_a_plan_names_what_would_be_refused_and_who_cannot_be_reached():
    cluster, leader = started(size=2, passive=1)
    refused = outcome(cluster, leader.plan(remove=["s1", "s2"]))
    assert (refused["refusal"], refused["after"]) == ("no voter would be left", refused["before"])
    strange = outcome(cluster, leader.plan(add=["s8", "s9"]))
    assert [server["is_reachable"] for server in strange["servers"]] == [False, False]
    assert strange["notes"][-1] == "No quorum would be left: s8, s9 cannot be reached."
    assert not strange["is_quorum_left"]
    shrunk = outcome(cluster, leader.plan(remove=["s2"]))
    assert shrunk["after"]["voters"] == ("s1",)


def test_a_plan_counts_a_member_that_is_connected_and_silent_as_failed():
    """A process that is stopped, or a disk that hangs, keeps its connections."""
    cluster, leader = started()
    others = [server_id for server_id in cluster.ids if server_id != leader.node.settings.server_id]
    before = outcome(cluster, leader.plan(remove=[others[1]]))
    assert (before["is_quorum_left"], len(before["notes"])) == (True, 2)
    cluster.crash(others[0])
    cluster.run(0.4)
    after = outcome(cluster, leader.plan(remove=[others[1]]))
    assert after["notes"][-1] == f"No quorum would be left: {others[0]} cannot be reached."
    assert not after["is_quorum_left"]


def test_a_plan_is_made_by_the_leader_and_nobody_else():
    cluster, leader = started()
    follower = next(node for node in cluster.running() if node is not leader.node)
    assert isinstance(outcome(cluster, operations(cluster, follower).plan(add=["s9"])), NotLeader)
    leader.node.stopService()
    cluster.run(10)
    assert isinstance(outcome(cluster, leader.plan(add=["s9"])), Stopped)


def test_the_log_is_paged_and_shows_payloads_only_if_asked():
    cluster, leader = started(size=1)
    for number in range(20):
        outcome(cluster, leader.append(b"command %d \xff" % number))
    page = leader.log(count=5)
    assert [entry["index"] for entry in page["entries"]] == list(range(page["last_index"] - 4, page["last_index"] + 1))
    assert set(page["entries"][0]) == {"index", "term", "kind", "time_ms", "bytes"}
    shown = leader.log(first=page["last_index"], payloads=True)["entries"]
    assert [(entry["kind"], entry["payload"]) for entry in shown] == [("command", "command 19 \\xff")]
    assert leader.log(first=1, count=2)["entries"][0]["kind"] == "configuration"
    assert leader.log(first=page["last_index"] + 1)["entries"] == []


def test_a_long_payload_is_cut():
    cluster, leader = started(size=1)
    outcome(cluster, leader.append(b"x" * (MAX_PAYLOAD_BYTES + 1)))
    [entry] = leader.log(count=1, payloads=True)["entries"]
    assert (len(entry["payload"]), entry["bytes"]) == (MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 1)


@pytest.mark.parametrize(("first", "count"), [(None, 0), (None, 1001), (-1, 1)])
def test_a_page_that_cannot_be_is_a_bad_request(first, count):
    _, leader = started(size=1)
    with pytest.raises(BadRequest):
        leader.log(first, count)


def test_status_members_and_reasons_are_json_in_every_state():
    cluster, leader = started(size=3, passive=1)
    for node in cluster.running():
        asked = operations(cluster, node)
        json.dumps([asked.status(), asked.members(), asked.why(), asked.log(), asked.progress()])
    assert [member["is_leader"] for member in leader.members()].count(True) == 1
    assert leader.status()["uptime_s"] == 0
    cluster.run(2)
    assert leader.status()["uptime_s"] == 2


def test_every_refusal_has_a_row_of_its_own():
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.Refusal)]
    assert {error for error in found if error not in KINDS} == {errors.Refusal}
    assert len(KINDS_BY_CODE) == len(KINDS)


@pytest.mark.parametrize(
    ("error", "code", "status", "sentence"),
    [
        (
            NotLeader("b:1", "b:2", "b:3"),
            "not_leader",
            421,
            "Not the leader; it is b:1. Nothing was done; ask the leader.",
        ),
        (
            NotLeader(None),
            "not_leader",
            421,
            "Not the leader, and none is known. Nothing was done; ask again soon, and if it stays so, `why` tells what "
            "this server waits for.",
        ),
        (errors.OutcomeUnknown(7, "why"), "outcome_unknown", 504, None),
        (errors.DamagedLog("p", 1, "q", "r"), "failed", 500, None),
        (BadRequest("x: y"), "bad_request", 400, "x: y. Nothing was done."),
        (ZeroDivisionError("secret"), "internal_error", 500, None),
    ],
)
def test_each_error_has_a_code_a_status_and_a_sentence(error, code, status, sentence):
    problem = problem_of(error)
    assert (problem.code, problem.kind.http_status) == (code, status)
    assert sentence in (None, problem.sentence)
    told = problem.as_json()["error"]
    assert "secret" not in json.dumps(told)
    assert {"code", "message", "leader_id", "leader_admin_address"} <= set(told)


def test_whoever_asks_elsewhere_is_told_where_the_leader_serves_its_operators():
    facts = problem_of(NotLeader("b:1", "b:2", "b:3")).facts
    assert facts == {"leader_id": "b:1", "leader_admin_address": "b:3"}
    assert problem_of(NotLeader(None)).facts == {"leader_id": None, "leader_admin_address": None}


def test_the_original_words_are_its_own():
    """What the original answers with."""
    words = {"NOT_LEADER", "EMPTY_SERVER", "IN_CFG", "NOT_IN_CFG", "INVALID_SERVER", "LIMIT", "TIMEOUT", "ERROR"}
    assert {kind.original for kind in KINDS.values()} <= words
    assert isinstance(KINDS[problems.NotFound], Kind)


def test_of_who_moves_a_plan_counts_whether_it_answers_where_it_will_be():
    cluster, leader = started(size=3, passive=1)
    moved = next(server_id for server_id in cluster.ids if server_id != leader.node.settings.server_id)
    cluster.crash(moved)
    cluster.run(0.4)
    plan = outcome(cluster, leader.plan(move={moved: "s4"}))
    assert plan["servers"] == [{"server_id": moved, "is_reachable": True, "detail": "reachable"}]
    assert (plan["is_quorum_left"], plan["notes"]) == (True, [])
    plan = outcome(cluster, leader.plan(move={moved: "nowhere"}))
    assert plan["notes"] == [f"{moved} cannot be reached: that counts as failed."]


def test_a_member_that_moves_is_what_it_was_and_is_reached_elsewhere():
    """M19."""
    cluster, leader = started(size=3, passive=1)
    outcome(cluster, leader.change(learners=["s4"]))
    plan = outcome(cluster, leader.plan(move={"s4": "elsewhere"}))
    assert plan["servers"] == [
        {"server_id": "s4", "is_reachable": False, "detail": "cannot connect: nobody there"},
    ]
    assert (plan["refusal"], plan["before"]) == (None, plan["after"])
    assert outcome(cluster, leader.plan(move={"s4": "s4"}))["servers"] == [], "it is there already"
    before = leader.members()
    answer = outcome(cluster, leader.change(move={"s4": "elsewhere"}))
    moved = {member["server_id"]: (member["role"], member["address"]) for member in answer["members"]}
    assert moved["s4"] == ("learner", "elsewhere")
    assert [member["role"] for member in answer["members"]] == [member["role"] for member in before]
    refused = outcome(cluster, leader.change(move={"s9": "elsewhere"}))
    assert isinstance(refused, ChangeRefused)


def test_a_sentence_begins_with_a_capital_letter_unless_it_begins_with_a_name():
    """A file or a server that is spelt otherwise is another one."""
    cases = {
        "nothing has been applied yet": "Nothing has been applied yet",
        "monday: there already": "monday: there already",
        "backups/monday: there is no such directory.": "backups/monday: there is no such directory",
        "a:1 is no member of this cluster": "a:1 is no member of this cluster",
        "": "",
    }
    assert {text: as_sentence(text) for text in cases} == cases
