"""
The manhole by ssh: public keys only; a terminal, `ssh server members`, or lines on standard input. RFC 4252, 4254.

Needs the extra `ssh`, and imports the reactor, as conch's ssh does: to be imported when a server is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.conch import error as conch_error
from twisted.conch.avatar import ConchUser
from twisted.conch.interfaces import IConchUser, ISession
from twisted.conch.ssh import common, connection, factory, session, transport, userauth
from twisted.conch.ssh.keys import Key
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import FilteringLogObserver, Logger, LogLevel, LogLevelFilterPredicate, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.admin.connections import peer_name
from txraft.admin.manhole.conversation import User
from txraft.admin.manhole.keys import KeyChecker
from txraft.admin.manhole.plain import PlainLines
from txraft.admin.manhole.terminal import MakeTerminal, Screen
from txraft.admin.manhole.verbs import Verbs

LOGIN_S = 60
"""Who has not logged in by then is cut off."""

MAX_SESSIONS = 4
"""So many sessions on one connection at a time."""

_WEAK_CIPHERS = (b"3des-ctr", b"3des-cbc", b"aes256-cbc", b"aes192-cbc", b"aes128-cbc")
_WEAK_MACS = (b"hmac-sha1", b"hmac-md5")


@attrs.frozen
class Surroundings:
    """What a session needs of the server."""

    verbs: Verbs
    make_terminal: MakeTerminal
    clock: IReactorTime


# conch tells of every packet's purpose, and of each disconnected client as of an error.
_QUIET = Logger(observer=FilteringLogObserver(globalLogPublisher, [LogLevelFilterPredicate(LogLevel.warn)]))


class Channel(session.SSHSession):
    """A session's channel."""

    _log = _QUIET

    def request_exec(self, data: bytes) -> int:
        """As conch's, but what the client asks for is not written to the log: it may be anything, a password too."""
        if self.client is not None:
            return 0
        if self.session is None:
            self.session = ISession(self.avatar)
        process = session.SSHSessionProcessProtocol(self)
        self.session.execCommand(process, common.getNS(data)[0])
        self.client = process
        return 1


class ManholeUser(ConchUser):
    """Somebody who has proved who it is. Sessions only: no forwarding, no subsystems."""

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        super().__init__()
        self.name = name
        self.surroundings = surroundings
        self.channelLookup[b"session"] = Channel

    def __conform__(self, interface: object) -> Session | None:
        """Each session of a connection has a state of its own."""
        return Session(self) if interface is ISession else None

    def lookupChannel(self, channelType: bytes, windowSize: int, maxPacket: int, data: bytes) -> Any:
        if len(self.conn.channels) >= MAX_SESSIONS:
            raise conch_error.ConchError(connection.OPEN_RESOURCE_SHORTAGE, "too many sessions")
        return super().lookupChannel(channelType, windowSize, maxPacket, data)

    @property
    def user(self) -> User:
        return User(self.name, "ssh", peer_name(self.conn.transport.transport.getPeer()))


@implementer(IRealm)
class Realm:
    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: object
    ) -> tuple[Any, ManholeUser, Any]:
        if IConchUser not in interfaces:
            raise NotImplementedError(interfaces)
        assert isinstance(avatarId, bytes), "nobody is anonymous here"
        return IConchUser, ManholeUser(avatarId.decode(), self._surroundings), lambda: None


@attrs.frozen
class Pipe:
    """A transport made of two functions."""

    write: Callable[[bytes], None]
    loseConnection: Callable[[], None]


@implementer(ISession)
class Session:
    """One session: a terminal if the client has one, else lines."""

    def __init__(self, avatar: ManholeUser) -> None:
        self._avatar = avatar
        self._screen: Screen | None = None
        self._lines: PlainLines | None = None
        self._size: tuple[int, int] | None = None

    # -- what the client asks for; `processProtocol` is what it sees

    def getPty(self, term: bytes, windowSize: tuple[int, int, int, int], modes: object) -> None:
        rows, columns = windowSize[:2]
        self._size = (columns, rows)

    def windowChanged(self, windowSize: tuple[int, int, int, int]) -> None:
        rows, columns = windowSize[:2]
        if self._screen is not None:
            self._screen.terminalProtocol.terminalSize(columns, rows)

    def openShell(self, processProtocol: session.SSHSessionProcessProtocol) -> None:
        if self._size is None:
            lines = self._take_lines(processProtocol)
            processProtocol.makeConnection(Pipe(lines.receive, self.closed))
            return
        screen = self._screen = Screen(self._avatar.surroundings.make_terminal, self._avatar.user)
        processProtocol.makeConnection(Pipe(screen.dataReceived, self.closed))
        screen.makeConnection(Pipe(processProtocol.write, lambda: _end(processProtocol, 0)))
        screen.terminalProtocol.terminalSize(*self._size)

    def execCommand(self, processProtocol: session.SSHSessionProcessProtocol, line: bytes) -> None:
        lines = self._take_lines(processProtocol)
        # What comes on standard input is for nobody.
        processProtocol.makeConnection(Pipe(lambda data: None, self.closed))
        lines.receive(line)
        # Not before the client is told that its request is accepted.
        self._avatar.surroundings.clock.callLater(0, lines.finish)

    def eofReceived(self) -> None:
        if self._lines is not None:
            self._lines.finish()
        elif self._screen is not None:
            self._screen.loseConnection()

    def closed(self) -> None:
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.connectionLost(Failure(ConnectionDone()))
        if self._lines is not None:
            self._lines.close()

    def _take_lines(self, processProtocol: session.SSHSessionProcessProtocol) -> PlainLines:
        surroundings = self._avatar.surroundings
        # The client's terminal, if it has given us one, takes a newline for nothing but the next line.
        newline = b"\n" if self._size is None else b"\r\n"
        self._lines = PlainLines(
            self._avatar.user,
            surroundings.verbs,
            surroundings.clock,
            lambda shown: processProtocol.outReceived(shown.replace(b"\n", newline)),
            lambda status: _end(processProtocol, status),
        )
        return self._lines


def _end(processProtocol: session.SSHSessionProcessProtocol, status: int) -> None:
    processProtocol.processEnded(Failure(ProcessTerminated(status) if status else ProcessDone(0)))


class UserAuth(userauth.SSHUserAuthServer):
    """Who has not logged in within a minute, or has tried a dozen keys, is cut off. Those who do are in the log."""

    loginTimeout = LOGIN_S
    attemptsBeforeDisconnect = 12

    transport: Any
    _log = _QUIET
    _logger = Logger()

    def _cbFinishedAuth(self, result: Any) -> None:
        super()._cbFinishedAuth(result)
        user, peer = result[1].name, peer_name(self.transport.transport.getPeer())
        self._logger.info("manhole: {user} has logged in by ssh from {peer}", user=user, peer=peer)

    def _ebBadAuth(self, reason: Failure) -> None:
        if reason.check(UnauthorizedLogin):
            # Without the name: it is anything that somebody types.
            self._logger.warn("manhole: a key of {peer} is refused", peer=peer_name(self.transport.transport.getPeer()))
        super()._ebBadAuth(reason)


class Transport(transport.SSHServerTransport):
    """Without the ciphers that OpenSSH has given up."""

    supportedCiphers = [each for each in transport.SSHServerTransport.supportedCiphers if each not in _WEAK_CIPHERS]
    supportedMACs = [each for each in transport.SSHServerTransport.supportedMACs if each not in _WEAK_MACS]
    supportedCompressions = [b"none"]
    _log = _QUIET
    factory: Any
    transport: Any
    _limit: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        # UserAuth's time begins only when that has; a client may never come so far.
        self._limit = self.factory.clock.callLater(LOGIN_S, self._too_slow)

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        super().connectionLost(reason)

    def _too_slow(self) -> None:
        if not hasattr(self, "avatar"):
            self.transport.loseConnection()

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        """The client says why it goes, also when that is no error."""


class Connection(connection.SSHConnection):
    """The sessions of one client."""

    _log = _QUIET


class SSHFactory(factory.SSHFactory):
    """Makes a transport for each connection."""

    noisy = False
    protocol = Transport
    services = {b"ssh-userauth": UserAuth, b"ssh-connection": Connection}
    _log = _QUIET

    def __init__(self, host_key: Key, authorized_keys: str, surroundings: Surroundings) -> None:
        """@param authorized_keys: the path of the file."""
        self.portal = Portal(Realm(surroundings), [KeyChecker(authorized_keys)])
        self.publicKeys = {host_key.sshType(): host_key}
        self.privateKeys = {host_key.sshType(): host_key}
        self.primes = None
        self.clock = surroundings.clock
