"""AdminClient: whom it asks, what it asks again, and what it says in the end."""

from __future__ import annotations

from typing import Any

from admin_stub import Reply, SimulatedServers, StubServers, refusal
from treq.client import HTTPClient
from twisted.internet.address import HostnameAddress
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent
from zope.interface import implementer

from txraft.admin import tables
from txraft.admin.asking import SILENT, Answered, Asker
from txraft.admin.client import AdminClient
from txraft.admin.problems import BadAnswer, NoAnswer, Unreachable
from txraft.errors import ChangeFailed, ChangeRefused, ChangeUnderWay, NotLeader, OutcomeUnknown
from txraft.testing.cluster import Cluster

A, B, C = "a:29998", "b:29998", "c:29998"
DONE: Reply = (200, {"leader_id": "b:29922", "members": []})
IDLE: Reply = (200, {"leader_id": "b:29922", "catching_up": [], "snapshots": [], "hand_over_to": None})


def leader(path: str, body: Any) -> Reply:
    """Does at once what it is asked."""
    return IDLE if path == "/v1/progress" else DONE


def busy(path: str, body: Any) -> Reply:
    """Is at it all the time, and says whom else there is; of a stranger it does not know where to ask it."""
    members = [{"admin_address": address} for address in (A, "", "no address/", B)]
    return {"/v1/progress": IDLE, "/v1/members": (200, {"leader_id": "a:29922", "members": members})}.get(path)


def follower_of(address: str | None) -> Any:
    """Says who leads, if that is known."""
    return lambda path, body: refusal(NotLeader("b:29922" if address else None, admin_address=address or ""))


class ClientTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.servers = StubServers()
        self.notes: list[str] = []
        self.progress: list[Any] = []

    def client(self, *servers: str, token: str = "") -> AdminClient:
        asker = Asker(self.servers, self.servers.clock, token)
        return AdminClient(asker, servers, 10.0, self.progress.append, self.notes.append)

    def result(self, deferred: Deferred[Any], seconds: float = 60) -> Any:
        """The result, or the failure, after at most so much time."""
        found: list[Any] = []
        deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
        self.servers.pass_time(0 if found else seconds)
        self.assertTrue(found, "it is not decided")
        return found[0]


@implementer(IAgent)
class Unreachables:
    """Notes what is asked for, and reaches nobody."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        self.asked.append(uri)
        return fail(ConnectionRefusedError(111))


class Silent(Unreachables):
    """Waits for a connection for ever; if it is told not to, it fails as Twisted's endpoints do."""

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        return Deferred(lambda waiting: waiting.errback(ConnectingCancelledError(HostnameAddress(b"a", 29998))))


class AddressTests(ClientTestCase):
    def test_a_server_is_asked_at_whatever_address_it_has(self) -> None:
        """Through treq itself, which took an IPv6 address for a name that had to be encoded."""
        agent = Unreachables()
        servers = ("10.0.0.1:29998", "[::1]:29998", "[fd00::1]:80", "localhost:1", "node-1.example:29998")
        for server in servers:
            client = AdminClient(Asker(HTTPClient(agent), Clock()), [server])
            for deferred in (client.why(), client.add(["b"])):
                self.assertIsInstance(self.failureResultOf(deferred).value, Unreachable)
        paths = ("/v1/why", "/v1/members/add")
        # A URL does without port 80.
        expected = [f"http://{server.removesuffix(':80')}{path}" for server in servers for path in paths]
        self.assertEqual([uri.decode() for uri in agent.asked], expected)


class LeaderTests(ClientTestCase):
    def test_the_leader_is_asked_where_another_server_says_it_is(self) -> None:
        self.servers.handlers = {A: follower_of(B), B: leader}
        self.assertEqual(self.result(self.client(A).add(["c"])), DONE[1])
        self.assertEqual(self.servers.seen, [f"{A} POST /v1/members/add", f"{B} POST /v1/members/add"])
        self.assertEqual(self.notes, [f"{A}: not the leader; it is b:29922. Asking {B}."])

    def test_who_was_the_leader_is_asked_first_the_next_time(self) -> None:
        self.servers.handlers = {A: follower_of(B), B: leader}
        client = self.client(A)
        self.result(client.add(["c"]))
        self.result(client.remove(["c"]))
        self.assertEqual(self.servers.seen[2:], [f"{B} POST /v1/members/remove"])

    def test_an_election_is_waited_for(self) -> None:
        replies = [refusal(NotLeader(None)), refusal(NotLeader(None)), DONE]
        self.servers.handlers = {A: lambda path, body: replies.pop(0)}
        self.assertEqual(self.result(self.client(A).transfer("c"), seconds=1), DONE[1])

    def test_it_ends_where_two_servers_name_each_other(self) -> None:
        self.servers.handlers = {A: follower_of(B), B: follower_of(A)}
        waiting = self.client(A).add(["c"])
        self.servers.pass_time(1)
        self.assertLess(len(self.servers.seen), 10, "it gives them time")
        self.assertEqual(self.result(waiting).code, "not_leader")
        self.assertEqual(len(self.servers.seen), 20)

    def test_a_leader_that_has_no_admin_port_is_named(self) -> None:
        self.servers.handlers = {A: lambda path, body: refusal(NotLeader("b:29922"))}
        error = self.result(self.client(A).add(["c"]))
        self.assertEqual(str(error), "not the leader; it is b:29922")

    def test_an_address_that_is_none_is_not_asked(self) -> None:
        self.servers.handlers = {A: follower_of("user@evil/x?"), "evil": leader}
        self.assertEqual(self.result(self.client(A).add(["c"])).code, "not_leader")
        self.assertEqual({line.split()[0] for line in self.servers.seen}, {A})

    def test_another_of_the_given_servers_is_asked_if_one_is_down(self) -> None:
        self.servers.handlers = {C: leader}
        self.assertEqual(self.result(self.client(A, B, C).add(["d"]), seconds=0), DONE[1])

    def test_if_all_are_down_that_is_said_at_once(self) -> None:
        error = self.result(self.client(A, B).add(["d"]), seconds=0)
        self.assertIsInstance(error, Unreachable)
        self.assertIn("nobody answers at b:29998: Connection refused", str(error))

    def test_after_a_leader_that_is_down_the_others_are_asked_who_leads_now(self) -> None:
        replies = [refusal(NotLeader("b:29922", admin_address=B)), refusal(NotLeader("c:29922", admin_address=C))]
        self.servers.handlers = {A: lambda path, body: replies.pop(0), C: leader}
        self.assertEqual(self.result(self.client(A).add(["d"])), DONE[1])


class OutcomeTests(ClientTestCase):
    def test_a_refusal_is_final(self) -> None:
        self.servers.handlers = {A: lambda path, body: refusal(ChangeRefused("no voter would be left"))}
        error = self.result(self.client(A, B).remove(["a"]), seconds=0)
        self.assertIsInstance(error, Answered)
        self.assertEqual((error.code, str(error)), ("change_refused", "no voter would be left"))
        self.assertEqual(len(self.servers.seen), 1)

    def test_a_change_that_was_given_up_is_not_begun_again(self) -> None:
        self.servers.handlers = {A: lambda path, body: refusal(ChangeFailed("b could not catch up"))}
        self.assertEqual(self.result(self.client(A).add(["b"]), seconds=0).code, "change_failed")
        self.assertEqual(len(self.servers.seen), 1)

    def test_a_change_of_unknown_outcome_is_asked_for_again_since_that_does_no_harm(self) -> None:
        replies = [refusal(OutcomeUnknown(7, "the leadership ended")), refusal(ChangeUnderWay("another")), DONE]
        self.servers.handlers = {A: lambda path, body: replies.pop(0)}
        self.assertEqual(self.result(self.client(A).add(["b"])), DONE[1])

    def test_an_unknown_outcome_stays_unknown_if_nobody_can_be_asked_any_more(self) -> None:
        """The last failure, that nobody answers, would read as if nothing had been done."""

        def dies(path: str, body: Any) -> Reply:
            del self.servers.handlers[A]
            return refusal(OutcomeUnknown(7, "the leadership ended"))

        self.servers.handlers = {A: dies}
        self.assertEqual(self.result(self.client(A, B).add(["b"])).code, "outcome_unknown")

    def test_a_server_that_is_silent_is_given_up_and_what_it_did_is_not_known(self) -> None:
        self.servers.handlers = {A: lambda path, body: None}
        error = self.result(self.client(A).add(["b"]), seconds=11)
        self.assertIsInstance(error, NoAnswer)
        self.assertEqual(str(error), "no answer from a:29998: nothing was heard for too long")

    def test_should_the_leader_die_those_are_asked_whom_it_has_named(self) -> None:
        """Nobody else was named on the command line: the answer would be that nobody knows."""
        self.servers.handlers = {A: busy, B: leader}
        waiting = self.client(A).add(["c"])
        self.servers.pass_time(3)
        self.assertNoResult(waiting)
        del self.servers.handlers[A]
        self.assertEqual(self.result(waiting), DONE[1])
        self.assertEqual(self.servers.seen.count(f"{A} GET /v1/members"), 1)
        self.assertEqual(self.servers.seen[-1], f"{B} POST /v1/members/add")
        self.assertEqual(self.notes, [f"No answer from {A}: nothing was heard for too long. Asking {B}."])

    def test_a_change_may_take_long_as_long_as_its_leader_answers_other_questions(self) -> None:
        self.servers.handlers = {A: busy}
        waiting = self.client(A).add(["b"])
        self.servers.pass_time(300)
        self.assertNoResult(waiting)
        self.assertEqual(self.servers.seen.count(f"{A} POST /v1/members/add"), 1)
        self.assertEqual(len(self.progress), self.servers.seen.count(f"{A} GET /v1/progress"))
        self.assertGreater(len(self.progress), 500)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)

    def test_what_is_cancelled_asks_nobody_any_more(self) -> None:
        self.servers.handlers = {A: lambda path, body: None, B: leader}
        waiting = self.client(A, B).add(["b"])
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.servers.pass_time(30)
        self.assertEqual(len(self.servers.seen), 1)

    def test_who_is_given_up_before_there_is_a_connection_was_silent(self) -> None:
        agent, clock = Silent(), Clock()
        client = AdminClient(Asker(HTTPClient(agent), clock), [A], timeout_s=2)
        for ask in (client.members, lambda: client.add(["b"])):
            asked = ask()
            self.assertNoResult(asked)
            clock.pump([0.5] * 20)
            self.assertEqual(str(self.failureResultOf(asked, NoAnswer).value), f"no answer from {A}: {SILENT}")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_what_is_no_txraft_server_is_said_to_be_none(self) -> None:
        for reply in ((200, b"<html>hello</html>"), (404, b"gone"), (302, {}), (200, [1]), (500, {"error": "x"})):
            self.servers.handlers = {A: lambda path, body, reply=reply: reply}
            self.assertIsInstance(self.result(self.client(A).add(["b"]), seconds=0), BadAnswer, reply)

    def test_a_redirect_of_http_is_not_followed(self) -> None:
        """Whoever answers there would be given the token."""
        self.servers.redirect_to = f"http://{B}/v1/status"
        self.servers.handlers = {A: lambda path, body: (307, {}), B: leader}
        self.assertIsInstance(self.result(self.client(A).status(), seconds=0), BadAnswer)
        self.assertEqual(self.servers.seen, [f"{A} GET /v1/status"])

    def test_a_failure_that_we_do_not_know_keeps_its_name_and_its_advice(self) -> None:
        found = {"error": {"code": "from_the_future", "message": "strange", "advice": "Wait.", "leader_id": None}}
        self.servers.handlers = {A: lambda path, body: (418, found)}
        error = self.result(self.client(A).add(["b"]), seconds=0)
        self.assertEqual((error.code, error.problem.sentence), ("from_the_future", "Strange. Wait."))


class QuestionTests(ClientTestCase):
    def test_the_first_server_that_answers_is_asked(self) -> None:
        self.servers.handlers = {B: lambda path, body: (200, {"role": "follower"})}
        self.assertEqual(self.result(self.client(A, B).status(), seconds=0), {"role": "follower"})
        self.assertEqual(self.servers.seen, [f"{A} GET /v1/status: refused", f"{B} GET /v1/status"])

    def test_a_silent_server_is_passed_over_after_the_timeout(self) -> None:
        self.servers.handlers = {A: lambda path, body: None, B: lambda path, body: (200, {"waiting_for": []})}
        waiting = self.client(A, B).why()
        self.servers.pass_time(9)
        self.assertNoResult(waiting)
        self.assertEqual(self.result(waiting, seconds=2), {"waiting_for": []})

    def test_members_are_told_by_the_leader_who_knows_more(self) -> None:
        def told(lag: int | None) -> Any:
            member = {"server_id": "b:29922", "is_leader": True, "admin_address": B, "lag": lag}
            return lambda path, body: (200, {"leader_id": "b:29922", "members": [member]})

        self.servers.handlers = {A: told(None), B: told(0)}
        self.assertEqual(self.result(self.client(A).members(), seconds=0)["members"][0]["lag"], 0)
        del self.servers.handlers[B]
        self.assertIsNone(self.result(self.client(A).members(), seconds=0)["members"][0]["lag"])
        self.assertIn("this is what a:29998 knows", self.notes[0])

    def test_a_token_is_sent_and_never_shown(self) -> None:
        self.servers.handlers = {A: leader}
        self.result(self.client(A, token="a-secret-of-ours").status(), seconds=0)
        self.assertEqual(self.servers.headers[0]["Authorization"], "Bearer a-secret-of-ours")
        self.result(self.client(A).status(), seconds=0)
        self.assertNotIn("Authorization", self.servers.headers[1])

    def test_a_plan_is_asked_of_the_leader_with_all_that_is_meant(self) -> None:
        bodies = []

        def plans(path: str, body: Any) -> Reply:
            bodies.append((path, body))
            return DONE

        self.servers.handlers = {A: follower_of(B), B: plans}
        self.result(self.client(A).plan(add=["c"], learners=["d"], replace={"e": "f"}))
        meant = {"add": ["c"], "remove": [], "learners": ["d"], "replace": {"e": "f"}, "move": {}}
        self.assertEqual(bodies, [("/v1/members/plan", meant)])


class RealServersTests(SynchronousTestCase):
    """The client and the real admin HTTP understand each other."""

    def setUp(self) -> None:
        self.cluster = Cluster(seed=3, size=3, passive=2)
        self.cluster.start()
        self.servers = SimulatedServers(self.cluster)
        self.leader = self.cluster.elect()
        self.cluster.run(1)
        leader_id = self.leader.settings.server_id
        self.others = [server_id for server_id in ("s1", "s2", "s3") if server_id != leader_id]
        self.progress: list[Any] = []
        self.client = AdminClient(
            Asker(self.servers, self.cluster.clock), [f"{self.others[0]}:29998"], 10.0, self.progress.append
        )

    def voters(self) -> tuple[str, ...]:
        assert self.leader.raft is not None
        return self.leader.raft.membership.voters

    def test_questions_are_answered_and_can_be_shown(self) -> None:
        status = self.servers.result(self.client.status())
        self.assertEqual((status["server_id"], status["role"]), (self.others[0], "follower"))
        self.assertIn("role        follower", tables.status(status))
        members = self.servers.result(self.client.members())["members"]
        self.assertEqual([member["lag"] for member in members], [0, 0, 0])
        self.assertEqual(len(tables.members(members)), 4)
        self.assertEqual(tables.why(self.servers.result(self.client.why())["waiting_for"]), ["It waits for nothing."])

    def test_each_change_is_made_by_the_leader_whoever_is_asked(self) -> None:
        self.servers.result(self.client.add(["s4"]))
        self.assertEqual(self.voters(), ("s1", "s2", "s3", "s4"))
        self.servers.result(self.client.replace({"s4": "s5"}))
        self.assertEqual(self.voters(), ("s1", "s2", "s3", "s5"))
        self.servers.result(self.client.remove(["s5"]))
        answer = self.servers.result(self.client.add(["s5"], learner=True))
        self.assertEqual([member["role"] for member in answer["members"]], ["voter", "voter", "voter", "learner"])
        self.servers.result(self.client.transfer(self.others[1]))
        self.assertIs(self.cluster.leader(), self.cluster.node(self.others[1]))

    def test_a_plan_changes_nothing(self) -> None:
        found = self.servers.result(self.client.plan(add=["s4"], remove=[self.others[0]], learners=["s5"]))
        self.assertEqual(found["after"]["quorum"], 2)
        self.assertIn("s4: can be reached from the leader.", tables.plan(found))
        self.assertEqual(self.voters(), ("s1", "s2", "s3"))

    def test_a_change_whose_answer_was_lost_is_asked_for_again_and_made_once(self) -> None:
        """M20."""
        assert self.leader.raft is not None
        client = AdminClient(Asker(self.servers, self.cluster.clock), [f"{each}:29998" for each in ("s1", "s2", "s3")])
        self.servers.lose_answer_of = "/v1/members/add"
        before = self.leader.raft.memberships.current_index
        self.servers.result(client.add(["s4"]))
        self.assertEqual(self.voters(), ("s1", "s2", "s3", "s4"))
        entries = [
            index
            for index in range(before + 1, self.leader.raft.log.last_index + 1)
            if self.leader.raft.memberships.at(index) != self.leader.raft.memberships.at(index - 1)
        ]
        self.assertEqual(len(entries), 3, "catching up, joint, settled: once")

    def test_a_leader_that_dies_in_the_midst_is_followed_by_the_next_who_finishes_it(self) -> None:
        """M15, M20."""
        client = AdminClient(Asker(self.servers, self.cluster.clock), [f"{each}:29998" for each in ("s1", "s2", "s3")])
        waiting = client.add(["s4"])
        assert self.leader.raft is not None
        raft = self.leader.raft
        self.cluster.run_until(lambda: bool(raft.membership.outgoing) or bool(raft.membership.next_voters), 5)
        self.cluster.crash(self.leader.settings.server_id)
        answer = self.servers.result(waiting)
        self.assertEqual([member["role"] for member in answer["members"]], ["voter"] * 4)

    def test_the_progress_of_a_server_that_is_not_there_is_shown_until_it_is_given_up(self) -> None:
        self.cluster.crash("s4")
        error = self.servers.result(self.client.add(["s4"]))
        self.assertEqual(error.code, "change_failed")
        self.assertIn("s4 catches up: round 1 of at most 10", tables.progress(self.progress[0]))
