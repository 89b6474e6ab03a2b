"""What the commands that ask a running cluster print, and how they end. See also test_grow.py, with real servers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from typing import Any

from admin_stub import Reply, StubServers, refusal
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.admin import changing, operating, raftctl, reconfigure
from txraft.admin.changing import Asked
from txraft.admin.operating import ProgressLine, Screen, Target, carry_out, find_target
from txraft.errors import ChangeRefused, ConfigError, NotLeader

A, B = "a:29998", "b:29998"


def member(server_id: str, role: str = "voter", link: str = "connected", **facts: Any) -> dict[str, Any]:
    """One server, as `/v1/members` of the leader has it."""
    plain = {
        "address": server_id,
        "client_address": "",
        "admin_address": "",
        "match_index": 7,
        "lag": 0,
        "silent_s": 0.0,
        "is_leader": False,
        "is_silent": False,
    }
    return {"server_id": server_id, "role": role, "link": link, **plain, **facts}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class OperatingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.servers = StubServers()
        self.out, self.err = io.StringIO(), io.StringIO()

    def end(self, work: operating.Work, is_json: bool = False) -> int:
        """Do it; the exit status."""
        ended = carry_out(
            work, Target((A,)), Screen(self.out, self.err, is_json), self.servers, self.servers.clock, 10.0
        )
        self.servers.pass_time(60)
        return self.successResultOf(ended)

    def usage(self, main: Any, *arguments: str) -> str:
        """What is said of a command line that cannot be understood."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            error = self.assertRaises(SystemExit, main, arguments)
        self.assertEqual(error.code, 2)
        return said.getvalue().splitlines()[-1]


class EndTests(OperatingTestCase):
    def test_a_failure_is_a_sentence_and_status_1(self) -> None:
        self.servers.handlers = {A: lambda path, body: refusal(ChangeRefused("no voter would be left"))}
        self.assertEqual(self.end(lambda client, screen: client.remove(["a"])), 1)
        self.assertEqual(
            (self.out.getvalue(), self.err.getvalue()), ("", "No voter would be left. Nothing was done.\n")
        )

    def test_a_failure_is_json_too(self) -> None:
        self.servers.handlers = {A: lambda path, body: refusal(ChangeRefused("no voter would be left"))}
        self.assertEqual(self.end(lambda client, screen: client.remove(["a"]), is_json=True), 1)
        self.assertEqual(json.loads(self.out.getvalue())["error"]["code"], "change_refused")

    def test_nobody_there_is_a_sentence_and_status_1(self) -> None:
        self.assertEqual(self.end(lambda client, screen: client.status()), 1)
        self.assertEqual(self.err.getvalue(), "Nobody answers at a:29998: Connection refused. Nothing was done.\n")

    def test_whom_it_asks_instead_is_told_on_stderr(self) -> None:
        answers = {A: refusal(NotLeader("b:29922", admin_address=B)), B: (200, {"members": []})}
        self.servers.handlers = {name: lambda path, body, name=name: answers[name] for name in answers}
        self.assertEqual(self.end(lambda client, screen: changing.change(client, screen, client.add(["c"]))), 0)
        self.assertEqual(self.err.getvalue(), f"{A}: not the leader; it is b:29922. Asking {B}.\n")
        self.assertIn("Done.", self.out.getvalue())


class UsageTests(OperatingTestCase):
    def test_what_is_no_server_is_named(self) -> None:
        cases = [("add", "a b"), ("remove", "a:0"), ("transfer", ""), ("status", "--server", "a:port")]
        for arguments in cases:
            self.assertIn(repr(arguments[-1]), self.usage(raftctl.main, *arguments), arguments)

    def test_servers_are_replaced_in_pairs(self) -> None:
        self.assertIn("b has no other", self.usage(raftctl.main, "replace", "b"))
        self.assertIn("twice", self.usage(raftctl.main, "replace", "a", "b", "a", "c"))
        self.assertEqual(raftctl.parse(["replace", "a", "b", "c", "d"]).servers, {"a": "b", "c": "d"})

    def test_reconfigure_wants_something_to_do(self) -> None:
        self.assertIn("nothing to do", self.usage(reconfigure.main))
        self.assertIn("'b:x'", self.usage(reconfigure.main, "-a", "a,b:x"))
        self.assertIn("''", self.usage(reconfigure.main, "-a", "a,"))

    def test_a_timeout_is_a_number_of_seconds(self) -> None:
        for text in ("0", "-1", "nan", "inf", "soon"):
            self.assertIn("expected seconds", self.usage(raftctl.main, "status", f"--timeout={text}"))

    def test_the_options_of_the_original_are_all_there(self) -> None:
        short = reconfigure.parse(["-l", "a", "-a", "b,c:1", "-d", "d", "-t", "e", "-s"])
        long = ["--leader_address=a", "--add_servers=b,c:1", "--del_servers=d", "--target_server=e", "--show_servers"]
        self.assertEqual(short, reconfigure.parse(long))
        self.assertEqual((short.server, short.add_servers), (["a:29998"], ["b", "c:1"]))
        self.assertEqual(reconfigure.parse(["-s"]).server, ["localhost:29998"])


class TargetTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o600)
        return path

    def test_the_server_is_that_of_the_option_else_of_raft_conf_else_here(self) -> None:
        config = self.write("raft.conf", "http_server_port=1234\n")
        self.assertEqual(find_target([A, B], config, None).servers, (A, B))
        self.assertEqual(find_target([], config, None).servers, ("127.0.0.1:1234",))
        self.assertEqual(find_target([], None, None).servers, ("localhost:29998",))
        everywhere = self.write("raft.conf", "http_bind_ip=::\nadmin_token_file=token\n")
        self.write("token", "a-secret-of-ours\n")
        self.assertEqual(find_target([], everywhere, None), Target(("[::1]:29998",), "a-secret-of-ours"))

    def test_a_state_machine_is_found_where_twistd_finds_it(self) -> None:
        self.write(
            "machine_found_here.py", "from txraft.machines.kv_plugin import KeyValuePlugin\nplugin = KeyValuePlugin()\n"
        )
        config = self.write("raft.conf", "state_machine=machine_found_here:plugin\nkv_port=1\n")
        self.patch(sys, "path", [*sys.path])
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.assertEqual(find_target([], config, None).servers, ("127.0.0.1:29998",))

    def test_a_server_without_admin_http_is_not_asked(self) -> None:
        config = self.write("raft.conf", "http_server_port=off\n")
        self.assertRaises(ConfigError, find_target, [], config, None)
        self.assertEqual(find_target([A], config, None).servers, (A,))

    def test_a_raft_conf_that_cannot_be_used_says_where(self) -> None:
        config = self.write("raft.conf", "http_server_port=nowhere\n")
        [problem] = self.assertRaises(ExceptionGroup, find_target, [], config, None).exceptions
        self.assertIn(f"{config}:1: http_server_port", str(problem))

    def test_the_token_is_one_word_of_a_file(self) -> None:
        target = find_target([], None, self.write("token", "a-secret-of-ours\n"))
        self.assertEqual(target.token, "a-secret-of-ours")
        self.assertNotIn("secret", repr(target))
        for text in ("", "two words", "a\r\nHost: b"):
            self.assertRaises(ConfigError, find_target, [], None, self.write("token", text))
        self.assertRaises(ConfigError, find_target, [], None, os.path.join(self.directory, "absent"))
        os.chmod(self.write("token", "a-secret-of-ours\n"), 0o644)
        error = self.assertRaises(ConfigError, find_target, [], None, os.path.join(self.directory, "token"))
        self.assertIn("--token-file: ", str(error), "who wrote it down for everybody is told so")


class ScreenTests(OperatingTestCase):
    def test_an_answer_stands_below_the_progress_line(self) -> None:
        self.out = self.err = Terminal()
        screen = Screen(self.out, self.err)
        screen.progress.show({"catching_up": [], "snapshots": [], "hand_over_to": "b"})
        screen.answer({}, ["Done."])
        self.assertEqual(self.out.getvalue(), "\rhanding over to b\nDone.\n")


class ProgressTests(SynchronousTestCase):
    def progress(self, round: int, match_index: int) -> dict[str, Any]:
        server = {"server_id": "b", "round": round, "rounds": 10, "goal_index": 1000, "match_index": match_index}
        return {"catching_up": [server], "snapshots": [], "hand_over_to": None}

    def test_on_a_terminal_one_line_is_drawn_over_itself(self) -> None:
        stream = Terminal()
        line = ProgressLine(stream, True, Clock().seconds)
        line.show(self.progress(1, 999))
        line.show(self.progress(1, 999))
        line.show(self.progress(2, 0))
        line.show({"catching_up": [], "snapshots": [], "hand_over_to": None})
        line.end()
        long = "b catches up: round 1 of at most 10, entry 999 of 1,000 (99 %)"
        short = "b catches up: round 2 of at most 10, entry 0 of 1,000 (0 %)"
        self.assertEqual(stream.getvalue(), f"\r{long}\r{short:{len(long)}}\n")

    def test_elsewhere_a_line_now_and_then_is_enough(self) -> None:
        stream, clock = io.StringIO(), Clock()
        line = ProgressLine(stream, False, clock.seconds)
        for match_index in range(100):
            line.show(self.progress(1, match_index))
            clock.advance(0.5)
        line.end()
        lines = stream.getvalue().splitlines()
        self.assertEqual(lines[0], "b catches up: round 1 of at most 10, entry 0 of 1,000 (0 %)")
        self.assertEqual(len(lines), 10)


class PlanTests(OperatingTestCase):
    def plan(self, **facts: Any) -> int:
        half = {"voters": ["a"], "learners": [], "quorum": 1, "failures_survived": 0}
        answer = {"before": half, "after": half, "servers": [], "refusal": None, "notes": []}
        answer |= {"is_quorum_left": True, **facts}
        self.servers.handlers = {A: lambda path, body: (200, answer)}
        return self.end(lambda client, screen: changing.plan_change(client, screen, Asked(add=("b",))))

    def test_the_status_is_0_only_if_the_change_could_be_made(self) -> None:
        server = {"server_id": "b", "is_reachable": True, "detail": "reachable"}
        self.assertEqual(self.plan(servers=[server]), 0)
        self.assertEqual(self.plan(servers=[{**server, "is_reachable": False, "detail": "refused"}]), 1)
        self.assertEqual(self.plan(refusal="another change is under way"), 1)
        self.assertEqual(self.plan(is_quorum_left=False), 1)
        self.assertEqual({line.split(" ", 1)[1] for line in self.servers.seen}, {"POST /v1/members/plan"})

    def transfer(self, target: str, *members: dict[str, Any]) -> int:
        self.servers.handlers = {A: lambda path, body: (200, {"leader_id": None, "members": members})}
        return self.end(lambda client, screen: changing.plan_transfer(client, screen, target))

    def test_a_hand_over_is_planned_from_what_the_leader_knows(self) -> None:
        leader = member("a:1", link="this server", is_leader=True)
        cases = [
            ("b", member("b:1"), 0, "from a:1 to b:1"),
            ("b:1", member("b:1", lag=12), 0, "b:1 lacks 12 entries"),
            ("c", member("b:1"), 1, "REFUSED: c:1 is no member of this cluster."),
            ("b", member("b:1", role="learner"), 1, "REFUSED: b:1 is no voter."),
            ("b", member("b:1", link="refused"), 1, "REFUSED: b:1 cannot be reached from the leader: refused."),
            ("b", member("b:1", silent_s=3.04, is_silent=True), 1, "b:1 does not answer the leader: it was last heard"),
            ("b", member("b:1", lag=None), 1, "REFUSED: the leader cannot be asked."),
        ]
        for target, other, status, said in cases:
            self.assertEqual(self.transfer(target, leader, other), status, said)
            self.assertIn(said, self.out.getvalue())
        self.assertEqual({line.split(" ", 1)[1] for line in self.servers.seen}, {"GET /v1/members"})

    def test_without_a_leader_nothing_can_be_handed_over(self) -> None:
        self.assertEqual(self.transfer("b", member("a:1"), member("b:1")), 1)
        self.assertIn("REFUSED: no leader is known.", self.out.getvalue())


class ReconfigureTests(OperatingTestCase):
    def reconfigure(self, *arguments: str) -> int:
        options = reconfigure.parse(arguments)
        return self.end(lambda client, screen: reconfigure.reconfigure(client, screen, options))

    def test_the_order_of_work_is_the_originals(self) -> None:
        done: Reply = (200, {"members": [member("a:1"), member("b:1")]})
        bodies = []

        def note(path: str, body: Any) -> Reply:
            if path != "/v1/progress":
                bodies.append((path.removeprefix("/v1/"), body))
            return done

        self.servers.handlers = {A: note}
        self.assertEqual(self.reconfigure("-d", "e,f", "-a", "b,c", "-t", "d", "-s"), 0)
        wanted = [
            ("members", None),
            ("transfer", {"server": "d"}),
            ("members/add", {"servers": ["b"], "learner": False}),
            ("members/add", {"servers": ["c"], "learner": False}),
            ("members/remove", {"servers": ["e"]}),
            ("members/remove", {"servers": ["f"]}),
        ]
        self.assertEqual(bodies, wanted)
        said = self.out.getvalue().splitlines()
        self.assertEqual(said[0], "server address list: a:1,b:1")
        self.assertEqual(said[3:5], [f"request the leader[{A}] to add server b", "succeed"])

    def test_a_plan_shows_the_hand_over_and_the_members_and_changes_nothing(self) -> None:
        bodies = []

        def note(path: str, body: Any) -> Reply:
            if path == "/v1/members":
                return 200, {"members": [member("a:1", is_leader=True, link="this server"), member("d:1")]}
            bodies.append((path, body))
            constitution = {"voters": ["a:1"], "learners": [], "quorum": 1, "failures_survived": 0}
            plan = {"before": constitution, "after": constitution, "servers": [], "notes": []}
            plan["is_quorum_left"] = True
            return 200, {**plan, "refusal": "no" if body["remove"] == ["x"] else None}

        self.servers.handlers = {A: note}
        self.assertEqual(self.reconfigure("--plan", "-d", "e", "-a", "b,c", "-t", "d", "-s"), 0)
        said = self.out.getvalue()
        self.assertIn("server address list: a:1,d:1", said)
        self.assertIn("The leadership would go from a:1 to d:1.", said)
        self.assertIn("survives", said)
        [(path, body)] = bodies
        self.assertEqual((path, body["add"], body["remove"]), ("/v1/members/plan", ["b", "c"], ["e"]))
        self.assertEqual(self.reconfigure("--plan", "-d", "x", "-t", "d"), 1, "one of the two would fail")
        self.assertEqual(self.reconfigure("--plan", "-t", "b"), 1)

    def test_what_fails_ends_it_with_status_1(self) -> None:
        """The original goes on, and ends with 0: servers are removed although the new ones are not there."""
        self.servers.handlers = {A: lambda path, body: refusal(ChangeRefused("no"))}
        self.assertEqual(self.reconfigure("-a", "b", "-d", "c"), 1)
        self.assertEqual(self.out.getvalue().splitlines()[1], "failed to add server b: INVALID_SERVER")
        self.assertEqual(self.err.getvalue(), "No. Nothing was done.\n")
        self.assertEqual(self.servers.seen, [f"{A} POST /v1/members/add"])
