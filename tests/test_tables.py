"""What people are shown of a server's answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.admin import tables
from txraft.admin.operations import Operations
from txraft.core.change import Change
from txraft.testing.cluster import Cluster


def operations(size: int = 3, passive: int = 0) -> tuple[Cluster, Operations]:
    """A cluster that has a leader, and the leader's operations."""
    cluster = Cluster(seed=1, size=size, passive=passive)
    cluster.start()
    leader = cluster.elect()
    cluster.run(1)
    return cluster, Operations(leader, read_server_id=str, seconds=lambda: cluster.clock.now)


class TableTests(SynchronousTestCase):
    def test_columns_stand_under_their_names_and_numbers_to_the_right(self) -> None:
        lines = tables.table(("name", "entries"), [("a", 1), ("long name", 12345), ("b", None)])
        self.assertEqual(
            lines, ["name       entries", "a                1", "long name   12,345", "b                -"]
        )

    def test_a_table_of_nothing_is_its_header(self) -> None:
        self.assertEqual(tables.table(("name", "entries"), []), ["name  entries"])

    def test_what_a_server_says_does_nothing_to_a_terminal(self) -> None:
        lines = tables.table(("name",), [("\x1b[2J\r\nx\u202e",)])
        self.assertEqual(lines, ["name", "\\x1b[2J\\r\\nx\\u202e"])
        self.assertTrue(all(line.isprintable() for line in tables.why(["\x1b]0;\x07"])))

    def test_durations_have_two_units_at_most(self) -> None:
        seconds = (0.5, 61, 3661, 90_061)
        self.assertEqual([*map(tables.duration, seconds)], ["0 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"])


class AnswerTests(SynchronousTestCase):
    """Of real servers: a field that is not there any more is found here."""

    def test_a_leader_shows_what_its_followers_have(self) -> None:
        _, found = operations()
        rows = [line.split() for line in tables.members(found.members())]
        self.assertEqual([row[0] for row in rows], ["server", "s1", "s2", "s3"])
        self.assertEqual(sorted(row[1] for row in rows[1:]), ["leader", "voter", "voter"])

    def test_why_a_link_is_down_stands_below_the_table_if_it_is_long(self) -> None:
        _, found = operations()
        why = "refused there: 's2' belongs to another cluster, which was recovered without it\x1b"
        lines = tables.members(
            [member | {"link": why} if member["is_leader"] else member for member in found.members()]
        )
        [leader_id] = [member["server_id"] for member in found.members() if member["is_leader"]]
        self.assertEqual(lines[-1], f"{leader_id}: {tables.printable(why)}")
        self.assertEqual(len(lines), 5)
        self.assertEqual(sum(" refused there  " in line for line in lines), 1)
        self.assertLess(max(map(len, lines[:-1])), 120)

    def test_a_status_says_who_leads_and_that_nothing_holds_it_up(self) -> None:
        _, found = operations()
        text = "\n".join(tables.status(found.status()))
        for fact in ("role        leader", "cluster     simulated", "It waits for nothing.", "up for      "):
            self.assertIn(fact, text)

    def test_a_status_has_the_log_the_newest_snapshot_and_those_on_their_way(self) -> None:
        cluster, found = operations()
        text = "\n".join(tables.status(found.status()))
        self.assertRegex(text, r"log +3 entries, [\d,]+ bytes in 1 segment\n")
        self.assertIn("0 taken, 0 sent, 0 received, since the start", text)
        found.node.take_snapshot()
        cluster.run(65)
        answer = found.status()
        answer["snapshots"]["transfers"] = [
            transfer | {"server_id": "s2", "direction": "to", "index": 3, "size": 8 << 20}
            for transfer in (
                {"bytes": 2 << 20, "bytes_per_s": float(1 << 20), "remaining_s": 6.0},
                {"bytes": 0, "bytes_per_s": 0.0, "remaining_s": None},
            )
        ]
        text = "\n".join(tables.status(answer))
        self.assertRegex(
            text,
            r"snapshot +of entry \d of 2023-11-14 22:13:\d\d UTC, \d+ bytes, 1 min [45] s old, "
            r"taken in 0.\d+ s with a stall of 0.0 ms",
        )
        self.assertRegex(text, r"snapshot to +s2: 2.0 MiB of 8.0 MiB \(25 %\), 1.0 MiB/s, 6 s to go")
        self.assertRegex(text, r"snapshot to +s2: 0 bytes of 8.0 MiB \(0 %\), 0 bytes/s, nothing has come yet")

    def test_a_passive_server_says_that_it_belongs_to_no_cluster(self) -> None:
        cluster, _ = operations(size=1, passive=1)
        text = "\n".join(tables.status(Operations(cluster.node("s2")).status()))
        self.assertIn("This server belongs to no cluster.", text)
        self.assertIn("must be asked to add it", text)

    def test_a_plan_shows_what_is_survived_before_and_after_and_who_cannot_be_reached(self) -> None:
        _, found = operations(size=1, passive=1)
        text = "\n".join(tables.plan(self.successResultOf(found.plan(add=["s2"]))))
        self.assertIn("quorum    1 of 1      2 of 2", text)
        self.assertIn("survives  0 failures  0 failures", text)
        self.assertIn("s2: NOT REACHABLE: ", text)

    def test_a_plan_says_what_would_be_refused(self) -> None:
        _, found = operations(size=1)
        text = "\n".join(tables.plan(self.successResultOf(found.plan(remove=["s1"]))))
        self.assertIn("REFUSED: no voter would be left.", text)

    def test_a_plan_says_when_nothing_would_change(self) -> None:
        _, found = operations(size=2, passive=1)
        asked: list[dict[str, list[str]]] = [
            {"remove": ["s9"]},
            {"add": ["s1"]},
            {"add": ["s3"]},
            {"remove": ["s1", "s2"]},
        ]
        texts = ["\n".join(tables.plan(self.successResultOf(found.plan(**each)))) for each in asked]
        self.assertEqual(["nothing would change" in text for text in texts], [True, True, False, False])

    def test_a_change_under_way_is_one_line_and_nothing_when_it_is_done(self) -> None:
        cluster, found = operations(size=1, passive=1)
        self.assertEqual(tables.progress(found.progress()), "")
        done = found.node.change_membership(Change(voters=("s2",)))
        self.assertRegex(tables.progress(found.progress()), r"^s2 catches up: round 1 of at most \d+, entry 0 of \d")
        cluster.run(5)
        self.successResultOf(done)
        self.assertEqual(tables.progress(found.progress()), "")

    def test_a_snapshot_on_its_way_to_a_new_server_is_told_in_bytes(self) -> None:
        server = {"server_id": "s2", "round": 1, "rounds": 10, "goal_index": 9, "match_index": 0}
        sent = {"server_id": "s2", "bytes": 3 << 20, "size": 12 << 20}
        found = {"catching_up": [server], "snapshots": [sent], "hand_over_to": None}
        self.assertEqual(tables.progress(found), "s2 catches up by a snapshot: 3.0 MiB of 12.0 MiB (25 %)")

    def test_a_page_of_the_log_shows_payloads_only_if_they_were_asked_for(self) -> None:
        cluster, found = operations(size=1)
        done = found.append(b"hello")
        cluster.run(1)
        self.successResultOf(done)
        self.assertNotIn("hello", "\n".join(tables.log(found.log())))
        lines = tables.log(found.log(payloads=True))
        self.assertIn("hello", lines[-2])
        self.assertRegex(lines[-1], r"^Entries 1 to \d; committed up to \d\.$")
