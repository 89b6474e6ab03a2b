"""
Known bugs, planted one at a time into the real code in memory: does the simulation see each of them?

A mutant is data: the catalogue row it stands for, a file, a piece of its text, and what to put there instead. Each runs
in a process of its own, whose import machinery changes that file's text as it is loaded; the tree is never touched.

    python -m txraft.testing.mutants tests/mutants.toml [--only NAME ...] [--seeds N]
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import pathlib
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import attrs

PACKAGE = pathlib.Path(__file__).parents[1]
PROFILES = ("standard", "crashes", "partitions", "calm")


@attrs.frozen
class Mutant:
    """`row` is the catalogue's; `file` is below the package; `old` occurs in it exactly once."""

    name: str
    row: str
    file: str
    old: str
    new: str


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


def seeds_to_kill(mutant: Mutant, seeds: int) -> int | None:
    """How many seeds it takes until one of them fails, in a process of its own; None if none of them does."""
    child = json.dumps(attrs.asdict(mutant))
    command = [sys.executable, "-m", "txraft.testing.mutants", "--child", child, "--seeds", str(seeds)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 3):
        raise RuntimeError(f"{mutant.name}: the run itself failed: {run.stderr[-2000:]}")
    return int(run.stdout.split()[-1]) if run.returncode == 3 else None


def _child(mutant: Mutant, seeds: int) -> int:
    """Status 3, and the number of seeds, if one fails; 0 if none does."""
    # All of txraft that is loaded by now was loaded as it is.
    for name in [name for name in sys.modules if name.partition(".")[0] == "txraft"]:
        del sys.modules[name]
    finder = _Finder(mutant)
    sys.meta_path.insert(0, finder)
    from twisted.logger import globalLogBeginner

    from txraft.testing.simulation import run_seed

    if not finder.has_planted:
        raise RuntimeError(f"{mutant.file} was not loaded")
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    for seed in range(seeds):
        try:
            run_seed(seed, PROFILES[seed % len(PROFILES)])
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
            print(seed + 1)
            return 3
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only if every mutant was killed."""
    parser = argparse.ArgumentParser(description="Plant known bugs and see whether the simulation finds them.")
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return _child(Mutant(**json.loads(options.child)), options.seeds)
    return _report(read_mutants(options.file), options.only, options.seeds)


def _report(mutants: Sequence[Mutant], only: Sequence[str], seeds: int) -> int:
    survivors = 0
    for mutant in mutants:
        if only and mutant.name not in only:
            continue
        count = seeds_to_kill(mutant, seeds)
        survivors += count is None
        print(f"{mutant.row:5} {mutant.name:45} {f'killed by seed {count}' if count else 'SURVIVED'}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
