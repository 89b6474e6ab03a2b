"""What a running cluster saves when it is asked to: `raftctl snapshot`, with stub servers and with simulated ones."""

from __future__ import annotations

import io
import json
from typing import Any

from admin_stub import Reply, SimulatedServers, refusal
from test_operating import A, B, OperatingTestCase, member
from twisted.trial.unittest import SynchronousTestCase

from txraft.admin import raftctl, saving
from txraft.admin.asking import Asker
from txraft.admin.client import AdminClient
from txraft.admin.operating import Screen, Target, carry_out
from txraft.admin.problems import NOBODY_LEADS
from txraft.errors import SnapshotRefused
from txraft.testing.cluster import Cluster

TAKEN = {"last_index": 7, "bytes": 2000, "seconds": 1.5, "stall_s": 0.0042}


def members(*found: dict[str, Any]) -> Reply:
    return 200, {"leader_id": None, "members": list(found)}


class SnapshotTests(OperatingTestCase):
    """Of three servers, a leads; it has its admin port elsewhere than where it is asked."""

    def setUp(self) -> None:
        super().setUp()
        self.found = [
            member("a:1", admin_address=A, is_leader=True),
            member("b:1", admin_address=B),
            member("c:1", admin_address=""),
        ]
        self.reply: Reply = (200, TAKEN)
        self.servers.handlers = {A: self.answer, B: self.answer}

    def answer(self, path: str, body: Any) -> Reply:
        return members(*self.found) if path == "/v1/members" else self.reply

    def snapshot(self, *arguments: str, is_json: bool = False) -> int:
        options = raftctl.parse(["snapshot", *arguments])
        return self.end(lambda client, screen: saving.take_snapshot(client, screen, options.member), is_json)

    def test_the_leader_takes_it_unless_another_server_is_named(self) -> None:
        cases = [((), A), (("b",), B), (("b:1",), B), (("a",), A)]
        for arguments, server in cases:
            self.servers.seen.clear()
            self.assertEqual(self.snapshot(*arguments), 0)
            self.assertEqual(self.servers.seen[-1], f"{server} POST /v1/snapshot")

    def test_index_size_duration_and_stall_are_printed(self) -> None:
        self.assertEqual(self.snapshot(), 0)
        said = "Everything up to entry 7 is in it: 2,000 bytes, taken in 1.50 s with a stall of 4.2 ms.\n"
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), (said, ""))

    def test_one_that_was_there_already_has_no_duration(self) -> None:
        self.reply = (200, {**TAKEN, "seconds": None, "stall_s": None})
        self.assertEqual(self.snapshot(), 0)
        self.assertIn("2,000 bytes, was there already.", self.out.getvalue())

    def test_programs_get_what_the_server_answers(self) -> None:
        self.assertEqual(self.snapshot(is_json=True), 0)
        self.assertEqual(json.loads(self.out.getvalue()), TAKEN)

    def test_a_refusal_is_a_sentence_and_status_1(self) -> None:
        self.reply = refusal(SnapshotRefused("nothing has been applied yet"))
        self.assertEqual(self.snapshot(), 1)
        self.assertEqual(self.err.getvalue(), "Nothing has been applied yet. Nothing was done.\n")

    def test_who_is_no_member_or_cannot_be_asked_is_named(self) -> None:
        cases = [("d", "d:1 is no member of this cluster"), ("c", "where the admin port of c:1 is")]
        for server, why in cases:
            self.assertEqual(self.snapshot(server), 1)
            self.assertIn(why, self.err.getvalue())
        self.assertEqual([line for line in self.servers.seen if "POST" in line], [])

    def test_without_a_leader_it_is_waited_for_and_then_said(self) -> None:
        self.found[0]["is_leader"] = False
        self.assertEqual(self.snapshot(), 1)
        self.assertEqual(self.err.getvalue(), f"Not the leader, and none is known. {NOBODY_LEADS}\n")
        self.assertEqual(self.snapshot("b"), 0, "others need none")

    def test_a_server_that_is_silent_meanwhile_is_given_up(self) -> None:
        self.servers.handlers[A] = lambda path, body: members(*self.found) if path == "/v1/members" else None
        self.assertEqual(self.snapshot(), 1)
        self.assertIn("No answer from a:29998", self.err.getvalue())

    def test_what_is_no_server_is_refused_before_anybody_is_asked(self) -> None:
        self.assertIn("'a b'", self.usage(raftctl.main, "snapshot", "a b"))


class SimulatedTestCase(SynchronousTestCase):
    """Three servers with a leader, and some state; the first of the others is asked."""

    def setUp(self) -> None:
        self.cluster = Cluster(seed=4, size=3)
        self.cluster.start()
        self.servers = SimulatedServers(self.cluster)
        self.leader = self.cluster.elect()
        self.leader.propose_many([b"one", b"two"])
        self.cluster.run(1)
        leader_id = self.leader.settings.server_id
        self.others = [server_id for server_id in ("s1", "s2", "s3") if server_id != leader_id]
        self.client = AdminClient(Asker(self.servers, self.cluster.clock), [f"{self.others[0]}:29998"], 10.0)

    def end(self, work: Any) -> tuple[int, str, str]:
        """Do it; the exit status, and what is printed."""
        out, err = io.StringIO(), io.StringIO()
        target = Target((f"{self.others[0]}:29998",))
        ended = carry_out(work, target, Screen(out, err), self.servers, self.cluster.clock, 10.0)
        return self.servers.result(ended), out.getvalue(), err.getvalue()


class SimulatedSnapshotTests(SimulatedTestCase):
    def test_it_is_on_the_disk_of_the_server_that_was_meant(self) -> None:
        for server_id in (None, self.others[1]):
            taken = self.servers.result(self.client.snapshot(server_id))
            node = self.cluster.node(server_id or self.leader.settings.server_id)
            self.assertEqual(taken["last_index"], node.status().snapshots.index)
        self.assertEqual(self.cluster.node(self.others[0]).status().snapshots.index, 0)

    def test_what_is_printed_is_of_the_server(self) -> None:
        status, out, _ = self.end(lambda client, screen: saving.take_snapshot(client, screen, None))
        self.assertEqual(status, 0)
        self.assertRegex(out, r"^Everything up to entry \d is in it: \d+ bytes, taken in \d.\d\d s with a stall of ")
