"""
Known bugs, planted one at a time into the real code in memory: does the simulation see each of them?

A mutant is data: the catalogue row it stands for, a file, a piece of its text, and what to put there instead. Each runs
in a process of its own, whose import machinery changes that file's text as it is loaded; the tree is never touched.

    python -m txraft.testing.mutants tests/mutants.toml [--only NAME ...] [--seeds N] [--jobs N] [--quick]

The seeds are 0, 1, 2, ..., each with the next profile by name, as in the test suite. `--quick` gives a mutant only the
profile that its entry names, which finds it within few seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.machinery
import importlib.util
import json
import pathlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from types import ModuleType

import attrs

PACKAGE = pathlib.Path(__file__).parents[1]

KILLED, SURVIVED = 3, 0
"""Exit statuses of the process that a mutant lives in."""


@attrs.frozen
class Mutant:
    """
    `row` is the catalogue's; `file` is below the package; `old` occurs in it exactly once.

    `profile` is one under which few seeds kill it. If none does, a check or a fault is missing.
    """

    name: str
    row: str
    file: str
    old: str
    new: str
    profile: str = "standard"


@attrs.frozen
class Death:
    """After how many seeds, and of what."""

    seeds: int
    why: str


def read_mutants(path: pathlib.Path) -> list[Mutant]:
    """
    The mutants of a TOML file.

    :raises ValueError: two have one name, or a text is not in its file exactly once.
    """
    mutants = [Mutant(**fields) for fields in tomllib.loads(path.read_text())["mutant"]]
    names = [mutant.name for mutant in mutants]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two mutants have one name")
    for mutant in mutants:
        count = (PACKAGE / mutant.file).read_text().count(mutant.old)
        if count != 1:
            raise ValueError(f"{path}: {mutant.name}: its text is in {mutant.file} {count} times, not once")
    return mutants


class _MutatedLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError("no compiled file is right for this text")

    def get_data(self, path: str) -> bytes:
        text = pathlib.Path(path).read_text()
        return text.replace(self._mutant.old, self._mutant.new).encode()


class _Finder:
    """Finds one module, with other text than it has."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self.has_planted = False
        parts = pathlib.PurePath("txraft", mutant.file).with_suffix("").parts
        self._name = ".".join(parts)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        self.has_planted = True
        file = str(PACKAGE / self._mutant.file)
        return importlib.util.spec_from_file_location(name, file, loader=_MutatedLoader(name, file, self._mutant))


def rotation(mutants: Sequence[Mutant], commit: str, count: int) -> list[Mutant]:
    """`count` of the mutants, always the same for one commit: those that follow the commit's number in their circle."""
    start = int(hashlib.blake2b(commit.encode(), digest_size=8).hexdigest(), 16) % len(mutants)
    return [mutants[(start + at) % len(mutants)] for at in range(min(count, len(mutants)))]


def kill(mutant: Mutant, seeds: int, quick: bool = False) -> Death | None:
    """How the mutant dies, in a process of its own; None if it survives all seeds. `quick`: with its own profile."""
    child = json.dumps(attrs.asdict(mutant))
    command = [sys.executable, "-m", "txraft.testing.mutants", "--child", child, "--seeds", str(seeds)]
    run = subprocess.run(command + ["--quick"] * quick, capture_output=True, text=True, check=False)
    if run.returncode == SURVIVED:
        return None
    if run.returncode != KILLED:
        raise RuntimeError(f"{mutant.name}: the run itself failed: {run.stderr[-2000:]}")
    count, _, why = run.stdout.splitlines()[-1].partition(" ")
    return Death(int(count), why)


def kill_all(
    mutants: Sequence[Mutant], seeds: int, jobs: int, quick: bool = False
) -> Iterator[tuple[Mutant, Death | None]]:
    """Each mutant and how it dies, `jobs` of them at a time, in the order given."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(mutants, pool.map(lambda mutant: kill(mutant, seeds, quick), mutants), strict=True)


def line(mutant: Mutant, death: Death | None) -> str:
    """One line of the report."""
    outcome = f"seed {death.seeds:4}: {death.why[:110]}" if death else "SURVIVED"
    return f"{mutant.row:4} {mutant.name:44} {outcome}"


def _child(mutant: Mutant, seeds: int, quick: bool) -> int:
    """Prints the number of seeds and why, if one fails."""
    # All of txraft that is loaded by now was loaded as it is.
    for name in [name for name in sys.modules if name.partition(".")[0] == "txraft"]:
        del sys.modules[name]
    finder = _Finder(mutant)
    sys.meta_path.insert(0, finder)
    from twisted.logger import globalLogBeginner

    from txraft.testing.profiles import ALL
    from txraft.testing.simulation import run_seed

    if not finder.has_planted:
        raise RuntimeError(f"{mutant.file} was not loaded")
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    for seed in range(seeds):
        try:
            run_seed(seed, mutant.profile if quick else ALL)
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"{seed + 1} {why}")
            return KILLED
    return SURVIVED


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only if every mutant was killed."""
    parser = argparse.ArgumentParser(description="Plant known bugs and see whether the simulation finds them.")
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="only the profile that a mutant's entry names")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return _child(Mutant(**json.loads(options.child)), options.seeds, options.quick)
    mutants = [mutant for mutant in read_mutants(options.file) if not options.only or mutant.name in options.only]
    survivors = 0
    for mutant, death in kill_all(mutants, options.seeds, options.jobs, options.quick):
        survivors += death is None
        print(line(mutant, death), flush=True)
    print(f"{len(mutants)} mutants, {survivors} survived {options.seeds} seeds")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
