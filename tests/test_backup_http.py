"""`POST /v1/backup`: a fresh snapshot that holds what it should, sent in pieces, held while it is sent."""

from __future__ import annotations

import json

import pytest
from http_support import Admin, Exchange, follower_of, started
from test_reconfiguration import outcome
from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from txraft.admin.http_stream import PIECE_BYTES, STALL_S
from txraft.node.saving import APPLIED_WITHIN_S
from txraft.storage.snapshot_format import Decoder

TOKEN = b"0123456789abcdef-secret"


def written(size=3, commands=3, command_bytes=20, **options):
    """A cluster with some state, and the leader's admin HTTP."""
    cluster, leader = started(size=size, **options)
    for number in range(commands):
        outcome(leader.operations.node.propose(b"%d" % number + bytes(command_bytes)))
    cluster.run(1)
    return cluster, leader


def large(**options):
    """One server whose snapshot is sent in many pieces."""
    return written(size=1, commands=40, command_bytes=PIECE_BYTES // 8, **options)


def begin(admin: Admin, body: object = {}, **headers: str) -> Exchange:
    return admin.begin("POST", "/v1/backup", json.dumps(body).encode(), content_type="application/json", **headers)


def decoded(data: bytes) -> Decoder:
    """The file, whole and intact."""
    decoder = Decoder()
    decoder.feed(data)
    decoder.finish(len(data))
    return decoder


def begun(cluster, admin):
    """An answer of which some pieces are there, and no more come."""
    exchange = begin(admin)
    assert cluster.run_until(lambda: b"\r\n\r\n" in exchange.transport.value())
    exchange.transport.producer.pauseProducing()
    cluster.run(1)
    assert not exchange.is_answered
    return exchange


# -- what is in it


def test_the_leader_sends_all_that_was_acknowledged():
    _, leader = written()
    answer = leader.post("/v1/backup", {})
    assert (answer.code, answer.headers["Content-Type"]) == (200, "application/octet-stream")
    meta = decoded(answer.body).meta
    assert meta.last_index == leader.operations.node.raft.applied_index
    assert f'filename="{meta.last_index}-{meta.last_term}.snapshot"' in answer.headers["Content-Disposition"]


def test_one_that_had_begun_before_is_not_enough(monkeypatch):
    """S08: what is acknowledged while a snapshot is being written is not in that one."""
    # After a child that dies the next attempt begins later, and would hold it.
    monkeypatch.setattr("txraft.testing.forker.DEATHS", 0)
    cluster, leader = written()
    node = leader.operations.node
    early, acknowledged = [], []
    cluster.servers[node.settings.server_id].disk_seconds = lambda: 0.1
    node.take_snapshot().addCallback(early.append)
    node.propose(b"acknowledged").addCallback(acknowledged.append)
    assert cluster.run_until(lambda: acknowledged)
    assert not early
    needed = node.raft.applied_index
    meta = decoded(leader.post("/v1/backup", {}).body).meta
    assert early[0].meta.last_index < needed <= meta.last_index


def test_who_is_not_the_leader_says_so_unless_it_is_said_what_is_needed():
    cluster, leader = written()
    other = follower_of(cluster, leader)
    assert other.post("/v1/backup", {}).json["error"]["code"] == "not_leader"
    assert other.post("/v1/read_index", {}).json["error"]["code"] == "not_leader"
    index = leader.post("/v1/read_index", {}).json["index"]
    assert decoded(other.post("/v1/backup", {"at_least": index}).body).meta.last_index >= index


def test_a_leader_that_is_one_no_more_does_not_claim_to_have_everything():
    """C01: it would not know what another leader has acknowledged since."""
    cluster, leader = written()
    leader_id = leader.operations.node.settings.server_id
    cluster.network.partition([leader_id], [each for each in cluster.ids if each != leader_id])
    assert leader.post("/v1/backup", {}).json["error"]["code"] == "not_leader"


def test_what_is_not_applied_yet_is_waited_for_and_given_up_if_it_does_not_come():
    cluster, leader = written()
    node = leader.operations.node
    index = node.raft.log.last_index + 1
    exchange = begin(leader, {"at_least": index})
    cluster.run(APPLIED_WITHIN_S / 2)
    assert not exchange.is_answered
    outcome(node.propose(b"at last"))
    assert cluster.run_until(lambda: exchange.is_answered)
    assert decoded(exchange.answer.body).meta.last_index == index
    refused = leader.post("/v1/backup", {"at_least": 10**12}).json["error"]
    assert refused["code"] == "snapshot_refused"
    assert f"entry {10**12} did not come within 30 s: this server has applied {index}" in refused["message"]


def test_a_body_that_is_not_as_it_should_be_is_refused():
    _, leader = started(size=1)
    for body, why in (({"at_least": -1}, "from 0"), ({"at_least": "1"}, "integer"), ({"x": 1}, "is not known")):
        answer = leader.post("/v1/backup", body)
        assert (answer.code, why in answer.json["error"]["message"]) == (400, True), body


def test_a_disk_on_which_no_snapshot_can_be_made_is_a_refusal_and_no_harm():
    cluster, leader = written(size=1)
    cluster.servers["s1"].disk.fill()
    assert leader.post("/v1/backup", {}).json["error"]["code"] == "snapshot_refused"
    cluster.servers["s1"].disk.fill(False)
    assert leader.operations.node.failure is None
    assert leader.post("/v1/backup", {}).code == 200


def test_the_token_and_the_origin_are_asked_for_as_everywhere():
    _, admin = written(size=1, token=TOKEN)
    assert admin.post("/v1/backup", {}).code == 401
    bearer = f"Bearer {TOKEN.decode()}"
    assert admin.post("/v1/backup", {}, authorization=bearer, origin="http://evil.example").code == 403
    assert admin.post("/v1/backup", {}, authorization=bearer).code == 200
    assert admin.operations.node.status().snapshots.taking.taken == 1


# -- how it is sent


def test_who_takes_nothing_is_sent_nothing_and_what_is_read_waits():
    """N01: of a large file, a piece or two are in memory."""
    cluster, admin = large()
    exchange = begun(cluster, admin)
    size = len(exchange.transport.value())
    assert size < 4 * PIECE_BYTES
    cluster.run(5)
    assert len(exchange.transport.value()) == size
    exchange.transport.producer.resumeProducing()
    assert cluster.run_until(lambda: exchange.is_answered)
    assert len(exchange.answer.body) > 4 * PIECE_BYTES
    decoded(exchange.answer.body)
    assert not admin.resource.under_way


def test_the_file_is_held_while_it_is_sent_although_newer_ones_take_its_place():
    """S06: and what is sent is one of them, whole."""
    cluster, admin = large()
    node = admin.operations.node
    exchange = begun(cluster, admin)
    index = node.status().snapshots.index
    for _ in range(3):
        outcome(node.propose(b"more"))
        cluster.run(1)
        admin.post("/v1/snapshot", {})
    kept = [snapshot.meta.last_index for snapshot in node.snapshots._store.kept()]
    assert index not in kept, "it is gone from the directory"
    exchange.transport.producer.resumeProducing()
    assert cluster.run_until(lambda: exchange.is_answered)
    assert decoded(exchange.answer.body).meta.last_index == index


def test_it_is_not_sent_more_quickly_than_is_allowed():
    bandwidth = PIECE_BYTES // 3
    cluster, admin = large(bandwidth=bandwidth)
    exchange = begin(admin)
    assert cluster.run_until(lambda: exchange.transport.value())
    for seconds in range(1, 10):
        cluster.run(1)
        sent = len(exchange.transport.value())
        assert (seconds - 1) * bandwidth < sent < (seconds + 2) * bandwidth, seconds
    assert cluster.run_until(lambda: exchange.is_answered, 60)
    decoded(exchange.answer.body)


def test_who_goes_away_while_the_next_piece_has_to_wait_lets_go_of_the_file():
    cluster, admin = large(bandwidth=PIECE_BYTES // 100)
    exchange = begin(admin)
    assert cluster.run_until(lambda: exchange.transport.value())
    exchange.channel.connectionLost(Failure(ConnectionDone()))
    size = len(exchange.transport.value())
    cluster.run(10)
    assert (open_files(cluster), len(admin.resource.under_way), len(exchange.transport.value())) == ([], 0, size)


def test_one_that_the_disk_has_damaged_is_noticed_and_another_is_sent():
    """S11: nothing was applied since that one was taken, so it would do if it were good."""
    cluster, admin = written(size=1)
    assert admin.post("/v1/snapshot", {}).code == 200
    node, disk = admin.operations.node, cluster.servers["s1"].disk
    [snapshot] = node.snapshots._store.kept()
    [path] = [name for name in disk.file_names() if name.endswith(".snapshot")]
    damaged = bytearray(disk.read_file(path))
    damaged[snapshot.size // 2] ^= 1
    disk.write_file(path, bytes(damaged))
    decoded(admin.post("/v1/backup", {}).body)
    assert (node.status().snapshots.taking.taken, node.status().snapshots.index) == (2, snapshot.meta.last_index)
    decoded(admin.post("/v1/backup", {}).body)
    assert node.status().snapshots.taking.taken == 2


def open_files(cluster):
    return [handle.path for handle in cluster.servers["s1"].disk._handles if "snapshots/" in handle.path]


def test_who_goes_away_lets_go_of_the_file():
    cluster, admin = large()
    exchange = begun(cluster, admin)
    assert len(open_files(cluster)) == 1
    exchange.channel.connectionLost(Failure(ConnectionDone()))
    cluster.run(1)
    assert (open_files(cluster), len(admin.resource.under_way)) == ([], 0)


def test_who_goes_away_before_it_begins_lets_go_of_the_file_too():
    cluster, admin = large()
    exchange = begin(admin)
    exchange.channel.connectionLost(Failure(ConnectionDone()))
    with capturedLogs() as events:
        cluster.run(5)
    assert not [event for event in events if "log_failure" in event]
    assert (open_files(cluster), len(admin.resource.under_way)) == ([], 0)


def test_who_takes_nothing_for_too_long_is_cut_off():
    """N03: a file that is held takes room."""
    cluster, admin = large()
    exchange = begun(cluster, admin)
    cluster.run(STALL_S + 1)
    assert exchange.transport.disconnecting


def test_who_is_slow_is_not_cut_off():
    cluster, admin = large()
    exchange = begun(cluster, admin)
    for _ in range(4):
        cluster.run(STALL_S * 0.8)
        exchange.transport.producer.resumeProducing()
        exchange.transport.producer.pauseProducing()
    assert not exchange.transport.disconnecting


def test_nobody_is_cut_off_because_our_own_disk_is_slow():
    cluster, admin = large()
    exchange = begun(cluster, admin)
    cluster.run(STALL_S / 2)
    cluster.servers["s1"].disk_seconds = lambda: STALL_S * 0.8
    exchange.transport.producer.resumeProducing()
    cluster.run(STALL_S)
    assert not exchange.transport.disconnecting


def test_a_file_that_cannot_be_read_to_its_end_ends_with_the_connection(monkeypatch):
    cluster, admin = large()
    exchange = begun(cluster, admin)
    cluster.servers["s1"].disk.fail("pread", 1)
    exchange.transport.producer.resumeProducing()
    with capturedLogs() as events:
        assert cluster.run_until(lambda: exchange.transport.disconnecting)
        cluster.run(1)
    assert any("was cut at byte" in str(event.get("log_format")) for event in events)
    assert (open_files(cluster), len(admin.resource.under_way)) == ([], 0)
    assert admin.operations.node.failure is None


def test_a_server_that_stops_cuts_what_it_sends_and_begins_nothing():
    """T13: whoever reads may be slower than anybody waits."""
    cluster, admin = large()
    exchange = begun(cluster, admin)
    late = begin(admin)
    admin.resource.cut_files()
    assert exchange.transport.disconnecting
    idle = admin.resource.when_idle()
    cluster.run(5)
    assert idle.called
    assert open_files(cluster) == []
    assert b"200 OK" not in late.transport.value()


def test_a_server_that_stops_waits_for_no_entry():
    cluster, admin = written(size=1)
    exchange = begin(admin, {"at_least": 10**9})
    admin.operations.node.stopService()
    cluster.run(3)
    assert exchange.answer.json["error"]["message"] == "this server is stopping"


@pytest.mark.parametrize("body", [{}, {"at_least": 0}])
def test_a_server_that_does_not_run_says_so(body):
    cluster, admin = written(size=1)
    admin.operations.node.stopService()
    cluster.run(10)
    assert admin.post("/v1/backup", body).json["error"]["code"] in ("stopped", "snapshot_refused")
