"""Breadth-first search over all interleavings of a few servers, and the shortest path to what must not be."""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from txraft.core.errors import InvariantBroken
from txraft.testing.exhaustive.bounds import Bounds
from txraft.testing.exhaustive.path import Telling
from txraft.testing.exhaustive.space import Broken, Space, State, Step


@dataclass(frozen=True, kw_only=True)
class Result:
    """
    What a search has found.

    `depth`: every path of so many steps was taken; all of them if `is_complete`. `core_steps`: how often the core was
    asked, the rest was known. `digest`: of all states in their order, the same in every process. `path`: the shortest
    one to a violation, as lines; empty if there is none.
    """

    states: int
    transitions: int
    core_steps: int
    depth: int
    is_complete: bool
    seconds: float
    digest: str
    path: tuple[str, ...] = ()


class Search:
    """One search, to its end with `run`."""

    def __init__(self, bounds: Bounds, progress: Callable[[int, int], None] = lambda states, depth: None) -> None:
        """
        @param progress: told the number of states and the depth reached, after each further step of depth.
        """
        self.bounds = bounds
        self.space = Space(bounds)
        self._progress = progress
        self._known: set[bytes] = set()
        self._parents = array("I", [0])
        self._ordinals = array("H", [0])
        """Which of its parent's steps led to a state: enough to find the way to it again."""
        self._digest = hashlib.blake2b(digest_size=16)
        self._transitions = 0

    def run(self) -> Result:
        """Search until all is known, the bound on states is reached, or a rule is broken."""
        begun = time.process_time()
        depth = 0
        path: tuple[str, ...] = ()
        first, _ = self.space.canonical(self.space.first())
        self._note(first)
        level = [(0, first)]
        try:
            while level and len(self._known) < self.bounds.states:
                level = self._next_level(level)
                depth += 1
                self._progress(len(self._known), depth)
        except _Found as found:
            path = self._path(found)
        is_stopped = len(self._known) >= self.bounds.states and bool(level)
        return Result(
            states=len(self._known),
            transitions=self._transitions,
            core_steps=self.space.servers.core_steps,
            depth=depth - is_stopped,
            is_complete=not level,
            seconds=time.process_time() - begun,
            digest=self._digest.hexdigest(),
            path=path,
        )

    def _note(self, state: State) -> bool:
        """True if `state` is new."""
        key = state.key()
        if key in self._known:
            return False
        self._known.add(key)
        self._digest.update(key)
        return True

    def _next_level(self, level: list[tuple[int, State]]) -> list[tuple[int, State]]:
        following: list[tuple[int, State]] = []
        for parent, state in level:
            try:
                for ordinal, step in enumerate(self.space.steps(state)):
                    self._transitions += 1
                    after, _ = self.space.canonical(step.state)
                    if not self._note(after):
                        continue
                    self._check(step)
                    following.append((len(self._parents), after))
                    self._parents.append(parent)
                    self._ordinals.append(ordinal)
            except Broken as broken:
                raise _Found(parent, broken) from None
            if len(self._known) >= self.bounds.states:
                break
        return following

    def _check(self, step: Step) -> None:
        try:
            self.space.check(step.state)
        except InvariantBroken as error:
            raise Broken(step.place, step.event) from error

    def _path(self, found: _Found) -> tuple[str, ...]:
        ordinals = []
        at = found.parent
        while at:
            ordinals.append(self._ordinals[at])
            at = self._parents[at]
        return Telling(self.space).tell(reversed(ordinals), found.broken)


class _Found(Exception):
    """A rule is broken by a step from the state with number `parent`."""

    def __init__(self, parent: int, broken: Broken) -> None:
        super().__init__(parent, broken)
        self.parent = parent
        self.broken = broken
