"""The manhole by telnet, for loopback only: user and password, then the prompt. RFC 854, 857, 858, 1073."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from twisted.conch.telnet import ECHO, IAC, NAWS, SGA, Telnet
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.admin.connections import peer_name
from txraft.admin.manhole.conversation import User
from txraft.admin.manhole.login import Gatekeeper, LoginRefused
from txraft.admin.manhole.passwords import MAX_PASSWORD_BYTES
from txraft.admin.manhole.terminal import MakeTerminal, Screen

LOGIN_S = 60.0
"""Who has not logged in by then is cut off."""

FAILURE_DELAY_S = 1.0
"""So long each wrong password takes to be answered."""

MAX_FAILURES = 3
"""After so many wrong passwords the connection is closed."""

MAX_AHEAD_BYTES = 4096
"""So much may be typed ahead while a password is compared."""

_GOING = (b"\x03", b"\x04")
_ERASING = (b"\x08", b"\x7f")


class Login:
    """
    Asks for user and password until they are right.

    @param ask: takes name and password; fires with the user's name or fails with `LoginRefused`.
    @param write: takes what is to be shown.
    @param done: called with the user's name and what was typed after the password.
    @param leave: called when it does not come to that.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ask: Callable[[bytes, bytes], Deferred[str]],
        write: Callable[[bytes], None],
        done: Callable[[str, bytes], None],
        leave: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._write = write
        self._done = done
        self._leave = leave
        self._name: bytes | None = None
        self._line = b""
        self._ahead = b""
        self._failures = 0
        self._delay: IDelayedCall | None = None
        self._is_waiting = False
        self._is_over = False
        self.echoes = False
        """Whether the other end leaves it to us to show what is typed."""

    def start(self) -> None:
        self._write(b"user: ")

    def stop(self) -> None:
        """Ask no more."""
        self._is_over = True
        self._line = self._ahead = b""
        if self._delay is not None and self._delay.active():
            self._delay.cancel()

    def receive(self, data: bytes) -> None:
        """What was typed; a line ends with CR or LF."""
        self._ahead += data
        if len(self._ahead) > MAX_AHEAD_BYTES:
            self._leave()
            return
        while self._ahead and not self._is_waiting and not self._is_over:
            key, self._ahead = self._ahead[:1], self._ahead[1:]
            self._type(key)

    def _type(self, key: bytes) -> None:
        if key in (b"\r", b"\n"):
            line, self._line = self._line, b""
            self._enter(line)
        elif key in _GOING:
            self._leave()
        elif key in _ERASING:
            if self._line and self._name is None and self.echoes:
                self._write(b"\b \b")
            self._line = self._line[:-1]
        elif len(self._line) >= MAX_PASSWORD_BYTES:
            self._leave()
        else:
            self._line += key
            if self._name is None and self.echoes and b" " < key <= b"~":
                self._write(key)

    def _enter(self, line: bytes) -> None:
        if self._name is None:
            self._name = line
            self._write(b"\r\npassword: " if self.echoes else b"password: ")
            return
        name, self._name = self._name, None
        self._is_waiting = True
        self._write(b"\r\n")
        self._ask(name, line).addCallbacks(self._accepted, self._refused)

    def _accepted(self, user: str) -> None:
        if not self._is_over:
            ahead = self._ahead
            self.stop()
            self._done(user, ahead)

    def _refused(self, failure: Failure) -> None:
        failure.trap(LoginRefused)
        if not self._is_over:
            self._delay = self._clock.callLater(FAILURE_DELAY_S, self._again, str(failure.value))

    def _again(self, why: str) -> None:
        self._write(why.encode() + b"\r\n")
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self._leave()
            return
        # What was typed ahead was meant for the prompt, and would be taken for a name.
        self._ahead = b""
        self._is_waiting = False
        self.start()


class TelnetConsole(Telnet):
    """One telnet connection: a login, then a terminal. It also is the transport of its `Screen`."""

    transport: Any
    disconnecting = False

    _logger = Logger()

    def __init__(self, gatekeeper: Gatekeeper, make_terminal: MakeTerminal, clock: IReactorTime) -> None:
        super().__init__()
        self.negotiationMap[NAWS] = self._window_size
        self._gatekeeper = gatekeeper
        self._make_terminal = make_terminal
        self._clock = clock
        self._login = Login(clock, self._ask, self.write, self._logged_in, self.loseConnection)
        self._screen: Screen | None = None
        self._limit: IDelayedCall | None = None

    @property
    def _peer(self) -> str:
        return peer_name(self.transport.getPeer())

    # -- from the network

    def connectionMade(self) -> None:
        # The other end then sends each key as it is typed, and shows nothing by itself, above all no password.
        for option in (ECHO, SGA):
            self.will(option).addErrback(lambda failure: None)
        self.do(NAWS).addErrback(lambda failure: None)
        self._limit = self._clock.callLater(LOGIN_S, self._too_slow)
        self._login.start()

    def dataReceived(self, data: bytes) -> None:
        try:
            super().dataReceived(data)
        except (ValueError, IndexError, AssertionError) as error:
            # How conch says that this is no telnet.
            self._logger.info("manhole: {peer} does not speak telnet: {error!r}", peer=self._peer, error=error)
            self.loseConnection()

    def applicationDataReceived(self, data: bytes) -> None:
        try:
            if self._screen is None:
                self._login.receive(data)
            else:
                self._screen.dataReceived(data)
        except Exception:
            self._logger.failure("manhole: a mistake of ours")
            self.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._stop_login()
        if self._screen is not None:
            self._screen.connectionLost(reason)

    def enableLocal(self, option: bytes) -> bool:
        self._login.echoes = self._login.echoes or option == ECHO
        return option in (ECHO, SGA)

    def enableRemote(self, option: bytes) -> bool:
        return option in (NAWS, SGA)

    def disableLocal(self, option: bytes) -> None:
        self._login.echoes = self._login.echoes and option != ECHO

    def disableRemote(self, option: bytes) -> None:
        """There is nothing to undo."""

    def _window_size(self, data: list[bytes]) -> None:
        if len(data) == 4 and self._screen is not None:
            width, height = struct.unpack("!HH", b"".join(data))
            self._screen.terminalProtocol.terminalSize(width, height)

    # -- to the network

    def write(self, data: bytes) -> None:
        self.transport.write(data.replace(IAC, IAC + IAC))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._stop_login()
        self.transport.loseConnection()

    # -- the way in

    def _ask(self, name: bytes, password: bytes) -> Deferred[str]:
        return self._gatekeeper.login(name, password, self._peer)

    def _logged_in(self, name: str, ahead: bytes) -> None:
        self._stop_login()
        self._screen = Screen(self._make_terminal, User(name, "telnet", self._peer))
        self._screen.makeConnection(self)
        if ahead:
            self._screen.dataReceived(ahead)

    def _too_slow(self) -> None:
        self.write(b"\r\nThat took too long.\r\n")
        self.loseConnection()

    def _stop_login(self) -> None:
        self._login.stop()
        if self._limit is not None and self._limit.active():
            self._limit.cancel()


class TelnetFactory(Factory):
    """Makes a console for each connection."""

    noisy = False

    def __init__(self, gatekeeper: Gatekeeper, make_terminal: MakeTerminal, clock: IReactorTime) -> None:
        self._make: Callable[[], Any] = lambda: TelnetConsole(gatekeeper, make_terminal, clock)

    def buildProtocol(self, addr: IAddress | None) -> TelnetConsole:
        console: TelnetConsole = self._make()
        console.factory = self
        return console
