"""The commands of README.md, for the tests that run them."""

from __future__ import annotations

import pathlib
import re
import shlex
from collections.abc import Callable

from processes import RAFTCTL, RECONFIGURE, ROOT, TWISTD

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of README.md in `language`, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command that README.md tells its reader to run."""
    return [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "]


def command(start: str) -> str:
    """The command of README.md that starts so; there is exactly one."""
    [found] = {each for each in commands() if each.startswith(start)}
    return found


def transcript(start: str) -> list[str]:
    """The lines that README.md shows below the command that starts so, up to the next command."""
    [found] = [block for block in blocks("console") if f"$ {start}" in block]
    below = found.split(f"$ {start}")[1].split("\n", 1)[1]
    return below.split("$ ")[0].splitlines()


Shell = Callable[[str], list[str]]


def make_shell(directory: pathlib.Path) -> Shell:
    """Turns a line into a command in which twistd and our scripts are this checkout's, installed or not."""
    (directory / "bin").mkdir()
    for name, words in {"twistd": TWISTD, "raftctl": RAFTCTL, "reconfigure": RECONFIGURE}.items():
        script = directory / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o755)
    return lambda line: ["/bin/sh", "-c", f"PATH={shlex.quote(str(directory / 'bin'))}:$PATH; exec {line}"]
