"""`raftctl simulate`: totals, the ledger, and what it does with a failure."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from readme import command

from txraft.admin.raftctl import main
from txraft.core.follower import Follower
from txraft.testing.campaign import ledger_totals
from txraft.testing.coverage import EVERYTHING, missing
from txraft.testing.shrinking import failure_of, parse_script


def test_it_prints_totals_and_adds_them_to_a_ledger(tmp_path, capsys):
    ledger = tmp_path / "ledger.jsonl"
    for first_seed in ("0", "3"):
        arguments = ["--seeds", "3", "--first-seed", first_seed, "--jobs", "1", "--ledger", str(ledger)]
        assert main(["simulate", *arguments]) == 0
    output = capsys.readouterr().out
    assert "6 seeds" in output
    assert "per core-second" in output
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [line["seeds"] for line in lines] == [3, 3]
    totals = ledger_totals(ledger)
    assert (totals.seeds, totals.violations) == (6, 0)
    assert totals.events == sum(line["events"] for line in lines) > 3000
    assert totals.faults.total() > 50
    names = missing(totals.reached)
    assert 0 < len(names) < len(EVERYTHING)
    assert totals.reached.total() == sum(sum(line["reached"].values()) for line in lines)


def test_it_names_what_was_never_reached(tmp_path, capsys):
    ledger = tmp_path / "ledger.jsonl"
    assert main(["simulate", "--seed", "1", "--jobs", "1", "--ledger", str(ledger)]) == 0
    output = capsys.readouterr().out
    names = missing(ledger_totals(ledger).reached)
    assert re.findall(r"^ *never +(.*)$", output, re.MULTILINE) == names
    assert f"{len(EVERYTHING) - len(names)} of {len(EVERYTHING)} outcomes and rows" in output


def test_the_readmes_command_violates_nothing(capsys):
    assert main(shlex.split(command("raftctl simulate"))[1:]) == 0
    assert "violations" in capsys.readouterr().out


def test_several_processes_give_the_same_totals_as_one(tmp_path, capsys):
    totals = []
    for jobs in ("1", "2"):
        ledger = tmp_path / jobs
        assert main(["simulate", "--seeds", "4", "--jobs", jobs, "--ledger", str(ledger)]) == 0
        found = ledger_totals(ledger)
        totals.append((found.events, found.faults, found.outcomes, found.reached))
    assert totals[0] == totals[1]


def test_a_violation_is_named_and_kept_as_a_script(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Follower, "_match_index", property(lambda self: self.proved_index))
    arguments = ["--seeds", "6", "--jobs", "1", "--scripts", str(tmp_path / "scripts")]
    assert main(["simulate", *arguments]) == 1
    output = capsys.readouterr().out
    assert "VIOLATED by seed" in output
    scripts = sorted((tmp_path / "scripts").glob("*.txt"))
    assert scripts
    options, schedule = parse_script(scripts[0].read_text())
    assert failure_of(options, schedule) is not None
    assert f"standard_{options.seed}.txt" == scripts[0].name


def test_what_makes_no_sense_is_a_usage_error(capsys):
    for arguments in (["--seeds", "many"], ["--profile", "none"], ["--seed", "1", "--minutes", "1"]):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", *arguments])
        assert ended.value.code == 2
