"""A client's session, for programs that embed a server: numbers the commands, and knows which answers it has had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.errors import NOTHING_DONE, AnswerNotKept

ProposeInSession = Callable[[str, int, bytes, int], Deferred[Any]]
"""See `RaftNode.propose_in_session`."""


@attrs.define
class _Unanswered:
    """How many attempts are under way, and whether another may be in a log, whatever becomes of these."""

    command: bytes
    attempts: int = 0
    is_unknown: bool = False


class Session:
    """
    Commands in it are carried out once, however often they are proposed. It is for who has opened the session, and
    counts from its beginning: see `RaftNode.open_session`.

    :ivar id: what the servers know it by.
    :ivar last_sequence: that of the command that was proposed last, and is no repetition; 0 before the first.
    """

    def __init__(self, propose: ProposeInSession, session_id: str) -> None:
        self.id = session_id
        self.last_sequence = 0
        self._propose = propose
        self._unanswered: dict[int, _Unanswered] = {}
        """By sequence, ascending."""

    @property
    def lowest(self) -> int:
        """The lowest sequence whose answer is still wanted."""
        return next(iter(self._unanswered), self.last_sequence + 1)

    def propose(self, command: bytes, sequence: int | None = None) -> Deferred[Any]:
        """
        Replicate a command; fires with the state machine's result, and fails like `RaftNode.propose_in_session`.

        After `OutcomeUnknown`, or if you have cancelled it or its time was up, propose it again with its `sequence`,
        or let it go with `give_up`; the answers of what comes after are kept until then.

        @param sequence: that of an earlier attempt, from `last_sequence` right after it; None: it is a new command.
        @raise ValueError: no attempt with this sequence is without an answer, or it was another command's.
        """
        if sequence is not None:
            earlier = self._unanswered.get(sequence)
            if earlier is None:
                raise ValueError(f"command {sequence} of session {self.id} is not without an answer")
            if earlier.command != command:
                raise ValueError(f"command {sequence} of session {self.id} is another one than before")
        number = self.last_sequence + 1 if sequence is None else sequence
        outcome = self._propose(self.id, number, command, self.lowest)
        self.last_sequence = max(self.last_sequence, number)
        self._unanswered.setdefault(number, _Unanswered(command)).attempts += 1
        return outcome.addCallbacks(self._answered, self._failed, callbackArgs=(number,), errbackArgs=(number,))

    def give_up(self, sequence: int) -> None:
        """The answer to this command is not wanted any more; it may have been carried out, or be yet."""
        self._unanswered.pop(sequence, None)

    def _answered(self, result: Any, sequence: int) -> Any:
        self.give_up(sequence)
        return result

    def _failed(self, failure: Failure, sequence: int) -> Failure:
        command = self._unanswered.get(sequence)
        if command is not None:
            command.attempts -= 1
            command.is_unknown |= failure.check(*NOTHING_DONE, AnswerNotKept) is None
            # There is no answer to wait for; or no attempt has done anything.
            if failure.check(AnswerNotKept) or not (command.attempts or command.is_unknown):
                self.give_up(sequence)
        return failure
