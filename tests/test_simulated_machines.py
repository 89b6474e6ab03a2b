"""Users' machines in simulated clusters: every planted bug is caught, and the message says what differs, and where."""

from __future__ import annotations

import pathlib
import random
import re
import subprocess
import sys
from typing import Any

import pytest
from processes import ROOT, environment
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import ConfigError
from txraft.testing import MachineBroken, StateDiverged, replay, simulate
from txraft.testing.machines import find_simulated
from txraft.testing.profiles import profile_of
from txraft.testing.replicas import Chronicle, Replica, show, where_they_differ
from txraft.testing.running import command_line
from txraft.testing.shrinking import parse_script, script
from txraft.testing.simulation import Options, Simulation, run_options

EXAMPLES = ROOT / "examples"


def caught(name: str, seeds: int = 12, **more: Any) -> MachineBroken:
    """What is found in a machine of `broken_machines`."""
    with pytest.raises(MachineBroken) as found:
        simulate(f"broken_machines:{name}", seeds=seeds, **more)
    return found.value


def diverged(name: str, **more: int) -> StateDiverged:
    error = caught(name, **more)
    assert isinstance(error, StateDiverged), error
    return error


def test_a_sound_machine_passes():
    totals = simulate("broken_machines:sound", seeds=12)
    assert (totals.seeds, totals.violations) == (12, 0)
    assert totals.outcomes["answered"] > 500


def test_kv_passes():
    totals = simulate("kv", seeds=20)
    assert totals.outcomes["answered"] > 1000


def test_random_numbers_are_caught_and_command_index_and_replicas_are_named():
    error = diverged("random_choice")
    assert error.command == b"pick"
    assert f"command b'pick' at index {error.index} gave" in str(error)
    for replica in error.replicas:
        assert re.fullmatch(r"s\d( after restart \d+)?", replica), replica
        assert re.search(rf"  '\w+' on {replica}$", str(error), re.MULTILINE)
    assert len(set(error.replicas)) == 2


def test_random_numbers_are_the_same_when_it_is_run_again():
    """Or a failure could not be seen again, nor be cut down."""
    assert str(diverged("random_choice")) == str(diverged("random_choice"))


def test_the_order_of_a_set_is_caught_whatever_the_hash_seed_of_this_process():
    error = diverged("set_order")
    assert error.command == b"pick"
    assert re.fullmatch(r"a replica with PYTHONHASHSEED=[12]", error.replicas[1])
    program = "from txraft.testing import simulate; simulate('broken_machines:set_order', seeds=12)"
    for hash_seed in ("1", "2"):
        variables = environment(ROOT / "tests") | {"PYTHONHASHSEED": hash_seed}
        run = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True)
        assert "StateDiverged" in run.stderr, run.stderr
        assert f"PYTHONHASHSEED={3 - int(hash_seed)}" in run.stderr


def test_an_answer_that_depends_on_the_order_of_a_set_is_caught():
    assert "two replicas differ in an answer: query b'count'" in str(diverged("query_of_a_set"))


def test_a_state_that_differs_is_shown_where_it_differs():
    """Results are equal, states are not."""
    error = diverged("notes_random")
    assert f"at index {error.index} their snapshots differ from chunk " in str(error)


@pytest.mark.parametrize("name", ["forgets_on_restore", "merges_on_restore", "snapshot_lives"])
def test_a_wrong_restore_is_caught(name):
    assert "restore() loses something: the snapshots before and after differ from chunk" in str(caught(name))


def test_a_wrong_prepared_restore_is_caught():
    assert "restoring() loses something: the snapshots before and after differ from chunk" in str(caught("prepares"))
    assert "the state has changed before finish()" in str(caught("prepares_hastily"))


def test_a_snapshot_that_leaves_something_out_is_caught_by_what_follows():
    error = diverged("snapshot_leaves_out")
    assert "restored from the snapshot at index" in error.replicas[1]


def test_a_broken_invariant_is_caught():
    error = caught("is_full")
    assert "check() says that an invariant is broken: AssertionError: the house is full" in str(error)
    assert re.search(r"command b'come \w+' at index \d+ on s\d", str(error))


def test_a_machine_that_raises_is_caught_with_the_command():
    # An even seed: commands one at a time.
    error = caught("raises", first_seed=2, seeds=1, profile="calm")
    assert re.search(r"LookupError: three is a crowd\n  command b'pick' at index \d+ on s\d", str(error))


def test_a_machine_that_depends_on_batches_is_caught():
    assert "other batches" in str(diverged("depends_on_batches"))


def test_results_are_counted():
    assert "apply() did not give one result for each command" in str(caught("one_result_too_few"))


def test_a_query_that_changes_the_state_is_caught():
    assert "a query changes the state: query b'count' after index" in str(caught("query_changes_state"))


def test_what_is_not_bytes_is_caught():
    assert "snapshot() gave list('text'), not a sequence of bytes" in str(caught("text_in_snapshot"))
    assert "command() must give bytes: it gave 'text'" in str(caught("draws_text"))


def test_a_failure_names_the_line_that_shows_it_again():
    line = str(caught("raises")).splitlines()[-1].split(": ", 1)[1]
    seed = re.search(r"--seed (\d+)", line)
    assert seed is not None
    assert line == f"raftctl simulate --seed {seed[1]} --machine broken_machines:raises"
    other = next(seed for seed in range(100) if profile_of(seed) != "calm")
    options = Options.expand(other, "calm", "m:p", (("m_a", "b c"),))
    assert command_line(options) == f"raftctl simulate --seed {other} --profile calm --machine m:p --option 'm_a=b c'"


def test_a_script_names_the_machine_and_its_options():
    options = Options.expand(1, "calm", "m:p", (("m_a", "b c"), ("m_b", "x=y")))
    assert parse_script(script(options, [], "why")) == (options, [])


def test_the_same_seed_gives_the_same_run():
    options = Options.expand(3, machine="broken_machines:sound")
    assert run_options(options).digest == run_options(options).digest


def test_what_cannot_be_simulated_says_why(monkeypatch):
    with pytest.raises(ConfigError, match="there is no nothing; installed: kv"):
        simulate("nothing")
    monkeypatch.setattr("broken_machines.sound", find_simulated.__class__)
    with pytest.raises(ConfigError, match="broken_machines:sound is no IStateMachinePlugin"):
        simulate("broken_machines:sound")
    with pytest.raises(ConfigError, match="unknown key kv_prot"):
        simulate("kv", options={"kv_prot": "1"})
    with pytest.raises(ConfigError, match="broken_machines:unable cannot be simulated, see ISimulatedPlugin"):
        simulate("broken_machines:unable")


def test_a_lost_command_a_doubled_one_and_a_stale_answer_are_found():
    """The checks that no sound cluster ever fails."""
    simulation = Simulation(Options.expand(0, machine="broken_machines:sound"))
    workload = simulation.workload
    simulation.run()
    [machine] = {simulation.cluster.servers["s1"].machine}
    machine.applied_index = 0
    with pytest.raises(AssertionError, match="an acknowledged command is lost"):
        workload.check_agreement({"s1": machine})
    entries = workload.chronicle.entries
    some = next(iter(entries.values())).command
    proposed = workload._proposed[some]
    workload._proposed[some] = 0
    with pytest.raises(AssertionError, match="a command was applied more often than it was proposed"):
        workload.check_history()
    workload._proposed[some] = proposed
    workload._stale.append(("query", "1", 2, 3))
    with pytest.raises(AssertionError, match="an answer is older than one before it"):
        workload.check_history()


class ReplicaTests(SynchronousTestCase):
    def replica(self, splits: bool) -> tuple[Replica, list[int]]:
        find = find_simulated("broken_machines:sound", {})
        machine = find.build({})
        sizes: list[int] = []
        apply = machine.apply

        def counting(first_index, commands, time_ms):
            sizes.append(len(commands))
            return apply(first_index, commands, time_ms)

        machine.apply = counting
        return Replica(lambda: machine, find.check, Chronicle(splits), "s1", 1), sizes

    def test_commands_go_one_at_a_time_or_in_batches_of_all_sizes(self) -> None:
        commands = [b"come ann"] * 200
        one_by_one, sizes = self.replica(splits=False)
        answers = one_by_one.apply(5, commands, 0)
        self.assertEqual(sizes, [1] * 200)
        self.assertEqual([answer.index for answer in answers], list(range(5, 205)))
        batches, sizes = self.replica(splits=True)
        self.assertEqual([answer.index for answer in batches.apply(5, commands, 0)], list(range(5, 205)))
        self.assertTrue({1, 2, 3, 4} <= set(sizes))
        self.assertEqual(sum(sizes), 200)

    def test_the_module_random_is_left_as_it_was(self) -> None:
        before = random.getstate()
        replica, _ = self.replica(splits=False)
        replica.apply(1, [b"pick"], 0)
        self.assertEqual(random.getstate(), before)

    def test_large_snapshots_are_compared_now_and_then(self) -> None:
        chronicle = Chronicle(splits=False)
        for index in range(1, 100):
            chronicle.note_result("s1", index, b"c", 0, "r")
            if chronicle.wants_snapshot(index):
                chronicle.note_snapshot("s1", index, (b"x" * 1024 * 1024,))
        looked = [index for index, entry in chronicle.entries.items() if entry.chunks is not None]
        self.assertTrue(4 < len(looked) < 9, looked)
        self.assertEqual(looked, [index for index in range(1, 100) if chronicle.wants_snapshot(index)])


def test_results_are_shown_without_what_is_no_difference():
    assert show({"b", "a"}) == show({"a", "b"}) == "set([\"'a'\", \"'b'\"])"
    assert show(object()) == show(object())
    assert show([1, ("a", b"b")]) != show([1, ("a", b"c")])
    assert show([1]) != show((1,))


def test_the_first_difference_of_two_snapshots_is_found():
    assert where_they_differ((b"same", b"abc"), (b"same", b"abd")) == ("chunk 1, byte 2", "b'abc'", "b'abd'")
    assert where_they_differ((b"a",), (b"a", b"b")) == ("chunk 1", "nothing", "b'b'")
    place, one, other = where_they_differ((b"x" * 1000 + b"1" * 500,), (b"x" * 1000 + b"2" * 500,))
    assert place == "chunk 0, byte 1000"
    assert "1111" in one
    assert "2222" in other
    assert max(len(one), len(other)) < 260


def run_test_file(path: pathlib.Path, runner: str, *paths: pathlib.Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", runner, path.name if runner == "pytest" else path.stem]
    variables = environment(path.parent, *paths)
    return subprocess.run(command, cwd=path.parent, env=variables, capture_output=True, text=True)


FIVE_LINES = """\
from txraft.testing import simulate


def test_bank():
    simulate("broken_machines:{name}", seeds=5)
"""

FOR_TRIAL = """\
from twisted.trial.unittest import SynchronousTestCase
from txraft.testing import simulate


class Tests(SynchronousTestCase):
    def test_bank(self):
        simulate("broken_machines:{name}", seeds=5)
"""


@pytest.mark.parametrize(("runner", "text"), [("pytest", FIVE_LINES), ("twisted.trial", FOR_TRIAL)])
def test_a_test_of_a_few_lines_passes_and_fails(tmp_path, runner, text):
    """Also under trial, which fails tests for errors in the log: disks that fail are none here."""
    path = tmp_path / "test_bank.py"
    for name, status in (("sound", 0), ("random_choice", 1)):
        path.write_text(text.format(name=name))
        result = run_test_file(path, runner, ROOT / "tests")
        assert result.returncode == status, result.stdout + result.stderr
    assert "two replicas differ in a result: command b'pick' at index" in result.stdout
    assert "raftctl simulate --seed" in result.stdout


def test_replay_runs_a_script(tmp_path):
    path = tmp_path / "script.txt"
    path.write_text(script(Options.expand(1, machine="broken_machines:sound"), [], "why"))
    replay(path)
    simulation = Simulation(Options.expand(2, "calm", "broken_machines:raises"))
    path.write_text(script(simulation.options, simulation.schedule, "why"))
    with pytest.raises(MachineBroken):
        replay(path)
