"""Every command in README.md does what README.md says. Ports are the test's own; all else is as it stands there."""

from __future__ import annotations

import os
import pathlib
import re
import shlex

import pytest
import redis
from processes import ROOT, ask, converse, free_base_port, free_ports, run, started, wait_until
from readme import Shell, blocks, command, commands, transcript
from twisted.trial.unittest import SynchronousTestCase

# Start of a command -> the file whose tests run it. `telnet` and `redis-cli` need not be installed: the tests send
# what they would.
RUN_BY = {
    "pip install . && twistd": "test_packaging.py",
    "pip install '.[test]' && pytest": "test_packaging.py",
    "pip install ./examples/counter": "test_packaging.py",
    "telnet 127.0.0.1 8877": "test_readme.py",
    "telnet 127.0.0.1 8900": "test_readme.py",
    "redis-cli -p 8877 set": "test_readme.py",
    "redis-cli -p 8877 get": "test_readme.py",
    "raftctl simulate --seeds": "test_simulate_command.py",
    "raftctl simulate --machine counter": "test_simulate_command.py",
    "cd examples/lottery && raftctl simulate": "test_simulate_command.py",
    "raftctl dev": "test_readme.py",
    "redis-cli -c -p 8877 set": "test_readme.py",
    "redis-cli -c -p 8877 get": "test_readme.py",
    "kill -9": "test_readme.py",
    "twistd -n --pidfile= raftcore": "test_readme.py",
    "twistd -n raftcore --config raft.conf --set state_machine=counter": "test_readme.py",
    "twistd raftcore --config raft.conf --check-config": "test_readme.py",
    "twistd raftcore --list-state-machines": "test_readme.py",
    "(umask 077; head": "test_readme_grow.py",
    "raftctl add --plan": "test_readme_grow.py",
    "raftctl add 10.0.0.2": "test_readme_grow.py",
    "raftctl members": "test_readme_grow.py",
    "raftctl transfer": "test_readme_grow.py",
    "raftctl replace": "test_readme_grow.py",
    "raftctl remove": "test_readme_grow.py",
    "raftctl why": "test_readme_grow.py",
    "raftctl status": "test_readme_grow.py",
    "raftctl backup": "test_readme_grow.py",
    "raftctl restore": "test_readme_grow.py",
    "reconfigure -l": "test_readme_grow.py",
}


class ReadmeTests(SynchronousTestCase):
    def test_every_command_is_run_by_a_test(self) -> None:
        for each in commands():
            starts = [start for start in RUN_BY if each.startswith(start)]
            self.assertEqual(len(starts), 1, each)
            source = (ROOT / "tests" / RUN_BY[starts[0]]).read_text().split("class ReadmeTests")[-1]
            self.assertIn(f'"{starts[0]}"', source)

    def test_every_such_command_stands_there(self) -> None:
        for start in RUN_BY:
            self.assertTrue(command(start))

    def test_the_code_is_in_the_files_that_the_tests_run(self) -> None:
        files = ("counter/txraft_counter/machine.py", "lottery/test_lottery.py")
        self.assertEqual(blocks("python"), [(ROOT / "examples" / file).read_text() for file in files])

    def test_the_keys_that_it_names_exist(self) -> None:
        keys = (ROOT / "raft.conf").read_text()
        for key in (
            "servers",
            "interface",
            "kv_interface",
            "http_bind_ip",
            "admin_token_file",
            "stop_timeout",
            "fsync",
        ):
            self.assertRegex(keys, rf"(?m)^#?{key}=")


def conversation(lines: list[str]) -> tuple[list[str], list[str]]:
    """What is typed, and what is answered: they alternate."""
    return lines[0::2], lines[1::2]


def redis_cli(line: str, port: int) -> str:
    """What redis-cli prints for `line`, asked at `port`; with -c it goes where it is sent."""
    words = shlex.split(line)
    follows = "-c" in words
    request = words[words.index("8877") + 1 :]
    while True:
        client = redis.Redis("127.0.0.1", port, decode_responses=True)
        try:
            reply = client.execute_command(*request)
        except redis.ResponseError as error:
            moved = re.search(r"127\.0\.0\.1:(\d+)", f"{error}") if follows else None
            if moved is None or int(moved[1]) == port:
                return f"(error) {error}"
            port = int(moved[1])
        except redis.ConnectionError:
            return "Could not connect"
        else:
            return "OK" if reply is True else f'"{reply}"'
        finally:
            client.close()


@pytest.mark.process
def test_one_server_answers_by_hand_and_to_redis_clients(shell: Shell, tmp_path: pathlib.Path) -> None:
    kv_port, rpc_port = free_ports(2)
    # Without pip, which test_packaging.py runs.
    line = command("pip install . && twistd").split(" && ")[1]
    with started(
        shell(f"{line} --set kv_port={kv_port} --set rpc_port={rpc_port} --set http_server_port=off"), tmp_path
    ):
        wait_until(lambda: ask(kv_port, "get nothing") == "OK null", "a leader")
        typed, answered = conversation(transcript("telnet 127.0.0.1 8877"))
        assert typed[0] == "set greeting hello world"
        assert converse(kv_port, typed) == answered
        for start in ("redis-cli -p 8877 set", "redis-cli -p 8877 get"):
            assert [redis_cli(command(start), kv_port)] == transcript(start)


@pytest.mark.process
def test_three_servers_go_on_without_their_leader(shell: Shell, tmp_path: pathlib.Path) -> None:
    base_port = free_base_port()
    output = tmp_path / "output"
    with started(shell(command("raftctl dev") + f" --base-port {base_port}"), tmp_path) as raftctl:
        wait_until(lambda: "The cluster is ready" in output.read_text(), "the table")
        [(name, port, pid)] = re.findall(r"(?m)^(n\d) +leader +127.0.0.1:(\d+) .* (\d+)$", output.read_text())
        # On a busy machine there may be another election at any time.
        put = "redis-cli -c -p 8877 set"
        wait_until(lambda: [redis_cli(command(put), base_port)] == transcript(put), "a leader")
        os.kill(int(pid), int(shlex.split(command("kill -9"))[1].lstrip("-")))
        other = base_port if int(port) != base_port else base_port + 1
        get = "redis-cli -c -p 8877 get"
        wait_until(lambda: [redis_cli(command(get), other)] == transcript(get), "another leader")
        again = command("twistd -n --pidfile= raftcore").replace("/n2/", f"/{name}/")
        with started(shell(again), tmp_path):
            wait_until(lambda: ask(int(port), "get fruit"), "the third server, started again")
        raftctl.terminate()
        raftctl.wait(30)


@pytest.mark.process
def test_the_counter_counts(shell: Shell, tmp_path: pathlib.Path) -> None:
    port, rpc_port = free_ports(2)
    line = command("twistd -n raftcore --config raft.conf --set state_machine=counter")
    line += f" --set counter_port={port} --set rpc_port={rpc_port} --set http_server_port=off"
    with started(shell(line), tmp_path, ROOT / "examples" / "counter"):
        wait_until(lambda: ask(port, "?") == "0", "a leader")
        typed, answered = conversation(transcript("telnet 127.0.0.1 8900"))
        assert converse(port, typed) == answered
        assert ask(port, "many") == "expected a number or ?"


@pytest.mark.process
def test_a_configuration_is_checked_and_state_machines_are_listed(shell: Shell, tmp_path: pathlib.Path) -> None:
    before = sorted(os.listdir(tmp_path))
    checked = run(shell(command("twistd raftcore --config raft.conf --check-config")), tmp_path)
    assert (checked.returncode, checked.stdout[:4]) == (0, "ok: "), checked.stderr
    listed = run(shell(command("twistd raftcore --list-state-machines")), tmp_path)
    assert (listed.returncode, listed.stdout[:3]) == (0, "kv "), listed.stderr
    assert sorted(os.listdir(tmp_path)) == before
