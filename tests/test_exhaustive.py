"""The exhaustive search: it loses no state, calls no two states one, and finds known bugs."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pathlib
import random
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txraft.core import candidate
from txraft.core.errors import InvariantBroken
from txraft.core.follower import Follower
from txraft.core.leader import Leader
from txraft.core.log import EntryKind, EntryRun, Log, LogSlice
from txraft.core.membership import Membership
from txraft.core.messages import AppendEntries, Message, RequestVote, RequestVoteResponse
from txraft.core.quorum import VoteResult, committed_index
from txraft.core.raft import Raft
from txraft.core.read_index import ReadQueue
from txraft.core.settings import RaftSettings
from txraft.testing.exhaustive import STARTS, Bounds, Result, Search
from txraft.testing.exhaustive.__main__ import main
from txraft.testing.exhaustive.rules import StepInvariants
from txraft.testing.exhaustive.server import Input, Kind
from txraft.testing.exhaustive.space import Space, State
from txraft.testing.exhaustive.values import freeze, rename, thaw

NEVER_CHANGED = (type, Enum, Membership, RaftSettings)
ROOT = pathlib.Path(__file__).parents[1]
EVERYTHING = Bounds(terms=3, entries=3, crashes=2, reads=2, duplicates=2, rounds=3, messages=6)


def walk(space: Space, seed: int, length: int) -> Iterator[tuple[State, Any]]:
    """States and the random step from each, none of them renamed."""
    rng = random.Random(seed)
    state = space.first()
    for _ in range(length):
        # Loss at random would seldom let an election succeed, and so would time that passes all the time.
        steps = [step for step in space.steps(state) if not step.lost] or list(space.steps(state))
        if not steps:
            return
        heavy = (Kind.DELIVER, Kind.WRITTEN, Kind.PROPOSE, Kind.READ)
        step = rng.choices(steps, [12 if step.event.kind in heavy else 1 for step in steps])[0]
        yield state, step
        state = step.state


class ValueTests(SynchronousTestCase):
    def test_servers_that_were_never_copied_are_in_the_state_that_the_search_has_for_them(self) -> None:
        """Each walk is gone twice: with values, and with objects that live from its beginning to its end."""
        kinds = set()
        roles = set()
        for seed in range(25):
            space = Space(EVERYTHING)
            servers = space.servers
            live = [servers.place(server) for server in space.first().servers]
            for _, step in walk(space, seed, 120):
                ready = servers.act(live[step.place], step.event)
                sent = [(live[step.place].raft.server_id, to, freeze(message)) for to, message in ready.messages]
                self.assertCountEqual(map(space.table.number, sent), step.sent)
                self.assertEqual(tuple(map(servers.number, live)), step.state.servers)
                kinds.add(step.event.kind)
                roles.update(place.raft.role.name for place in live)
        self.assertEqual(kinds, set(Kind))
        self.assertEqual(roles, {"follower", "pre-candidate", "candidate", "leader"})

    def test_a_value_made_into_an_object_has_that_value(self) -> None:
        space = Space(EVERYTHING)
        for state, _ in walk(space, 1, 100):
            for server in state.servers:
                value = space.table[server][0]
                self.assertEqual(freeze(thaw(value)), value)

    def test_every_field_of_the_core_changes_the_value(self) -> None:
        """Whatever field is touched, in whatever object below a leader: the value is another one."""
        raft = self._leader()
        value = freeze(raft)
        count = 0
        for owner, name in list(fields_below(raft)):
            before = getattr(owner, name)
            object.__setattr__(owner, name, "touched")
            self.assertNotEqual(freeze(raft), value, f"{type(owner).__name__}.{name} is forgotten")
            object.__setattr__(owner, name, before)
            count += 1
        self.assertEqual(freeze(raft), value)
        self.assertGreater(count, 60)

    def test_what_is_of_no_known_kind_is_refused(self) -> None:
        raft = self._leader()
        raft.anything = {"s1"}  # type: ignore[attr-defined]
        self.assertRaises(TypeError, freeze, raft)

    @staticmethod
    def _leader() -> Raft:
        """A leader with something in each of its parts."""
        space = Space(EVERYTHING)
        for seed in itertools.count():
            for state, _ in walk(space, seed, 80):
                for server in state.servers:
                    raft = space.servers.place(server).raft
                    if isinstance(raft.role, Leader) and raft.role.reads.is_under_way and raft._outstanding:
                        return raft
        raise AssertionError


def fields_below(value: object) -> Iterator[tuple[object, str]]:
    """Every (object, field) of the core's changeable objects below `value`, as Python's own copying sees them."""
    seen: set[int] = set()
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list | tuple | deque):
            todo += item
        elif type(item).__module__.startswith("txraft.core.") and not isinstance(
            item, type | Enum | Membership | RaftSettings
        ):
            state = item.__reduce_ex__(2)[2]
            for fields in state if isinstance(state, tuple) else (state,):
                for name in fields or ():
                    yield item, name
                    todo.append(getattr(item, name))


class SymmetryTests(SynchronousTestCase):
    def test_other_names_make_no_other_state(self) -> None:
        for seed in range(4):
            space = Space(EVERYTHING)
            for state, _ in walk(space, seed, 60):
                canonical = space.canonical(state)[0]
                for order in itertools.permutations(range(3)):
                    self.assertEqual(space.canonical(renamed(space, state, order))[0], canonical)

    def test_the_states_that_are_left_stand_for_all(self) -> None:
        """A search that knows nothing of symmetry meets nothing else, and nothing less."""
        bounds = Bounds(terms=1, entries=0, crashes=1, messages=2)
        space = Space(bounds)
        level, known = [space.first()], {space.first()}
        standing = {space.canonical(space.first())[0]}
        reduced = {space.canonical(space.first())[0]}
        reduced_level = list(reduced)
        for _ in range(7):
            level = [step.state for state in level for step in space.steps(state)]
            level = [state for state in dict.fromkeys(level) if state not in known]
            known.update(level)
            standing.update(space.canonical(state)[0] for state in level)
            reduced_level = [space.canonical(step.state)[0] for state in reduced_level for step in space.steps(state)]
            reduced_level = [state for state in dict.fromkeys(reduced_level) if state not in reduced]
            reduced.update(reduced_level)
        self.assertEqual(reduced, standing)
        self.assertGreater(len(known), 5 * len(reduced))


def renamed(space: Space, state: State, order: tuple[int, ...]) -> State:
    """`state`, with the server at place i called as the one at `order[i]`."""
    names = {name: space.server_ids[order[place]] for place, name in enumerate(space.server_ids)}

    def number(old: int) -> int:
        return space.table.number(rename(space.table[old], names))

    servers = [0] * len(order)
    for place, server in enumerate(state.servers):
        servers[order[place]] = number(server)
    messages = tuple(sorted(map(number, state.messages)))
    return state._replace(servers=tuple(servers), messages=messages, history=number(state.history))


class RuleTests(SynchronousTestCase):
    def setUp(self) -> None:
        """s1 leads term 2 with an entry that all have; what was committed later, by s2, it has not."""
        space = Space(Bounds(start=STARTS["agreed"]))
        servers = [space.servers.place(server).raft for server in space.first().servers]
        self.rafts = {raft.server_id: raft for raft in servers}
        self.before = space.servers.place(space.first().servers[0]).raft
        self.rafts["s1"].become_leader()
        self.rafts["s1"].commit_to(2)
        self.rules = StepInvariants(((2, "s1"), (3, "s2")), (0, 1, 2, 3))

    def test_an_old_leader_may_commit_late_what_it_has(self) -> None:
        self.before.become_leader()
        self.rules.check_step(self.rafts, self.before)

    def test_a_new_leader_must_have_all_that_was_committed(self) -> None:
        error = self.assertRaises(InvariantBroken, self.rules.check_step, self.rafts, self.before)
        self.assertIn("Leader Completeness", str(error))


class SearchTests(SynchronousTestCase):
    def search(self, **bounds: Any) -> Result:
        result = Search(Bounds(**bounds)).run()
        self.assertEqual(result.path, ())
        return result

    def test_two_hundred_thousand_states_of_three_servers_break_no_rule(self) -> None:
        """E01 E06 R01 R03 R04 R12 C01"""
        result = self.search(states=150_000)
        states = result.states
        for start in ("agreed", "tail", "figure8"):
            more = self.search(
                start=STARTS[start], terms=1, crashes=2, reads=1, duplicates=1, messages=2, states=20_000
            )
            states += more.states
        self.assertGreaterEqual(states, 200_000)
        self.assertGreaterEqual(result.depth, 10)

    def test_a_search_that_ends_says_that_it_is_complete(self) -> None:
        result = self.search(servers=2, terms=1, entries=0, crashes=1, messages=1, states=100_000)
        self.assertTrue(result.is_complete)
        stopped = self.search(servers=2, terms=1, entries=0, crashes=1, messages=1, states=result.states // 2)
        self.assertFalse(stopped.is_complete)

    def test_another_process_with_other_hashes_finds_the_same_states_in_the_same_order(self) -> None:
        digests = {self._digest(seed) for seed in ("0", "1")}
        self.assertEqual(digests, {self.search(states=3000, reads=1, duplicates=1).digest})

    @staticmethod
    def _digest(hash_seed: str) -> str:
        command = [sys.executable, "-m", "txraft.testing.exhaustive", "--states=3000", "--reads=1", "--duplicates=1"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
        return run.stdout.split("digest ")[1].split()[0]

    def test_a_crash_keeps_any_first_part_of_the_write_that_was_under_way(self) -> None:
        space = Space(Bounds())
        entries = LogSlice(2, [EntryRun(2, 2, EntryKind.NOOP, 0, [b""])])
        message = space.table.number(("s1", "s2", freeze(AppendEntries(2, 1, 1, 0, 0, entries))))
        server = space.servers.take(space.servers.start(1), Input(Kind.DELIVER, message)).server
        kept = [
            space.servers.place(space.servers.take(server, event).server)
            for event in space.servers.facts(server).crashes
        ]
        self.assertEqual([(place.hard_state.term, len(place.runs)) for place in kept], [(1, 1), (2, 1), (2, 2)])

    def test_the_command_prints_the_numbers(self) -> None:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            status = main(["--servers", "2", "--states", "500", "--start", "tail"])
        self.assertEqual(status, 0)
        self.assertIn("500 distinct states", output.getvalue())
        self.assertIn("No rule is broken.", output.getvalue())


class MutantTests(SynchronousTestCase):
    """Each of these bugs has cost somebody data; none of them may get past the search."""

    def broken(self, **bounds: Any) -> str:
        """The rule that the shortest path ends with; the path is one that can be read."""
        result = Search(
            Bounds(**{"messages": 1, "terms": 1, "entries": 0, "crashes": 0, "states": 50_000, **bounds})
        ).run()
        self.assertNotEqual(result.path, (), "nothing is found")
        self.assertIn("1. s", result.path[0])
        [line] = [line for line in result.path if "==>" in line]
        return line.removeprefix("  ==>  InvariantBroken: ")

    def test_a_vote_that_leaves_before_it_is_durable(self) -> None:
        """E01"""
        send = Raft.send

        def send_votes_at_once(raft: Raft, receiver: str, message: Message) -> None:
            if isinstance(message, RequestVoteResponse) and receiver != raft.server_id:
                raft._outbox.append((receiver, message))
            else:
                send(raft, receiver, message)

        self.patch(Raft, "send", send_votes_at_once)
        self.assertIn("is not durable is", self.broken())

    def test_a_vote_for_everybody_who_asks(self) -> None:
        """E01"""
        answer = Raft.answer_request_vote

        def vote_again(raft: Raft, sender: str, message: RequestVote) -> None:
            raft.voted_for = None
            answer(raft, sender, message)

        self.patch(Raft, "answer_request_vote", vote_again)
        self.assertIn("two votes in one term", self.broken(crashes=1))

    def test_an_election_without_a_majority(self) -> None:
        """E06"""
        self.patch(candidate, "vote_result", lambda membership, votes: VoteResult.WON)
        self.assertIn("Election Safety", self.broken())

    def test_an_acknowledgement_before_the_sync(self) -> None:
        """R12"""
        take = Log.take_unwritten

        def take_as_durable(log: Log) -> list[EntryRun]:
            runs = take(log)
            log.durable_index = log.written_index
            return runs

        self.patch(Log, "take_unwritten", take_as_durable)
        self.assertIn("takes entries to be durable", self.broken())

    def test_a_commit_by_counting_copies_of_an_older_term(self) -> None:
        """R01: the paper's Figure 8."""

        def advance_commit(leader: Leader) -> None:
            index = committed_index(leader.raft.membership, leader._match_index)
            leader.raft.commit_to(index)

        self.patch(Leader, "_advance_commit", advance_commit)
        self.assertIn("could be elected without", self.broken(start=STARTS["figure8"]))

    def test_a_commit_beyond_what_the_leader_has_proved(self) -> None:
        """R03"""
        follow = Follower.HANDLERS[AppendEntries]

        def commit_all(follower: Follower, sender: str, message: AppendEntries) -> None:
            follow(follower, sender, message)
            follower.raft.commit_to(min(message.leader_commit, follower.raft.log.last_index))

        self.patch(Follower, "HANDLERS", {**Follower.HANDLERS, AppendEntries: commit_all})
        self.assertIn("State Machine Safety", self.broken(start=STARTS["tail"]))

    def test_a_claim_of_the_own_last_index(self) -> None:
        """R04"""
        self.patch(Follower, "_match_index", property(lambda follower: follower.raft.log.durable_index))
        self.assertIn("match is ahead of the truth", self.broken(start=STARTS["tail"]))

    def test_a_read_that_joins_a_round_that_has_begun(self) -> None:
        """C01"""
        self.patch(ReadQueue, "request", lambda reads, read_id: reads._under_way.append(read_id))
        self.assertIn("a read is answered too early", self.broken(start=STARTS["agreed"], reads=1))

    def test_whatever_the_core_raises_is_a_violation_with_its_path(self) -> None:
        def fail(raft: Raft) -> None:
            raise ZeroDivisionError("planted")

        self.patch(Raft, "become_leader", fail)
        result = Search(Bounds(messages=1, states=50_000)).run()
        self.assertEqual([line for line in result.path if "==>" in line], ["  ==>  ZeroDivisionError: planted"])

    def test_the_path_tells_one_server_by_one_name_from_its_beginning_to_its_end(self) -> None:
        self.patch(Follower, "_match_index", property(lambda follower: follower.raft.log.durable_index))
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            status = main(["--start", "tail", "--terms", "1", "--entries", "0", "--crashes", "0", "--messages", "1"])
        self.assertEqual(status, 1)
        path = output.getvalue().split("The shortest path:\n")[1].splitlines()
        self.assertEqual(path[0], "   1. s2 election timeout")
        self.assertEqual(
            path[-5:],
            [
                "  11. s2 receives s1>s2 AppendEntriesResponse term=4 match_index=2",
                "  ==>  InvariantBroken: match is ahead of the truth: ('s2', 's1', 2)",
                "       before, s1 is follower, term 4, commit 0, log 1:configuration 2:noop |",
                "       before, s2 is leader, term 4, commit 0, log 1:configuration | 4:noop",
                "       before, s3 is follower, term 4, commit 0, log 1:configuration |",
            ],
        )
