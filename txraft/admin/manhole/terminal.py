"""
The prompt on a terminal, by telnet or ssh: line editing with history, output that appears above the line being typed.

What comes from the other end is bounded: the line, the history, a control sequence; what is not printable is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.conch.insults import insults
from twisted.conch.recvline import HistoricRecvLine
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txraft.admin.manhole.conversation import Conversation, Outcome, User
from txraft.admin.manhole.grammar import MAX_LINE_CHARACTERS
from txraft.admin.manhole.verbs import Lines, Verbs

MAX_HISTORY_LINES = 100
MAX_CONTROL_SEQUENCE_BYTES = 32

QUIT = ("quit", "exit", "quit()", "exit()")

_CTRL_C, _CTRL_D, _CTRL_U = b"\x03", b"\x04", b"\x15"


class Screen(insults.ServerProtocol):
    """The bytes of a terminal as keys, and back."""

    transport: Any
    terminalProtocol: Any

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.state == b"bracket-escaped" and len(self.escBuf) > MAX_CONTROL_SEQUENCE_BYTES:
            self.state = b"data"
            del self.escBuf

    def loseConnection(self) -> None:
        """Close, and leave on the terminal what is there."""
        self.resetModes([insults.modes.IRM])
        self.transport.loseConnection()


class BoundedTerminal(HistoricRecvLine):
    """What both modes have in common: a prompt for one user, who may type so much and no more."""

    max_line_characters = MAX_LINE_CHARACTERS

    def __init__(self, user: User, verbs: Verbs, clock: IReactorTime) -> None:
        super().__init__()
        self.conversation = Conversation(user, verbs, clock, self.say)
        self.is_lost = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.keyHandlers |= {b"\x08": self.handle_BACKSPACE, _CTRL_U: self.handle_CTRL_U, _CTRL_D: self.handle_CTRL_D}

    def connectionLost(self, reason: object) -> None:
        self.is_lost = True
        self.conversation.close()

    def initializeScreen(self) -> None:
        self.setInsertMode()
        self.greet()
        self.terminal.write(self.ps[self.pn])

    def greet(self) -> None:
        """Say what this is."""
        server_id = self.conversation.verbs.operations.status()["server_id"]
        self.print([f"Server {server_id}. Type help, or quit."])

    def terminalSize(self, width: int, height: int) -> None:
        self.width, self.height = width, height

    def keystrokeReceived(self, keyID: bytes, modifier: object) -> None:
        handler = self.keyHandlers.get(keyID)
        if handler is not None:
            handler()
        elif len(keyID) == 1 and b" " <= keyID <= b"~":
            if len(self.lineBuffer) < self.max_line_characters:
                self.characterReceived(keyID, False)
            else:
                self.terminal.write(b"\a")

    def handle_TAB(self) -> None:
        """Nothing is completed."""

    def handle_CTRL_U(self) -> None:
        self.lineBuffer, self.lineBufferIndex = [], 0
        self._redraw()

    def handle_CTRL_D(self) -> None:
        if not self.lineBuffer:
            self.quit()

    def handle_RETURN(self) -> None:
        super().handle_RETURN()
        del self.historyLines[:-MAX_HISTORY_LINES]
        self.historyPosition = len(self.historyLines)

    def quit(self) -> None:
        self.terminal.nextLine()
        self.terminal.loseConnection()

    def print(self, lines: Lines) -> None:
        """Show lines where the cursor is, at the beginning of a line."""
        for line in lines:
            self.terminal.write(line.encode())
            self.terminal.nextLine()

    def say(self, *lines: str) -> None:
        """Show lines above the one that is being typed."""
        if self.is_lost:
            return
        self.terminal.write(b"\r")
        self.terminal.eraseToLineEnd()
        self.print(list(lines))
        self._redraw()

    def _redraw(self) -> None:
        self.terminal.write(b"\r")
        self.terminal.eraseToLineEnd()
        self.drawInputLine()
        behind = len(self.lineBuffer) - self.lineBufferIndex
        if behind:
            self.terminal.cursorBackward(behind)


class AdminTerminal(BoundedTerminal):
    """`manhole_mode=admin`: the verbs, and no Python."""

    ps = (b"txraft> ", b"")

    def __init__(self, user: User, verbs: Verbs, clock: IReactorTime) -> None:
        super().__init__(user, verbs, clock)
        self._requests = 0

    def connectionMade(self) -> None:
        super().connectionMade()
        self.keyHandlers[_CTRL_C] = self.handle_CTRL_C

    def handle_CTRL_C(self) -> None:
        """Another line; what runs goes on."""
        self.lineBuffer, self.lineBufferIndex = [], 0
        self.terminal.nextLine()
        self.terminal.write(self.ps[0])

    def lineReceived(self, line: bytes) -> None:
        text = line.decode("ascii")
        if text.strip() in QUIT:
            self.quit()
            return
        self._show(self.conversation.ask(text))
        self.terminal.write(self.ps[0])

    def _show(self, asked: Outcome | Deferred[Outcome]) -> None:
        if isinstance(asked, Outcome):
            self.print(asked.lines)
            return
        self._requests += 1
        name = f"#{self._requests}"
        self.print([f"{name} runs; its result will be shown here."])
        asked.addCallback(
            lambda outcome: self.say(f"{name} is done:" if outcome.is_ok else f"{name} has failed:", *outcome.lines)
        )


MakeTerminal = Callable[[User], Any]
"""Makes the terminal protocol for a user who has proved who it is."""
