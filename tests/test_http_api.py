"""The admin API under /v1 over whole simulated servers; every answer is checked against the OpenAPI document."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
from http_support import Admin, follower_of, started
from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from txraft.admin.http_api import ROUTES
from txraft.admin.http_openapi import document
from txraft.admin.http_site import all_endpoints
from txraft.admin.problems import KINDS_BY_CODE
from txraft.admin.schema import problem_with
from txraft.config import KEYS


def voters(answer):
    return sorted(member["server_id"] for member in answer.json["members"] if member["role"] == "voter")


def test_a_cluster_grows_shrinks_and_is_handed_over():
    cluster, admin = started(size=1, passive=2)
    assert voters(admin.post("/v1/members/add", {"servers": ["s2", "s3"]})) == ["s1", "s2", "s3"]
    assert admin.post("/v1/transfer", {"server": "s2"}).json["leader_id"] == "s2"
    elsewhere = admin.post("/v1/members/remove", {"servers": ["s1"]})
    assert elsewhere.code == 421
    leader = Admin(cluster, cluster.elect())
    assert voters(leader.post("/v1/members/remove", {"servers": ["s1"]})) == ["s2", "s3"]
    cluster.run(1)
    assert admin.ask("GET", "/v1/status").json["role"] == "removed"


def test_a_learner_is_replaced_by_a_learner():
    _, admin = started(size=1, passive=2)
    admin.post("/v1/members/add", {"servers": ["s2"], "learner": True})
    answer = admin.post("/v1/members/replace", {"servers": {"s2": "s3"}})
    assert [(member["server_id"], member["role"]) for member in answer.json["members"]][-1] == ("s3", "learner")


def test_who_is_not_the_leader_names_it_and_where_it_serves():
    cluster, leader = started()
    leader_id = leader.operations.node.settings.server_id
    answer = follower_of(cluster, leader).post("/v1/members/remove", {"servers": ["s9"]})
    assert answer.code == 421
    error = answer.json["error"]
    told = (error["code"], error["leader_id"], error["leader_admin_address"])
    assert told == ("not_leader", leader_id, f"{leader_id}.example:29998")


def test_a_change_is_held_open_until_it_is_decided():
    cluster, admin = started(size=3, passive=1)
    cluster.crash("s4")
    body = json.dumps({"servers": ["s4"]}).encode()
    asked = admin.begin("POST", "/v1/members/add", body, content_type="application/json")
    cluster.run(1)
    assert not asked.is_answered
    assert admin.ask("GET", "/v1/progress").json["catching_up"][0]["server_id"] == "s4"
    refused = admin.post("/v1/members/add", {"servers": ["s9"]})
    assert (refused.code, refused.json["error"]["code"]) == (409, "change_under_way")
    assert cluster.run_until(lambda: asked.is_answered)
    assert (asked.answer.code, asked.answer.json["error"]["code"]) == (409, "change_failed")


def test_whoever_leaves_before_the_answer_is_not_missed():
    """T06: what was begun goes on, and nothing fails."""
    cluster, admin = started(size=1, passive=1)
    body = json.dumps({"servers": ["s2"]}).encode()
    asked = admin.begin("POST", "/v1/members/add", body, content_type="application/json")
    asked.channel.connectionLost(Failure(ConnectionDone()))
    with capturedLogs() as events:
        cluster.run(2)
    assert not [event for event in events if "log_failure" in event]
    assert not admin.resource.under_way
    assert [member["role"] for member in admin.ask("GET", "/v1/members").json["members"]] == ["voter", "voter"]


def test_everything_can_be_looked_at_on_every_server():
    cluster, leader = started(size=2, passive=1)
    for node in cluster.running():
        admin = Admin(cluster, node)
        for route in ROUTES:
            if route.method == "GET":
                assert admin.ask("GET", route.path).code == 200
    page = leader.ask("GET", "/v1/log?first=1&count=1&payloads=true").json
    assert [(entry["index"], entry["kind"]) for entry in page["entries"]] == [(1, "configuration")]
    assert "s1" in page["entries"][0]["payload"]


def test_a_stopped_server_says_so():
    cluster, admin = started(size=1)
    admin.operations.node.stopService()
    cluster.run(10)
    answer = admin.post("/v1/members/add", {"servers": ["s2"]})
    assert (answer.code, answer.json["error"]["code"], answer.headers["Retry-After"]) == (503, "stopped", "1")


def test_a_plan_changes_nothing():
    _, admin = started(size=3, passive=1)
    before = admin.ask("GET", "/v1/status").json["last_index"]
    plan = admin.post("/v1/members/plan", {"add": ["s4"], "remove": ["s1"], "learners": [], "replace": {}}).json
    assert plan["after"]["voters"] == ["s2", "s3", "s4"]
    assert plan["servers"][0]["is_reachable"] is True
    assert admin.ask("GET", "/v1/status").json["last_index"] == before


def test_a_snapshot_is_taken_where_it_is_asked_for():
    cluster, leader = started()
    assert Admin(cluster, leader.operations.node).post("/v1/snapshot", {"first": 1}).code == 400
    cluster.run(1)
    for admin in (leader, follower_of(cluster, leader)):
        answer = admin.post("/v1/snapshot", {})
        assert (answer.code, answer.json["last_index"]) == (200, admin.operations.node.raft.applied_index)
        assert answer.json["seconds"] >= answer.json["stall_s"] >= 0
        again = admin.post("/v1/snapshot", {}).json
        assert (again["last_index"], again["seconds"]) == (answer.json["last_index"], None), "it was there already"


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/v1/members/add", b"", "the body is not JSON"),
        ("/v1/members/add", b"[" * 60000, "the body is not JSON"),
        ("/v1/members/add", b"9" * 60000, "the body is not JSON"),
        ("/v1/members/add", b"[]", "the body: expected object"),
        ("/v1/members/add", b"{}", "servers: is missing"),
        ("/v1/members/add", b'{"servers": []}', "servers: expected items from 1 to 100"),
        ("/v1/members/add", b'{"servers": ["a", 1]}', "servers[1]: expected string"),
        ("/v1/members/add", b'{"servers": ["s2"], "learner": 1}', "learner: expected boolean"),
        ("/v1/members/add", b'{"servers": ["s2"], "x": 1}', "x: is not known"),
        ("/v1/members/add", b'{"servers": ["a b"]}', "'a b' is no name"),
        ("/v1/members/replace", b'{"servers": {"s1": null}}', "servers.s1: expected string"),
        ("/v1/transfer", b'{"server": ""}', "server: expected a text of length from 1 to 300"),
        ("/v1/members/plan", b'{"add": "s1"}', "add: expected array"),
    ],
)
def test_a_body_that_is_not_as_it_should_be_is_refused_with_the_place(path, body, why):
    _, admin = started(size=1)
    answer = admin.ask("POST", path, body, content_type="application/json")
    assert (answer.code, answer.json["error"]["code"], answer.json["error"]["message"]) == (400, "bad_request", why)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("count=0", "count: expected a number from 1 to 1000, not '0'"),
        ("count=abc", "count: expected integer, not 'abc'"),
        ("count=1&count=2", "count: is there 2 times"),
        ("payloads=maybe", "payloads: expected boolean, not 'maybe'"),
        ("colour=red", "colour: is not known; there is first, count, payloads"),
        ("first=%ff", "a parameter is not UTF-8"),
        ("first=-1", "first: expected a number from 0, not '-1'"),
    ],
)
def test_a_parameter_that_is_not_as_it_should_be_is_refused(query, why):
    _, admin = started(size=1)
    answer = admin.ask("GET", f"/v1/log?{query}")
    assert (answer.code, answer.json["error"]["message"]) == (400, why)


def test_the_document_describes_every_route_and_nothing_else():
    _, admin = started(size=1)
    served = admin.ask("GET", "/v1/openapi.json").json
    assert served == json.loads(json.dumps(document()))
    described = {(path, method.upper()) for path, methods in served["paths"].items() for method in methods}
    assert described == {
        (endpoint.path, endpoint.method)
        for endpoint in all_endpoints(admin.operations)
        if endpoint.path.startswith("/v1")
    }
    names = [operation["operationId"] for methods in served["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_every_reference_in_the_document_leads_somewhere():
    text = json.dumps(document())
    for reference in text.split('"$ref": "')[1:]:
        at: object = document()
        for part in reference.partition('"')[0].removeprefix("#/").split("/"):
            assert isinstance(at, dict)
            at = at[part]


def test_the_document_is_one_that_others_can_read():
    """Only keywords that JSON Schema has, everywhere: `problem_with` fails on any other."""
    for schema in document()["components"]["schemas"].values():
        problem_with({}, schema, document()["components"]["schemas"])
    assert document()["openapi"] == "3.1.0"


def test_the_manual_names_paths_and_codes_that_there_are():
    _, admin = started(size=1)
    text = (pathlib.Path(__file__).parents[1] / "docs" / "admin.md").read_text()
    paths = {endpoint.path for endpoint in all_endpoints(admin.operations)}
    named = {*re.findall(r"/v1/[a-z_/]+(?:\.json)?", text), *re.findall(r"`(?:POST |GET )?(/[a-uw-z][a-z_]*)", text)}
    assert named <= paths, named - paths
    assert len(named) >= 9
    codes = set(re.findall(r"`([a-z]+_[a-z_]+)`", text))
    assert codes <= {*KINDS_BY_CODE, *KEYS, "leader_admin_address"}, codes
    assert all(code in text for code in ("not_leader", "change_under_way", "change_failed", "outcome_unknown"))
