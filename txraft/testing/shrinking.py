"""
From a failing run to a short script: leaves out of the schedule what the failure does not need (delta debugging).

Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002 (ddmin).
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from txraft.testing.schedule import Action, parse_schedule
from txraft.testing.simulation import Options, Simulation

_NUMBERS = ("seed", "size", "spares", "timing", "limits")
_WORDS = ("profile", "ending", "machine")


def failure_of(options: Options, schedule: Sequence[Action]) -> str | None:
    """How the run fails: the kind of the failure, without its numbers; None if it does not."""
    try:
        Simulation(options, schedule).run()
    except Exception as error:
        return kind_of(f"{type(error).__name__}: {error}")
    return None


def kind_of(why: str) -> str:
    """
    The kind of a failure, of which `why` says type and text.

    Numbers differ from one schedule to another; what is broken is named before them.
    """
    name, _, text = why.partition(": ")
    return f"{name}: {text.split(':')[0].splitlines()[0] if text else ''}"


def shrink(
    options: Options, schedule: Sequence[Action], on_progress: Callable[[int], None] = lambda length: None
) -> list[Action]:
    """
    A schedule, part of this one, that fails in the same way, and from which no single action can be left out.

    Costs some hundreds of runs. `on_progress` is told the length of each shorter one.

    :raises ValueError: the schedule does not fail.
    """
    failure = failure_of(options, schedule)
    if failure is None:
        raise ValueError("this schedule does not fail")
    kept, parts = list(schedule), 2
    while kept:
        size = max(1, len(kept) // parts)
        for start in range(0, len(kept), size):
            candidate = kept[:start] + kept[start + size :]
            if failure_of(options, candidate) == failure:
                kept, parts = candidate, max(2, parts - 1)
                on_progress(len(kept))
                break
        else:
            if size == 1:
                return kept
            parts = min(len(kept), parts * 2)
    return kept


def script(options: Options, schedule: Sequence[Action], why: str) -> str:
    """A regression script: what happened, the options, and the actions, one a line."""
    lines = [f"# {line}" for line in [*why.splitlines(), f"Found at commit {commit()}."]]
    facts = [f"{name}={getattr(options, name)}" for name in (*_NUMBERS, *_WORDS)]
    facts += [f"option:{key}={value}" for key, value in options.machine_options]
    return "\n".join([*lines, f"# options {shlex.join(facts)}", *map(str, schedule), ""])


def parse_script(text: str) -> tuple[Options, list[Action]]:
    """
    What `script` wrote.

    :raises ValueError: it has no line of options, or a line that is no action.
    """
    for line in text.splitlines():
        if line.startswith("# options "):
            facts = dict(word.split("=", 1) for word in shlex.split(line)[2:])
            values: dict[str, Any] = {name: int(facts[name]) for name in _NUMBERS}
            values |= {name: facts[name] for name in _WORDS}
            options = [(key[7:], value) for key, value in facts.items() if key.startswith("option:")]
            return Options(machine_options=tuple(options), **values), parse_schedule(text)
    raise ValueError("no line '# options ...'")


def commit() -> str:
    """The commit of the working tree that this runs from, `unknown` outside one."""
    try:
        command = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
