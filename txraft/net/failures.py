"""Why there is no connection, in the few words that people need."""

from __future__ import annotations

import os

from twisted.internet.error import ConnectError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.python.failure import Failure


def why_not_connected(error: BaseException | None) -> str:
    """What the system says, such as `Connection refused`, without what Twisted wraps around it, and without a stop."""
    if isinstance(error, ConnectError):
        if isinstance(error.osError, int):
            return os.strerror(error.osError)
        # A connection that ended while it was being made: the reason is a Failure, which shows itself with a traceback.
        [reason] = error.args
        if isinstance(error, ConnectTimeout):
            return reason or "no answer in time"
        if isinstance(reason, Failure):
            return why_not_connected(reason.value)
    return (str(error) or type(error).__name__).rstrip(".")
