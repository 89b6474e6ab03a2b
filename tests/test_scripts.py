"""
Runs tests/scripts/*.txt: several cores, one question each.

TXRAFT_REWRITE=1 rewrites what they print, to be reviewed like code.
"""

from __future__ import annotations

import os
import pathlib

import pytest
from core_script import Script

SCRIPTS = sorted((pathlib.Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: pathlib.Path) -> None:
    commands, _, expected = path.read_text().partition("----\n")
    output = Script().run(commands)
    if os.environ.get("TXRAFT_REWRITE"):
        path.write_text(f"{commands}----\n{output}")
    assert output == expected


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 10
