"""`raftctl simulate`: totals, the ledger, and what it does with a failure."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from processes import ROOT, environment
from readme import blocks, command

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
    assert main(shlex.split(command("raftctl simulate --seeds"))[1:]) == 0
    assert "violations" in capsys.readouterr().out


def run_raftctl(line: str, cwd: pathlib.Path, *paths: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """What a line of the shell prints that begins with `raftctl`."""
    words = [sys.executable, "-m", "txraft.admin.raftctl", *shlex.split(line)[1:]]
    return subprocess.run(words, cwd=cwd, env=environment(*paths), capture_output=True, text=True)


def test_the_readmes_counter_passes(tmp_path):
    ran = run_raftctl(command("raftctl simulate --machine counter"), tmp_path, ROOT / "examples" / "counter")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_readmes_planted_bug_is_found_as_it_says():
    """Which names and numbers, the seed decides; another run whenever the simulation learns something."""
    where, line = command("cd examples/lottery && raftctl simulate").split(" && ")
    ran = run_raftctl(line, ROOT / where.removeprefix("cd "))
    assert ran.returncode == 1, ran.stderr
    [shown] = [block for block in blocks("text") if "VIOLATED" in block]
    found = ran.stdout[ran.stdout.index("VIOLATED") :].splitlines()
    assert [without_particulars(line) for line in found[:3]] == [
        without_particulars(line) for line in shown.splitlines()
    ]


def without_particulars(line: str) -> str:
    return re.sub(r"b'\w+' on s\d( after restart \d+)?", "NAME on SERVER", re.sub(r"(index|seed) \d+", r"\1 N", line))


def test_the_mended_example_passes():
    ran = run_raftctl("raftctl simulate --machine lottery_mended:plugin --seeds 20", ROOT / "examples" / "lottery")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_examples_test_passes():
    lottery = ROOT / "examples" / "lottery"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_lottery.py"]
    ran = subprocess.run(words, cwd=lottery, env=environment(lottery), capture_output=True, text=True)
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


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
    assert output.count("VIOLATED by seed") == 1
    assert re.search(r"also by \d+ more: \d", output)
    scripts = sorted((tmp_path / "scripts").glob("*.txt"))
    assert scripts
    options, schedule = parse_script(scripts[0].read_text())
    assert failure_of(options, schedule) is not None
    name = f"{options.profile}_{options.seed}"
    assert scripts[0].name == f"{name}.txt"
    test_path = scripts[0].with_name(f"test_{name}.py")
    assert f"test: pytest {test_path}" in output
    for runner in ("pytest", "unittest"):
        ran = run_test(test_path, runner)
        assert ran.returncode == 0, "without the planted bug: " + ran.stdout + ran.stderr


def run_test(path: pathlib.Path, runner: str, *paths: pathlib.Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", runner, path.name]
    return subprocess.run(words, cwd=path.parent, env=environment(*paths), capture_output=True, text=True)


def test_what_is_found_in_a_machine_is_kept_as_a_test(tmp_path):
    lottery = ROOT / "examples" / "lottery"
    line = f"raftctl simulate --machine lottery:plugin --seeds 2 --scripts {tmp_path}"
    assert run_raftctl(line, lottery).returncode == 1
    [script] = tmp_path.glob("*.txt")
    options, schedule = parse_script(script.read_text())
    assert options.machine == "lottery:plugin"
    assert len(schedule) < 12
    ran = run_test(script.with_name(f"test_{script.stem}.py"), "pytest", lottery)
    assert "two replicas differ in a result: command b'draw' at index" in ran.stdout, ran.stdout + ran.stderr


def test_a_machine_that_cannot_be_simulated_is_refused_in_one_line(capsys):
    for arguments, said in (
        (["nothing"], "raftctl: state_machine: there is no nothing; installed: "),
        (["no.such:thing"], "raftctl: state_machine: cannot import no.such:thing: "),
        (["broken_machines:unable"], "raftctl: state_machine: broken_machines:unable cannot be simulated, see ISim"),
        (["kv", "--option", "kv_prot=1"], "raftctl: unknown key kv_prot"),
    ):
        assert main(["simulate", "--machine", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith(said), error
        assert error.count("\n") == 1, error


def test_a_table_of_a_users_machine_says_nothing_of_our_coverage(capsys):
    for arguments, shown in (([], True), (["--machine", "kv"], False)):
        assert main(["simulate", "--seeds", "1", "--jobs", "1", *arguments]) == 0
        assert ("never" in capsys.readouterr().out) == shown


def test_what_makes_no_sense_is_a_usage_error(capsys):
    for arguments in (["--seeds", "many"], ["--profile", "none"], ["--seed", "1", "--minutes", "1"], ["--option", "a"]):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", *arguments])
        assert ended.value.code == 2
