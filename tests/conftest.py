"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher


@pytest.fixture(autouse=True)
def no_deferred_ends_in_an_error_that_nobody_handled() -> Iterator[None]:
    """T06: such an error is a pipeline that is stuck, silently. trial's own tests find theirs in the same way."""
    unhandled: list[object] = []

    def observe(event: LogEvent) -> None:
        if "Unhandled error in Deferred" in str(event.get("log_format")):
            unhandled.append(event.get("log_failure") or event.get("debugInfo"))

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not unhandled, unhandled
