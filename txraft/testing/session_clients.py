"""The workload of the simulation's sessions: clients that propose again what they have no answer to, and more."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from txraft.core.invariants import require
from txraft.errors import AnswerNotKept, OutcomeUnknown, SessionExpired
from txraft.node import RaftNode
from txraft.testing.history import Call
from txraft.testing.profiles import SESSION_LIMITS
from txraft.testing.registers import RegisterClients

CLIENTS = 6


@attrs.define
class _Command:
    """
    One command of a client. `attempts` are those that nothing was heard of yet; `is_unknown`: of one it was said that
    its outcome is; `is_given_up`: the client does not wait for it, and goes on. `seen_before` is from what state
    somebody had been answered when it was proposed first.
    """

    session_id: str
    sequence: int
    command: bytes
    value: bytes
    call: Call
    seen_before: int
    attempts: int = 0
    is_unknown: bool = False
    is_given_up: bool = False
    answer: Any = None


class SessionClients(RegisterClients):
    """Registers; most writers have a session of their own, which they open anew when they lose it."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        super().__init__(now_ns)
        self._clients = {f"c{number}": _Client(self) for number in range(CLIENTS)}
        self.broken: list[tuple[str, int, str]] = []
        """What no client may see: session, sequence, and what it was."""

    def draw(self, rng: random.Random) -> tuple[str, ...]:
        """As of registers; a third word is the client with a session that writes, or proposes something `again`."""
        kind, key = super().draw(rng)
        if kind == "read" or rng.random() < 0.2:
            return kind, key
        return rng.choice((kind, kind, "again")), key, f"c{rng.randrange(CLIENTS)}"

    def probe(self, number: int) -> tuple[str, ...]:
        return (*super().probe(number), f"c{number % CLIENTS}") if number % 4 == 0 else super().probe(number)

    def request(self, node: RaftNode, *words: str) -> Deferred[bool]:
        if len(words) == 2:
            return super().request(node, *words)
        kind, name, client = words
        return self._clients[client].request(node, kind, name.encode())

    def check_history(self) -> bool:
        require(not self.broken, "a session has broken its promise", *self.broken)
        return super().check_history()


class _Client:
    """One client with at most one session. A server that it asked may die, and then it never hears of that again."""

    def __init__(self, clients: SessionClients) -> None:
        self._clients = clients
        self._session_id = ""
        self._opening_at: RaftNode | None = None
        self._sequence = 0
        self._unanswered: dict[int, _Command] = {}
        self._settled: deque[_Command] = deque(maxlen=2)
        """The two that were answered last in this session."""

    def request(self, node: RaftNode, kind: str, key: bytes) -> Deferred[bool]:
        if self._session_id:
            return self._request(node, kind, key)
        if self._opening_at is node:
            # Several at once would take each other's place, again and again.
            return succeed(False)
        self._opening_at = node
        return node.open_session().addCallbacks(
            lambda session: self._opened(session.id, node, kind, key), self._refused
        )

    def _refused(self, failure: Failure) -> bool:
        self._opening_at = None
        self._clients.outcomes.failed(failure, "open: ")
        return False

    def _opened(self, session_id: str, node: RaftNode, kind: str, key: bytes) -> Deferred[bool]:
        self._opening_at = None
        # Another one that it asked for may have been quicker.
        if not self._session_id:
            self._session_id, self._sequence, self._unanswered = session_id, 0, {}
            self._settled.clear()
        return self._request(node, kind, key)

    def _request(self, node: RaftNode, kind: str, key: bytes) -> Deferred[bool]:
        # The older of the two may be one whose answer it has said to have had.
        again = next(iter([*self._unanswered.values(), *self._settled]), None)
        lowest = next(iter(self._unanswered), self._sequence + 1)
        # Beyond it nothing new is taken until the first is answered.
        is_full = self._sequence + 1 >= lowest + SESSION_LIMITS["max_session_answers"]
        if again is not None and (kind == "again" or is_full):
            return self._propose(node, again)
        self._sequence += 1
        command, value, call = self._clients.write(key, "write" if kind == "again" else kind)
        new = _Command(self._session_id, self._sequence, command, value, call, self._clients.answered_from)
        new.is_given_up = self._sequence % 4 == 0
        if new.is_given_up:
            # In one batch with the next, which says that its answer need not be kept.
            self._propose(node, new)
            return self._request(node, kind, key)
        self._unanswered[self._sequence] = new
        # One batch may hold a command twice.
        return self._propose(node, new, copies=2 if self._sequence % 3 == 0 else 1)

    def _propose(self, node: RaftNode, command: _Command, copies: int = 1) -> Deferred[bool]:
        """Fires with whether the last copy was answered."""
        # All of them now: a refusal comes at once, and must not be taken for that of the only attempt.
        command.attempts += copies
        for _ in range(copies):
            outcome = self._attempt(node, command)
        return outcome

    def _attempt(self, node: RaftNode, command: _Command) -> Deferred[bool]:
        lowest = min([command.sequence, *self._unanswered])
        outcome = node.propose_in_session(command.session_id, command.sequence, command.command, lowest)
        return outcome.addCallbacks(self._answered, self._failed, callbackArgs=(command,), errbackArgs=(command,))

    def _forget(self, command: _Command) -> None:
        if command.session_id == self._session_id:
            self._unanswered.pop(command.sequence, None)

    def _answered(self, answer: Any, command: _Command) -> bool:
        command.attempts -= 1
        if command.answer is not None:
            self._require(answer == command.answer, command, f"answered {command.answer}, and then {answer}")
            self._clients.outcomes.answered()
            return True
        self._forget(command)
        command.answer = answer
        if command.session_id == self._session_id:
            self._settled.append(command)
        self._clients.note_answer(answer, command.value, command.seen_before)
        command.call.returned(answer[0])
        return True

    def _failed(self, failure: Failure, command: _Command) -> bool:
        command.attempts -= 1
        self._clients.outcomes.failed(failure)
        command.is_unknown |= failure.check(OutcomeUnknown) is not None
        if failure.check(AnswerNotKept):
            command.is_unknown = True
            is_right = command.answer is not None or command.is_given_up
            self._require(is_right, command, "an answer is not kept that is waited for")
        elif command.answer is None and not command.is_unknown and not command.attempts:
            # What is not unknown was not done.
            self._forget(command)
            command.call.refused()
        if failure.check(SessionExpired) and command.session_id == self._session_id:
            self._session_id = ""
        return False

    def _require(self, holds: bool, command: _Command, otherwise: str) -> None:
        if not holds:
            self._clients.broken.append((command.session_id, command.sequence, otherwise))
