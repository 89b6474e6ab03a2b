"""
Jobs in forked children: each is a copy of this process as it is now, which does its job and ends.

The rules in the child: no reactor, no thread, no logging, no signal handler, no file or socket of the parent's, and it
leaves with `os._exit`. Locks that another thread held while this one forked stay locked for ever in the child: a job
may use files and pure functions, and nothing that may wait. Should it wait all the same, it is killed for its silence.
"""

from __future__ import annotations

import gc
import os
import signal
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from txraft.errors import ChildFailed

Job = Callable[[Callable[[], None]], None]

_REAP_S = 0.01
_REPORT_FD = 3
_ALIVE, _DONE, _FAILED = b".", b"!", b"?"


class IForker(Interface):
    """Does jobs in copies of this process."""

    def run(job: Job) -> Deferred[None]:
        """
        Fork, and call `job(alive)` in the child, which ends when that returns.

        The job may use files and pure functions, and nothing that may wait for a lock. It calls `alive()` often: a
        child that is silent for too long is killed. Cancelling the Deferred kills it, too.

        @return: a Deferred of None when the job is done; fails with `ChildFailed`.
        """


@implementer(IForker)
class Forker:
    """See `IForker`. For POSIX. A child that says nothing for `silence_s` is killed."""

    def __init__(self, reactor: Any, silence_s: float) -> None:
        self._reactor = reactor
        self._silence_s = silence_s

    def run(self, job: Job) -> Deferred[None]:
        """See `IForker`."""
        reports, report_to = os.pipe()
        parent = os.getpid()
        # What is collected now is not collected in the child, and its pages stay shared.
        gc.freeze()
        # No handler of the parent's may run in the child, not even before it has got rid of them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = _fork()
            if pid == 0:
                _be_child(job, parent, report_to)
        except OSError as error:
            os.close(reports)
            return fail(ChildFailed(f"fork failed: {error.strerror}"))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            gc.unfreeze()
            os.close(report_to)
        return _Child(self._reactor, pid, reports, self._silence_s).done


def _fork() -> int:
    with warnings.catch_warnings():
        # From 3.12 on: this process has threads. The rules above are what makes that bearable.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _be_child(job: Job, parent: int, report_to: int) -> NoReturn:
    try:
        # First of all: were the parent killed now, the next one could not lock its data directory.
        _keep_only(report_to)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        gc.disable()

        def alive() -> None:
            if os.getppid() != parent:
                os._exit(1)
            _report(_ALIVE)

        alive()
        job(alive)
        _report(_DONE)
    except BaseException as error:
        _report(_FAILED + f"{type(error).__name__}: {error}".encode()[:1000])
    finally:
        os._exit(0)


def _keep_only(report_to: int) -> None:
    """
    Close everything that came from the parent but one end of the pipe.

    An inherited socket would keep its other end from hearing that the parent has closed it, and an inherited lock
    would outlive the parent.
    """
    os.dup2(report_to, _REPORT_FD)
    os.closerange(_REPORT_FD + 1, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(_REPORT_FD):
        os.dup2(null, descriptor)
    os.close(null)
    os.set_blocking(_REPORT_FD, False)


def _report(text: bytes) -> None:
    try:
        os.write(_REPORT_FD, text)
    except OSError:
        # Full: the parent has much to read, and none of it says anything else.
        return


@implementer(IReadDescriptor)
class _Child:
    """The parent's side: reads what the child says, until its end."""

    def __init__(self, reactor: Any, pid: int, reports: int, silence_s: float) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._kill("given up"))
        self._reactor = reactor
        self._pid = pid
        self._reports = reports
        self._silence_s = silence_s
        self._heard = b""
        self._problem = ""
        os.set_blocking(reports, False)
        self._watchdog: IDelayedCall = reactor.callLater(silence_s, self._silent)
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._reports

    def logPrefix(self) -> str:
        return "txraft-child"

    def doRead(self) -> None:
        try:
            text = os.read(self._reports, 1 << 16)
        except BlockingIOError:
            return
        if not text:
            self._ended()
            return
        # All but the last words are signs of life.
        self._heard = (self._heard + text).lstrip(_ALIVE)
        if self._watchdog.active():
            self._watchdog.reset(self._silence_s)

    def connectionLost(self, reason: Failure) -> None:
        """The child has closed its end, as some reactors tell it; or the reactor lets go of all that it reads from."""
        self.doRead()
        self._kill("the server stops")
        self._ended()

    def _silent(self) -> None:
        self._kill(f"silent for {self._silence_s:g} s")

    def _kill(self, why: str) -> None:
        # Nobody has waited for it yet, so the number is still its own.
        if self._reports >= 0:
            self._problem = self._problem or f"killed: {why}"
            os.kill(self._pid, signal.SIGKILL)

    def _ended(self) -> None:
        if self._reports < 0:
            return
        self._reactor.removeReader(self)
        os.close(self._reports)
        self._reports = -1
        if self._watchdog.active():
            self._watchdog.cancel()
        self._reap()

    def _reap(self) -> None:
        """It has closed its end, as the last but one thing: what is left is to take note of its death."""
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self._pid, 0  # somebody else has; what it said counts
        if pid == 0:
            self._reactor.callLater(_REAP_S, self._reap)
            return
        if self.done.called:
            return
        if self._heard == _DONE and not self._problem:
            self.done.callback(None)
            return
        said = self._heard.removeprefix(_FAILED).decode(errors="replace")
        ending = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "it ended without a word"
        raised = said.partition(":")[0] if said and not self._problem else ""
        self.done.errback(ChildFailed(self._problem or said or ending, raised))
