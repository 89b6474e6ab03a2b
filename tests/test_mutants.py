"""The simulation finds known bugs: planted in memory, some of them at each commit, all of them in the long run."""

from __future__ import annotations

import json
import pathlib
import subprocess

import attrs
import pytest

from txraft.testing import mutants
from txraft.testing.mutants import Mutant, kill, kill_all, line, main, read_mutants, rotation

TESTS = pathlib.Path(__file__).parent
CATALOGUE = TESTS.parent / "docs" / "pitfalls.md"
ALL = read_mutants(TESTS / "mutants.toml")
AT_A_TIME = 30
SEEDS = 60
"""Within so many seeds of its profile each mutant must die; see `profile` in mutants.toml."""


def head() -> str:
    """The commit that is tested, whether or not the tree differs from it."""
    command = ["git", "-C", str(TESTS), "rev-parse", "HEAD"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip() or "outside a repository"


def test_there_are_eighty_and_each_stands_for_a_row_of_the_catalogue():
    rows = {text.split("|")[1].strip() for text in CATALOGUE.read_text().splitlines() if text.startswith("| ")}
    assert len(ALL) >= 80
    assert {mutant.row for mutant in ALL} <= rows


def test_thirty_of_them_are_killed():
    """Which ones the commit decides: the same commit plants the same, and the next one others."""
    survivors = []
    for mutant, death in kill_all(rotation(ALL, head(), AT_A_TIME), SEEDS, jobs=2, quick=True):
        print(line(mutant, death))
        if death is None:
            survivors.append(mutant.name)
    assert survivors == []


def test_the_rotation_is_the_commits_and_reaches_all():
    assert rotation(ALL, "a", 30) == rotation(ALL, "a", 30)
    assert len({mutant.name for mutant in rotation(ALL, "a", 30)}) == 30
    reached = {mutant.name for number in range(200) for mutant in rotation(ALL, str(number), 30)}
    assert reached == {mutant.name for mutant in ALL}
    assert {m.name for m in rotation(ALL, "a", 1000)} == {m.name for m in ALL}


def test_what_is_no_bug_survives_and_the_exit_status_says_so(capsys, tmp_path):
    harmless = Mutant("harmless", "E01", "core/raft.py", "A new random timeout", "A random timeout")
    assert kill(harmless, seeds=2) is None
    assert line(harmless, None).endswith("SURVIVED")
    fields = [f"{name} = {json.dumps(value)}" for name, value in attrs.asdict(harmless).items()]
    path = tmp_path / "mutants.toml"
    path.write_text("\n".join(["[[mutant]]", *fields]))
    assert main([str(path), "--seeds", "1", "--jobs", "1"]) == 1
    assert "1 mutants, 1 survived 1 seeds" in capsys.readouterr().out


def test_a_text_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "mutants.toml"
    path.write_text(
        '[[mutant]]\nname = "a"\nrow = "E01"\nfile = "core/raft.py"\nold = "nowhere to be found"\nnew = ""\n'
    )
    with pytest.raises(ValueError, match="0 times, not once"):
        read_mutants(path)


def test_a_mutant_that_cannot_be_loaded_is_no_death():
    broken = Mutant("broken", "E01", "core/raft.py", "from __future__", "frm __future__")
    with pytest.raises(RuntimeError, match="the run itself failed"):
        kill(broken, seeds=1)
    assert mutants.SURVIVED == 0
