"""Who may log in with a password, and how often one may try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.admin.manhole.passwords import PasswordHash, read_passwords
from txraft.errors import ConfigError, TxraftError

FREE_FAILURES = 3
"""So many wrong passwords one after the other cost nothing but the time to type them."""

MAX_WAIT_S = 600.0

_SEE_LOG = "Nobody can log in; the server's log says why."

RunInThread = Callable[..., Deferred[Any]]
"""Called with a function and its arguments; fires with its result."""


class LoginRefused(TxraftError):
    """This login is not accepted; says why, but not whether there is such a user."""


MAX_NAMES = 1000
"""So many names' failures are remembered; beyond it the oldest are forgotten."""


class Lockout:
    """
    After some failures in a row a user has to wait, twice as long each time, and the right password does not help.

    The same holds for names that are no user's: else one could tell which are.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def wait_s(self, user: str) -> float:
        """How long `user` has to wait, in seconds; 0 if not at all."""
        return max(0.0, self._until.get(user, 0.0) - self._clock.seconds())

    def failed(self, user: str) -> None:
        count = self._failures.pop(user, 0) + 1
        self._failures[user] = count
        if len(self._failures) > MAX_NAMES:
            self.succeeded(next(iter(self._failures)))
        if count >= FREE_FAILURES:
            wait_s = min(MAX_WAIT_S, 2.0 ** (count - FREE_FAILURES + 1))
            self._until[user] = self._clock.seconds() + wait_s

    def succeeded(self, user: str) -> None:
        self._failures.pop(user, None)
        self._until.pop(user, None)


class Gatekeeper:
    """Compares names and passwords with the password file, which is read each time: who is struck out is out."""

    _log = Logger()

    def __init__(self, path: str, clock: IReactorTime, run_in_thread: RunInThread) -> None:
        self._path = path
        self._lockout = Lockout(clock)
        self._run_in_thread = run_in_thread
        # One at a time: each takes a processor for a while, and much memory.
        self._lock = DeferredLock()
        self._decoy: PasswordHash | None = None

    def login(self, name: bytes, password: bytes, peer: str) -> Deferred[str]:
        """
        Fires with the user's name. Fails with `LoginRefused`.

        @param peer: where the attempt comes from, for the log.
        """
        return self._lock.run(self._login, name.decode("utf-8", "replace"), password, peer)

    def _login(self, name: str, password: bytes, peer: str) -> Deferred[str]:
        try:
            users = read_passwords(self._path)
        except ConfigError as error:
            self._log.error("manhole: nobody can log in: {problem}", problem=str(error))
            return fail(LoginRefused(_SEE_LOG))
        # What is no user may be a password that was typed in the wrong place: it is not written to the log.
        shown = name if name in users else "an unknown user"
        wait_s = self._lockout.wait_s(name)
        if wait_s > 0:
            self._log.warn(
                "manhole: login of {user} from {peer} refused, {wait_s:.0f} s to wait after failures",
                user=shown,
                peer=peer,
                wait_s=wait_s,
            )
            return fail(LoginRefused(f"Too many failures: wait {wait_s:.0f} s."))
        compared = self._run_in_thread(self._compare, users.get(name), password)
        return compared.addErrback(self._broken).addCallback(self._judge, name, shown, peer)

    def _compare(self, expected: PasswordHash | None, password: bytes) -> bool:
        """In a thread. It takes as long for who does not exist."""
        if expected is None:
            self._decoy = self._decoy or PasswordHash.of(b"")
            self._decoy.fits(password)
            return False
        return expected.fits(password)

    def _broken(self, failure: Failure) -> NoReturn:
        self._log.failure("manhole: a password cannot be compared", failure)
        raise LoginRefused(_SEE_LOG)

    def _judge(self, fits: bool, name: str, shown: str, peer: str) -> str:
        if fits:
            self._lockout.succeeded(name)
            self._log.info("manhole: {user} has logged in by telnet from {peer}", user=shown, peer=peer)
            return name
        self._lockout.failed(name)
        self._log.warn("manhole: wrong password for {user} from {peer}", user=shown, peer=peer)
        raise LoginRefused("That is not right.")
