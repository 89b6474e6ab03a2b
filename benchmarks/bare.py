"""What a figure is a ratio to: a server that answers OK and does nothing else, and a bare append with its sync."""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
import time

import hiredis
from twisted.internet import protocol


class Bare(protocol.Protocol):
    """Parses RESP and answers; no log, no replication, no state."""

    def connectionMade(self) -> None:
        self.reader = hiredis.Reader()
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.reader.feed(data)
        count = 0
        while self.reader.gets() is not False:
            count += 1
        self.transport.write(b"+OK\r\n" * count)


def serve(port: int) -> None:
    from twisted.internet import reactor

    reactor.listenTCP(port, protocol.ServerFactory.forProtocol(Bare), interface="127.0.0.1")  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


def syncs_per_second(count: int = 1000) -> float:
    """How many appends of 256 bytes, each with its fdatasync, over zeros, this disk takes one after the other."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        path = pathlib.Path(name) / "file"
        path.write_bytes(bytes(256 * (count + 1)))
        fd = os.open(path, os.O_RDWR)
        os.fsync(fd)
        began = time.perf_counter()
        for number in range(count):
            os.pwrite(fd, b"x" * 256, 256 * number)
            os.fdatasync(fd)
        seconds = time.perf_counter() - began
        os.close(fd)
    return count / seconds


if __name__ == "__main__":
    serve(int(sys.argv[1]))
