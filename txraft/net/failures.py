"""Why there is no connection, in the few words that people need."""

from __future__ import annotations

import errno
import os

from twisted.internet.error import ConnectError, UnknownHostError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.python.failure import Failure


def why_not_connected(error: BaseException | None) -> str:
    """What the system says, such as `Connection refused`, without what Twisted wraps around it, and without a stop."""
    if isinstance(error, ConnectError):
        # A resolver's errors have numbers of their own, and words.
        if isinstance(error, UnknownHostError):
            return str(error.args[0] or error).rstrip(".")
        if error.osError in errno.errorcode:
            return os.strerror(error.osError)
        # A connection that ended while it was being made: the reason is a Failure, which shows itself with a traceback.
        [reason] = error.args
        if isinstance(error, ConnectTimeout):
            return reason or "no answer in time"
        if isinstance(reason, Failure):
            return why_not_connected(reason.value)
    return (str(error) or type(error).__name__).rstrip(".")
