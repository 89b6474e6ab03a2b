"""`twistd raftcore`: its options, and how the process starts and ends."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator

import pytest
from processes import ROOT, TWISTD, ask, free_ports, run, started, terminate, wait_until
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from txraft.tap import Options, makeService


class OptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.config = self.directory / "raft.conf"
        self.config.write_text("servers=127.0.0.1\n")

    def ended(self, *arguments: str) -> tuple[object, str]:
        """The exit code or message, and what was printed."""
        printed = io.StringIO()
        with pytest.raises(SystemExit) as caught, contextlib.redirect_stdout(printed):
            Options().parseOptions(arguments)
        return caught.value.code, printed.getvalue()

    def test_a_configuration_that_can_be_used_is_described(self) -> None:
        code, printed = self.ended("--config", str(self.config), "--check-config")
        self.assertEqual(code, 0)
        self.assertEqual(
            printed,
            f"ok: {self.config}: server 127.0.0.1:29922, first members 127.0.0.1:29922, state machine kv, "
            f"data in {self.directory}/raft-data\n",
        )

    def test_a_configuration_without_fsync_is_called_unsafe(self) -> None:
        unsafe = ["--set", "fsync=no", "--set", "accept_data_loss=yes"]
        _, printed = self.ended("--config", str(self.config), "--check-config", *unsafe)
        self.assertIn("UNSAFE: fsync=no", printed)

    def test_every_problem_is_one_line(self) -> None:
        self.config.write_text("servers=127.0.0.1\nrpc_prt=1\nfsync=maybe\n")
        code, _ = self.ended("--config", str(self.config))
        self.assertEqual(
            code,
            f"{self.config}:2: unknown key rpc_prt; did you mean rpc_port?\n"
            f"{self.config}:3: fsync: expected yes or no, not 'maybe'",
        )

    def test_an_unknown_state_machine_names_its_line_and_what_there_is(self) -> None:
        self.config.write_text("\nstate_machine=kw\n")
        code, _ = self.ended("--config", str(self.config))
        self.assertEqual(code, f"{self.config}:2: state_machine: there is no kw; installed: kv")

    def test_an_option_that_the_state_machine_refuses_names_its_line(self) -> None:
        self.config.write_text("servers=127.0.0.1\nkv_prt=1\n")
        code, _ = self.ended("--config", str(self.config), "--check-config")
        self.assertIn(f"{self.config}:2: ", str(code))
        self.assertIn("kv_port", str(code))

    def test_a_limit_of_the_state_machine_that_does_not_fit_names_its_line(self) -> None:
        self.config.write_text("servers=127.0.0.1\n\nkv_max_value_bytes=1 MiB\n")
        code, _ = self.ended("--config", str(self.config), "--check-config")
        self.assertIn(f"{self.config}:3: kv_max_value_bytes = 1048576 and ", str(code))
        self.config.write_text("servers=127.0.0.1\nmax_command_bytes=100 KiB\n")
        code, _ = self.ended("--config", str(self.config), "--check-config")
        self.assertIn(f"{self.config}:2: kv_max_value_bytes = 524288 and ", str(code))

    def test_state_machines_are_listed_without_a_configuration(self) -> None:
        code, printed = self.ended("--list-state-machines")
        self.assertEqual(code, 0)
        self.assertRegex(printed, r"(?m)^kv +\w")

    def test_the_version_is_ours(self) -> None:
        code, printed = self.ended("--version")
        self.assertEqual(code, 0)
        self.assertTrue(printed.startswith("txraft 0."))

    def test_a_port_for_everybody_needs_a_token(self) -> None:
        arguments = ["--config", str(self.config), "--check-config", "--set", "http_bind_ip=0.0.0.0"]
        code, _ = self.ended(*arguments)
        self.assertEqual(
            code,
            "--set http_bind_ip: http_bind_ip = 0.0.0.0 against admin_token_file = nothing: others than this machine "
            "can connect, so there must be a token",
        )
        token = self.directory / "token"
        self.config.write_text("servers=127.0.0.1\nadmin_token_file=token\n")
        code, _ = self.ended(*arguments)
        self.assertIn(f"{self.config}:2: admin_token_file: {token} cannot be read: No such file", str(code))
        token.write_text("0123456789abcdef")
        token.chmod(0o644)
        self.assertIn("chmod 640", str(self.ended(*arguments)[0]))
        token.chmod(0o600)
        self.assertEqual(self.ended(*arguments)[0], 0)

    def test_making_the_service_has_no_side_effects(self) -> None:
        """A daemonising twistd forks afterwards: what was made before would be lost or shared."""
        options = Options()
        options.parseOptions(["--config", str(self.config)])
        before = (threading.active_count(), len(reactor.getDelayedCalls()), len(reactor.getReaders()), open_files())
        service = makeService(options)
        after = (threading.active_count(), len(reactor.getDelayedCalls()), len(reactor.getReaders()), open_files())
        self.assertTrue(IService.providedBy(service))
        self.assertEqual(before, after)
        self.assertEqual(sorted(os.listdir(self.directory)), ["raft.conf"])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


class Server:
    """A server in a directory of its own, from the shipped raft.conf."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.rpc_port, self.kv_port, self.http_port = free_ports(3)
        self.data = directory / "raft-data"
        (directory / "raft.conf").write_bytes((ROOT / "raft.conf").read_bytes())

    def command(self, *settings: str, daemon: bool = False) -> list[str]:
        ports = (f"rpc_port={self.rpc_port}", f"kv_port={self.kv_port}", f"http_server_port={self.http_port}")
        overrides = [word for setting in (*ports, *settings) for word in ("--set", setting)]
        mode = ["--pidfile=pid", "--logfile=log"] if daemon else ["-n", "--pidfile="]
        return [*TWISTD, *mode, "raftcore", "--config", "raft.conf", *overrides]

    def started(self, *settings: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        return started(self.command(*settings), self.directory)

    def problem(self, *settings: str) -> str:
        """The line in which a server that cannot start says why."""
        result = run(self.command(*settings), self.directory)
        said = [line for line in result.stdout.splitlines() if "cannot start" in line]
        assert (result.returncode, len(said)) == (1, 1), result.stdout
        assert "Traceback" not in result.stdout + result.stderr
        return said[0]

    def wait_for_leader(self) -> None:
        wait_until(lambda: ask(self.kv_port, "get nothing") == "OK null", "a leader")


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Server:
    return Server(tmp_path)


@contextlib.contextmanager
def occupied(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port)):
        yield


@pytest.mark.process
def test_sigterm_loses_nothing_and_ends_as_twistd_ends_on_sigterm(server: Server) -> None:
    """T13"""
    with server.started() as process:
        server.wait_for_leader()
        assert ask(server.kv_port, "set fruit apple") == "OK null"
        assert terminate(process) == -15
    with server.started():
        server.wait_for_leader()
        assert ask(server.kv_port, "get fruit") == "OK apple"


@pytest.mark.process
@pytest.mark.parametrize("port", ["rpc_port", "kv_port", "http_server_port"])
def test_a_port_in_use_is_one_line_and_nothing_is_created(server: Server, port: str) -> None:
    number = server.http_port if port == "http_server_port" else getattr(server, port)
    with occupied(number):
        error = server.problem()
    assert error.endswith(
        f"cannot start: --set {port}: Couldn't listen on 127.0.0.1:{number}: [Errno 98] Address already in use."
    )
    assert not server.data.exists()


@pytest.mark.process
def test_a_data_directory_that_cannot_be_made_is_one_line(server: Server) -> None:
    server.data.write_text("a file stands in the way")
    error = server.problem()
    assert f"cannot start: {server.data}" in error
    with (server.directory / "raft.conf").open("a") as file:
        file.write("data_dir=raft-data/below")
    line = len((server.directory / "raft.conf").read_text().splitlines())
    assert f"cannot start: raft.conf:{line}: {server.data}/below: " in server.problem()


@pytest.mark.process
def test_a_second_server_on_one_data_directory_is_refused(server: Server) -> None:
    """T13"""
    with server.started():
        server.wait_for_leader()
        first_kv_port = server.kv_port
        server.rpc_port, server.kv_port, server.http_port = free_ports(3)
        error = server.problem()
        assert str(server.data) in error
        assert ask(first_kv_port, "get nothing") == "OK null"


@pytest.mark.process
def test_a_damaged_state_file_is_one_line_that_names_it(server: Server) -> None:
    with server.started() as process:
        server.wait_for_leader()
        terminate(process)
    path = server.data / "raft.state"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    error = server.problem()
    assert str(path) in error


@pytest.mark.process
def test_a_configuration_that_cannot_be_used_is_one_line_and_nothing_is_created(server: Server) -> None:
    result = run(server.command("heartbeat_rate=1000"), server.directory)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "--set heartbeat_rate: heartbeat_rate = 1000 against min_election_timeout = 150: "
        "must be less, else followers give up a healthy leader\n"
    )
    assert sorted(os.listdir(server.directory)) == ["raft.conf"]


@pytest.mark.process
def test_a_server_that_fails_ends_with_status_1_and_says_why(server: Server, tmp_path: pathlib.Path) -> None:
    """T03"""
    (tmp_path / "poisoned.py").write_text(
        "from txraft_counter.machine import Counter, CounterPlugin\n"
        "class Poisoned(Counter):\n"
        "    def add(self, amount):\n"
        "        raise RuntimeError('no more')\n"
        "CounterPlugin.build = lambda self, options: Poisoned()\n"
        "plugin = CounterPlugin()\n"
    )
    port = server.kv_port
    command = [*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf", "--set", f"rpc_port={server.rpc_port}"]
    command += ["--set", "state_machine=poisoned:plugin", "--set", f"counter_port={port}"]
    command += ["--set", "http_server_port=off"]
    with started(command, tmp_path, ROOT / "examples" / "counter", tmp_path) as process:
        wait_until(lambda: ask(port, "?") == "0", "a leader")
        assert not ask(port, "1").isdigit()
        assert process.wait(30) == 1
    said = [line for line in (tmp_path / "output").read_text().splitlines() if "this server has failed" in line]
    assert len(said) == 1
    assert "raised RuntimeError at entry " in said[0]


@pytest.mark.process
def test_a_daemon_serves_after_its_fork(server: Server) -> None:
    result = run(server.command(daemon=True), server.directory)
    assert result.returncode == 0, result.stderr
    pid = int((server.directory / "pid").read_text())
    try:
        server.wait_for_leader()
        assert ask(server.kv_port, "set fruit apple") == "OK null"
    finally:
        os.kill(pid, 15)
    wait_until(lambda: not (server.directory / "pid").exists(), "the end of the daemon")


@pytest.mark.process
def test_a_daemon_that_cannot_start_says_so_and_leaves_no_pid_file(server: Server) -> None:
    with occupied(server.rpc_port):
        result = run(server.command(daemon=True), server.directory)
    assert result.returncode == 1
    assert "StartFailure: cannot start: " in result.stderr
    # The daemon tells its parent first, and cleans up then.
    wait_until(lambda: not (server.directory / "pid").exists(), "the end of the pid file")
