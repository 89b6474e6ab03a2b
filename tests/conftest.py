"""What holds for every test."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

import pytest
from processes import ROOT
from readme import Shell, make_shell
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


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    """Carries out the lines of README.md, in a directory that has raft.conf."""
    shutil.copy(ROOT / "raft.conf", tmp_path)
    return make_shell(tmp_path)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """What a test has started, and is stopped at its end."""
    with contextlib.ExitStack() as stack:
        yield stack
