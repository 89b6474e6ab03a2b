"""What people are told of a connection that could not be made."""

from __future__ import annotations

import errno
import socket

import pytest
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    UnknownHostError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.python.failure import Failure

from txraft.net.failures import why_not_connected


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
        (NoRouteError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (ConnectError(string=Failure(ConnectionDone())), "Connection was closed cleanly"),
        (ConnectTimeout(errno.ETIMEDOUT, "Connection timed out"), "Connection timed out"),
        (UnknownHostError(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (UnknownHostError(), "Hostname couldn't be looked up"),
        (ConnectError(-7, "of its own"), "An error occurred while connecting: -7: of its own"),
        (ConnectTimeout(), "no answer in time"),
        (ConnectTimeout(string="no answer within 5 s"), "no answer within 5 s"),
        (ConnectionRefusedError(), "Connection was refused by other side"),
        (DNSLookupError("no results for hostname lookup: x"), "DNS lookup failed: no results for hostname lookup: x"),
        (ValueError("'s2' has no port"), "'s2' has no port"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_reason_is_a_few_words(error, words):
    assert why_not_connected(error) == words
