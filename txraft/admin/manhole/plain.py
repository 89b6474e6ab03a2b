"""Lines without a terminal: `ssh server members`, or a script on standard input. Each ends before the next begins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from txraft.admin.manhole.conversation import Conversation, Outcome, User
from txraft.admin.manhole.terminal import QUIT
from txraft.admin.manhole.verbs import Verbs

MAX_WAITING_BYTES = 64 * 1024


class PlainLines:
    """
    Carries out lines of text one after the other. `end` is called with the exit status, once: 0 if each was done.

    @param write: takes what is to be shown.
    @param end: called when all is done and nothing more will come.
    """

    def __init__(
        self, user: User, verbs: Verbs, clock: IReactorTime, write: Callable[[bytes], None], end: Callable[[int], None]
    ) -> None:
        self._conversation = Conversation(user, verbs, clock, self._print)
        self._write = write
        self._end = end
        self._lines: deque[str] = deque()
        self._rest = b""
        self._is_complete = False
        self._is_busy = False
        self._is_ended = False
        self._status = 0

    def receive(self, data: bytes) -> None:
        """Bytes of lines, which a newline ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += (line.decode("utf-8", "replace").rstrip("\r") for line in lines)
        if len(self._rest) + sum(map(len, self._lines)) > MAX_WAITING_BYTES:
            self._print(f"More than {MAX_WAITING_BYTES} bytes wait: that is too much at a time.")
            self._lines.clear()
            self._rest, self._status, self._is_complete = b"", 1, True
        self._go_on()

    def finish(self) -> None:
        """Nothing more will come; a last line without newline counts."""
        if self._is_ended:
            return
        if self._rest:
            self._lines.append(self._rest.decode("utf-8", "replace").rstrip("\r"))
            self._rest = b""
        self._is_complete = True
        self._go_on()

    def close(self) -> None:
        """The user is gone. What runs goes on; what waits is forgotten."""
        self._is_ended = True
        self._lines.clear()
        self._conversation.close()

    def _go_on(self) -> None:
        while self._lines and not self._is_busy:
            line = self._lines.popleft()
            if line.strip() in QUIT:
                self._lines.clear()
                self._is_complete = True
                break
            self._is_busy = True
            asked = self._conversation.ask(line)
            if isinstance(asked, Outcome):
                self._done(asked)
            else:
                asked.addCallback(self._done).addCallback(lambda _: self._go_on())
        if self._is_complete and not self._is_busy and not self._is_ended:
            self._is_ended = True
            self._conversation.close()
            self._end(self._status)

    def _done(self, outcome: Outcome) -> None:
        self._is_busy = False
        if not outcome.is_ok:
            self._status = 1
        for line in outcome.lines:
            self._print(line)

    def _print(self, line: str) -> None:
        if not self._is_ended:
            self._write(f"{line}\n".encode())
