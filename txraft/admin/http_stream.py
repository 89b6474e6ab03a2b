"""An answer of the admin HTTP that is a file: read as the other side takes it, in time, and never held as a whole."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from zope.interface import implementer

from txraft.admin.http_answers import FILE_TYPE, FileResponse, write_head
from txraft.pace import Pace

PIECE_BYTES = 1 << 18
"""So much is read at a time, and is in memory of each file beside what the transport holds."""

STALL_S = 60
"""Who takes nothing for so long is cut off: the file could not be removed meanwhile."""

_log = Logger()


@implementer(IPushProducer)
class FileSender:
    """
    Sends one file. `done` fires when that has ended, whichever way; it never fails.

    A file that cannot be read to its end ends with the connection: whoever reads sees that something is missing.
    """

    def __init__(self, request: Request, file: FileResponse, clock: IReactorTime, bandwidth: int) -> None:
        """@param bandwidth: see `Pace`."""
        self.done: Deferred[None] = Deferred()
        self._request = request
        self._file = file
        self._clock = clock
        self._pace = Pace(clock.seconds, bandwidth)
        self._wait: IDelayedCall | None = None
        self._offset = 0
        self._is_reading = False
        self._is_paused = False
        self._is_over = False

    def start(self) -> None:
        """Begin."""
        self._request.notifyFinish().addErrback(lambda _: self.stopProducing())
        disposition = ("Content-Disposition", f'attachment; filename="{self._file.name}"')
        write_head(self._request, 200, FILE_TYPE, self._file.size, (disposition,))
        self._request.registerProducer(self, True)
        self._go_on()

    def cut(self, why: str) -> None:
        """End it in the midst, and with it the connection."""
        if not self._is_over:
            _log.warn("sending {name} was cut at byte {at}: {why}", name=self._file.name, at=self._offset, why=why)
            transport: Any = self._request.channel.transport
            self.stopProducing()
            transport.abortConnection()

    def _go_on(self) -> None:
        is_waiting = self._is_reading or (self._wait is not None and self._wait.active())
        if is_waiting or self._is_paused or self._is_over:
            return
        if self._offset >= self._file.size:
            self._end()
            return
        wait_s = self._pace.wait_s()
        if wait_s > 0:
            self._wait = self._clock.callLater(wait_s, self._go_on)
            return
        self._is_reading = True
        self._file.reader.read(self._offset, self._pace.piece(PIECE_BYTES)).addCallbacks(self._send, self._cannot_read)

    def _send(self, data: bytes) -> None:
        self._is_reading = False
        if self._is_over:
            return
        if not data:
            self.cut("the file has ended")
            return
        self._offset += len(data)
        self._pace.sent(len(data))
        self._request.write(data)
        self._go_on()

    def _cannot_read(self, failure: Failure) -> None:
        self.cut(failure.getErrorMessage())

    def _end(self) -> None:
        self._request.unregisterProducer()
        self._request.finish()
        self.stopProducing()

    # -- IPushProducer

    def pauseProducing(self) -> None:
        """The other side is slower than the disk."""
        self._is_paused = True
        self._request.channel.setTimeout(STALL_S)

    def resumeProducing(self) -> None:
        """It has taken something."""
        self._is_paused = False
        self._request.channel.setTimeout(None)
        self._go_on()

    def stopProducing(self) -> None:
        """There is nobody any more to send anything to."""
        if not self._is_over:
            self._is_over = True
            if self._wait is not None and self._wait.active():
                self._wait.cancel()
            self._file.reader.close()
            self.done.callback(None)
