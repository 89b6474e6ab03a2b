"""Keeps the log free of what a simulated run does on purpose."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from txraft.node import RaftNode


@implementer(ILogObserver)
def _ignore(event: LogEvent) -> None:
    pass


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """
    Servers log nothing meanwhile. That disks fail is what a run wants; trial fails a test for each error in the log.
    """
    before = RaftNode._log
    RaftNode._log = Logger(namespace="txraft.testing", observer=_ignore)
    try:
        yield
    finally:
        RaftNode._log = before
