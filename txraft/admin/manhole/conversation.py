"""What one user asks for: carried out, written to the log, with progress while it runs and failures as sentences."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.admin import tables
from txraft.admin.manhole.grammar import Call, parse
from txraft.admin.manhole.verbs import Lines, Verbs
from txraft.admin.problems import BadRequest, problem_of

PROGRESS_S = 1.0
"""How often progress is looked at."""

MAX_RUNNING = 8
"""So many requests of one user run at a time, at most."""


@attrs.frozen
class User:
    """Who is at the other end: `name` as the password file or the key says, `way` telnet or ssh, `peer` host:port."""

    name: str
    way: str
    peer: str


@attrs.frozen
class Outcome:
    """What has become of a request. `code` is "ok", or that of the table in `problems`."""

    lines: Lines
    code: str = "ok"

    @property
    def is_ok(self) -> bool:
        return self.code == "ok"


def _kept(outcome: Outcome, found: list[Outcome]) -> Outcome:
    found.append(outcome)
    return outcome


class Conversation:
    """One user at one prompt."""

    _logger = Logger()

    def __init__(self, user: User, verbs: Verbs, clock: IReactorTime, show: Callable[[str], None]) -> None:
        """@param show: shows the user a line, at any time."""
        self.user = user
        self.verbs = verbs
        self._clock = clock
        self._show = show
        self._running = 0
        self._progress = ""
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def ask(self, line: str) -> Outcome | Deferred[Outcome]:
        """Carry out what a line asks for; see `perform`. A blank line asks for nothing."""
        try:
            call = parse(line)
        except BadRequest as error:
            return self._refuse(error)
        return Outcome([]) if call is None else self.perform(call)

    def perform(self, call: Call) -> Outcome | Deferred[Outcome]:
        """Carry out `call`: an outcome if it is there at once, else a Deferred, which never fails. The user may go."""
        try:
            if self._running >= MAX_RUNNING:
                raise BadRequest(f"{MAX_RUNNING} requests run already")
            run = self.verbs.prepare(call)
        except BadRequest as error:
            return self._refuse(error)
        command = str(call)
        self.note(command)
        finished = run().addCallbacks(Outcome, self._failed).addCallback(self._finished, command)
        at_once: list[Outcome] = []
        finished.addCallback(_kept, at_once)
        if at_once:
            return at_once[0]
        self._running += 1
        if not self._looking.running:
            self._looking.start(PROGRESS_S, now=False)
        return finished.addCallback(self._ran)

    def note(self, command: str) -> None:
        """Write to the log that the user asks for `command`, in which there is nothing secret."""
        self._logger.info(
            "manhole: {user}, by {way} from {peer}: {command}",
            user=self.user.name,
            way=self.user.way,
            peer=self.user.peer,
            command=command,
        )

    def close(self) -> None:
        """The user is gone: show nothing more. What runs goes on."""
        if self._looking.running:
            self._looking.stop()

    def _refuse(self, error: BadRequest) -> Outcome:
        # Without what was typed: it may be a password, typed at the wrong prompt.
        self.note("a line that is not understood")
        return Outcome([problem_of(error).sentence], problem_of(error).code)

    def _failed(self, failure: Failure) -> Outcome:
        error = failure.value
        assert error is not None
        problem = problem_of(error)
        if problem.code == "internal_error":
            self._logger.failure("manhole: a mistake of ours", failure)
        return Outcome([tables.printable(problem.sentence)], problem.code)

    def _finished(self, outcome: Outcome, command: str) -> Outcome:
        self._logger.info(
            "manhole: {command} of {user} has ended: {outcome}",
            command=command,
            user=self.user.name,
            outcome=outcome.code,
        )
        return outcome

    def _ran(self, outcome: Outcome) -> Outcome:
        self._running -= 1
        if not self._running and self._looking.running:
            self._looking.stop()
            self._progress = ""
        return outcome

    def _look(self) -> None:
        line = tables.progress(self.verbs.operations.progress())
        if line and line != self._progress:
            self._progress = line
            self._show(line)
