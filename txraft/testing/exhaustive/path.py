"""A path of a search as lines that can be read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from txraft.core.log import EntryKind, LogSlice
from txraft.core.messages import Message
from txraft.core.raft import Raft
from txraft.testing.exhaustive.server import Input, Kind
from txraft.testing.exhaustive.space import Broken, Space, State
from txraft.testing.exhaustive.values import rename, thaw

ABOUT_A_MESSAGE = (Kind.DELIVER, Kind.DUPLICATE)


class Telling:
    """Goes a path again. The names are those of the first state, although the search renames servers on the way."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._ids = list(space.server_ids)
        """By place in the present state: the name to tell."""
        self._lines: list[str] = []
        self._count = 0

    def tell(self, ordinals: Iterable[int], broken: Broken) -> tuple[str, ...]:
        """The path that takes the steps `ordinals` from the first state, and then the one that is `broken`."""
        state = self._move(self._space.first())
        for ordinal in ordinals:
            step = next(islice(self._space.steps(state), ordinal, None))
            self._add(step.place, step.event)
            for message in step.sent:
                self._lines.append(f"       sends {self._message(message)}")
            for message in step.lost:
                self._lines.append(f"       lost: {self._message(message)}")
            self._lines.append(f"       {self._show(step.state, step.place)}")
            state = self._move(step.state)
        self._add(broken.place, broken.event)
        error = broken.__cause__
        told = re.sub("|".join(self._names), lambda match: self._names[match[0]], str(error))
        self._lines.append(f"  ==>  {type(error).__name__}: {told}")
        self._lines += sorted(f"       before, {self._show(state, place)}" for place in range(len(self._ids)))
        return tuple(self._lines)

    @property
    def _names(self) -> dict[str, str]:
        """What the present state calls a server, and what is told."""
        return dict(zip(self._space.server_ids, self._ids, strict=True))

    def _move(self, state: State) -> State:
        canonical, order = self._space.canonical(state)
        ids = list(self._ids)
        for place, new_place in enumerate(order):
            self._ids[new_place] = ids[place]
        return canonical

    def _add(self, place: int, event: Input) -> None:
        about = ""
        if event.kind in ABOUT_A_MESSAGE:
            about = f" {self._message(event.argument)}"
        elif event.kind is Kind.CRASH:
            about = f", {event.argument} parts of its outstanding write kept" if event.argument else ""
        self._count += 1
        self._lines.append(f"{self._count:>4}. {self._ids[place]} {event.kind.value}{about}")

    def _message(self, number: int) -> str:
        sender, receiver, value = rename(self._space.table[number], self._names)
        return f"{sender}>{receiver} {show_message(thaw(value))}"

    def _show(self, state: State, place: int) -> str:
        return f"{self._ids[place]} is {show_server(self._space.servers.raft(state.servers[place]))}"


def show_message(message: Message) -> str:
    """A message without what is zero or false; entries as `term:command`."""
    words = [type(message).__name__]
    for name in message.__slots__:
        value = getattr(message, name)
        if isinstance(value, LogSlice):
            value = " ".join(show_entry(run.term, run.kind, data) for run in value.runs for data in run.commands)
            value = value and f"[{value}]"
        if value:
            words.append(name if value is True else f"{name}={value}")
    return " ".join(words)


def show_entry(term: int, kind: EntryKind, command: bytes) -> str:
    return f"{term}:{command.decode() if kind is EntryKind.COMMAND else kind.name.lower()}"


def show_server(raft: Raft) -> str:
    """One server: role, term, what is durable, and its log, of which `|` ends what is on disk."""
    log = raft.log
    words = []
    for index in range(1, log.last_index + 1):
        words.append(show_entry(log.term(index) or 0, log.kind(index), log.command(index)))
        if index == log.durable_index:
            words.append("|")
    durable = "" if raft.durable_state == raft.hard_state else f" (on disk: {raft.durable_state.term})"
    return f"{raft.role.name}, term {raft.term}{durable}, commit {raft.commit_index}, log {' '.join(words)}"
