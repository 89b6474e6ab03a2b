"""
The states of a few servers of the real core, and every step from each of them, within bounds.

A state is: every server with its disk, the messages in flight, who led which term, what was ever committed, and what of
the bounds is used up. All of that are numbers of values in one `Table`; what an input makes of one server is worked out
once (`Servers`), so that a step of the search is some sums over small tuples. States that differ only in the servers'
names are one state, and a state is remembered as a whole, not as a hash that another one could share.

A message that is never delivered is a message that was lost. With more in flight than the bound allows, the search
forks over which of them are lost. Safety is what is searched for: nothing here says that anything ever happens.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import combinations, groupby, permutations, product
from typing import NamedTuple

from txraft.core.invariants import require
from txraft.core.raft import Raft
from txraft.testing.exhaustive.bounds import Bounds
from txraft.testing.exhaustive.rules import StepInvariants
from txraft.testing.exhaustive.server import Input, Kind, Outcome, Servers
from txraft.testing.exhaustive.values import Table, rename


class State(NamedTuple):
    """`servers`, `messages` (ascending, one of each copy) and `history` are numbers of the table."""

    servers: tuple[int, ...]
    messages: tuple[int, ...]
    history: int
    crashes: int
    entries: int
    reads: int
    duplicates: int

    def key(self) -> bytes:
        return array("I", [*self.servers, *self[2:], *self.messages]).tobytes()


class Step(NamedTuple):
    """The server at `place` takes `event`; `lost` are messages that there was no room for."""

    place: int
    event: Input
    sent: tuple[int, ...]
    lost: tuple[int, ...]
    state: State


class Broken(Exception):
    """A rule does not hold after `event` at `place`; the cause says which, or what the core raised."""

    def __init__(self, place: int, event: Input) -> None:
        super().__init__(place, event)
        self.place = place
        self.event = event


class Space:
    """The states within some bounds: which is first, and which follow a given one."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.table = Table()
        self.servers = Servers(bounds, self.table)
        self.server_ids = bounds.server_ids
        self._places = {server_id: place for place, server_id in enumerate(self.server_ids)}
        self._renamed: dict[tuple[int, ...], dict[int, int]] = {}
        self._receivers: dict[int, int] = {}
        self._orders: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def first(self) -> State:
        start = self.bounds.start
        history = self.table.number((start.leaders, start.committed))
        places = range(self.bounds.servers)
        return State(tuple(map(self.servers.start, places)), (), history, 0, 0, 0, 0)

    def steps(self, state: State) -> Iterator[Step]:
        """
        Every step from `state`, always in the same order.

        :raises Broken: one of them breaks a rule.
        """
        for place, server in enumerate(state.servers):
            for event, rest in self._events(state, server):
                yield from self._take(state, rest, place, event)
        before = None
        for at, message in enumerate(state.messages):
            if message == before:
                continue
            before, place = message, self._receiver(message)
            others = state.messages[:at] + state.messages[at + 1 :]
            yield from self._take(state, state._replace(messages=others), place, Input(Kind.DELIVER, message))
            if state.duplicates < self.bounds.duplicates:
                rest = state._replace(duplicates=state.duplicates + 1)
                yield from self._take(state, rest, place, Input(Kind.DUPLICATE, message))

    def _events(self, state: State, server: int) -> Iterator[tuple[Input, State]]:
        facts, bounds = self.servers.facts(server), self.bounds
        for event in facts.own_inputs:
            yield event, state
        if state.crashes < bounds.crashes:
            rest = state._replace(crashes=state.crashes + 1)
            for event in facts.crashes:
                yield event, rest
        if facts.leads and state.entries < bounds.entries:
            yield Input(Kind.PROPOSE, state.entries), state._replace(entries=state.entries + 1)
        if facts.leads and state.reads < bounds.reads:
            committed = self.table[state.history][1]
            yield Input(Kind.READ, len(committed) - 1), state._replace(reads=state.reads + 1)

    def _receiver(self, message: int) -> int:
        place = self._receivers.get(message)
        if place is None:
            place = self._receivers[message] = self._places[self.table[message][1]]
        return place

    def _take(self, state: State, rest: State, place: int, event: Input) -> Iterator[Step]:
        before = state.servers[place]
        try:
            outcome = self.servers.take(before, event)
            servers = (*state.servers[:place], outcome.server, *state.servers[place + 1 :])
            history = self._history(state, servers, place, event)
            for asked, answered in outcome.reads:
                require(answered >= asked, "a read is answered too early", self.server_ids[place], answered, asked)
        except Exception as error:
            # Also what is no broken invariant: nothing that correct servers do to each other may raise.
            raise Broken(place, event) from error
        for messages, lost in self._in_flight(rest.messages, outcome):
            after = rest._replace(servers=servers, messages=messages, history=history)
            yield Step(place, event, outcome.messages, lost, after)

    def _in_flight(
        self, messages: tuple[int, ...], outcome: Outcome
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Every choice of what stays in flight, and what is lost with it."""
        every = tuple(sorted(messages + outcome.messages)) if outcome.messages else messages
        excess = len(every) - self.bounds.messages
        if excess <= 0:
            yield every, ()
            return
        for lost in dict.fromkeys(combinations(every, excess)):
            kept = list(every)
            for message in lost:
                kept.remove(message)
            yield tuple(kept), lost

    # -- what one server cannot know

    def _history(self, state: State, servers: tuple[int, ...], place: int, event: Input) -> int:
        """The history's number after the step; the rules of the whole cluster are asked where they could break."""
        before, after = self.servers.facts(state.servers[place]), self.servers.facts(servers[place])
        is_restarted = event.kind is Kind.CRASH
        is_elected = after.leads and not (before.leads and before.term == after.term)
        leaders, committed = self.table[state.history]
        if is_elected or (after.commit_index != before.commit_index and not is_restarted):
            rules = StepInvariants(leaders, committed)
            rules.check_step(self._rafts(servers), self.servers.raft(state.servers[place]))
            leaders, committed = rules.leaders, rules.committed
        elif servers[place] == state.servers[place] or not leaders:
            return state.history
        # A term that no disk would still take a vote for cannot get a second leader.
        oldest = min(self.servers.facts(server).durable_term for server in servers)
        leaders = tuple(item for item in leaders if item[0] >= oldest)
        return self.table.number((leaders, committed))

    def check(self, state: State) -> None:
        """:raises InvariantBroken: the servers of `state` do not fit together."""
        StepInvariants(*self.table[state.history]).check_step(self._rafts(state.servers))

    def _rafts(self, servers: tuple[int, ...]) -> dict[str, Raft]:
        return {
            server_id: self.servers.raft(server) for server_id, server in zip(self.server_ids, servers, strict=True)
        }

    # -- servers differ by what they are, not by their names

    def canonical(self, state: State) -> tuple[State, tuple[int, ...]]:
        """The state that stands for all that are `state` with other names, and each server's place in it."""
        shapes = tuple([self.servers.facts(server).shape for server in state.servers])
        orders = self._orders.get(shapes)
        if orders is None:
            orders = self._orders[shapes] = list(_orders(shapes))
        if len(orders) == 1:
            return self._reordered(state, orders[0]), orders[0]
        return min((self._reordered(state, order), order) for order in orders)

    def _reordered(self, state: State, order: tuple[int, ...]) -> State:
        """Give the server at place i the name that belongs to place `order[i]`."""
        if order == tuple(range(len(order))):
            return state
        renamed = self._renamed.setdefault(order, {})

        def number(old: int) -> int:
            new = renamed.get(old)
            if new is None:
                names = {server_id: self.server_ids[order[place]] for server_id, place in self._places.items()}
                value = rename(self.table[old], names)
                new = renamed[old] = self.table.number(value)
            return new

        servers = [0] * len(order)
        for place, server in enumerate(state.servers):
            servers[order[place]] = number(server)
        messages = tuple(sorted(map(number, state.messages)))
        return state._replace(servers=tuple(servers), messages=messages, history=number(state.history))


def _orders(shapes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every order that sorts `shapes`: one, unless servers are alike; as the new place of each old one."""
    places = sorted(range(len(shapes)), key=lambda place: shapes[place])
    alike = [list(group) for _, group in groupby(places, key=lambda place: shapes[place])]
    for choice in product(*map(permutations, alike)):
        order = [place for group in choice for place in group]
        yield tuple(order.index(place) for place in range(len(order)))
