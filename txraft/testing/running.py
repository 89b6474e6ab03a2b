"""Simulated runs from a test, in a line or two: a user's machine under faults, and what was found once, again."""

from __future__ import annotations

import os
import pathlib
import shlex
import time
from collections.abc import Mapping

from txraft.testing.campaign import Totals
from txraft.testing.machines import find_simulated
from txraft.testing.profiles import ALL, profile_of
from txraft.testing.shrinking import parse_script, script, shrink
from txraft.testing.simulation import Options, Simulation, run_options

TEST = '''\
"""Found by `{line}`; it must not come back."""

import pathlib
import unittest

from txraft.testing import replay


class Regression(unittest.TestCase):
    def test_{name}(self):
        replay(pathlib.Path(__file__).with_name("{name}.txt"))
'''


def simulate(
    machine: str,
    seeds: int = 50,
    first_seed: int = 0,
    profile: str = ALL,
    options: Mapping[str, str] | None = None,
) -> Totals:
    """
    Try a state machine in clusters under faults, as `raftctl simulate --machine` does; from a test.

    :param machine: a plugin's name or `package.module:attribute`; the plugin provides `ISimulatedPlugin`, too.
    :param options: what raft.conf would hold for the machine.
    :raises AssertionError: something is broken, at the first seed that shows it; says what, and how to see it again.
    :raises ConfigError: the machine cannot be found, or not simulated.
    """
    find_simulated(machine, options or {})
    totals = Totals()
    for seed in range(first_seed, first_seed + seeds):
        run = Options.expand(seed, profile, machine, tuple(sorted((options or {}).items())))
        began = time.process_time()
        try:
            report = run_options(run)
        except AssertionError as error:
            error.args = (f"{error}\nSee it again, or with --scripts DIR cut it down: {command_line(run)}",)
            raise
        totals.add(report, time.process_time() - began)
    return totals


def replay(path: str | os.PathLike[str]) -> None:
    """
    Run a script that `raftctl simulate --scripts` has written.

    :raises AssertionError: what it found is there again, or something else is broken.
    """
    options, schedule = parse_script(pathlib.Path(path).read_text())
    Simulation(options, schedule).run()


def write_regression(options: Options, why: str, directory: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Cut a failing run down, and write it as a script, and a test that replays that. The paths of both."""
    directory.mkdir(parents=True, exist_ok=True)
    text = script(options, shrink(options, Simulation(options).schedule), why)
    machine = "".join(letter if letter.isalnum() else "_" for letter in options.machine)
    name = "_".join(filter(None, (machine, options.profile, str(options.seed))))
    script_path, test_path = directory / f"{name}.txt", directory / f"test_{name}.py"
    script_path.write_text(text)
    test_path.write_text(TEST.format(name=name, line=command_line(options)))
    return script_path, test_path


def command_line(options: Options) -> str:
    """What runs this seed again."""
    words = ["raftctl", "simulate", "--seed", str(options.seed)]
    if options.profile != profile_of(options.seed):
        words += ["--profile", options.profile]
    if options.machine:
        words += ["--machine", options.machine]
    for key, value in options.machine_options:
        words += ["--option", f"{key}={value}"]
    return shlex.join(words)
