"""The manhole of real servers: a scripted telnet session, and ssh with a real client."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from manhole_support import seen
from processes import DEADLINE_S, TWISTD, ask, environment, free_ports, run, started, terminate, wait_until

from txraft.admin.manhole.keys import make_host_key, read_host_key
from txraft.admin.manhole.passwords import write_password

pytestmark = pytest.mark.process

USER, PASSWORD = "alice", "correct horse battery"
IAC, DONT, DO, WONT, WILL, SB, SE = (bytes([code]) for code in (255, 254, 253, 252, 251, 250, 240))
ECHO, SGA, NAWS = b"\x01", b"\x03", b"\x1f"


class Server:
    """A server in a directory of its own; it is the first of a cluster, or waits to be added to one."""

    def __init__(self, directory: pathlib.Path, is_first: bool, *settings: str) -> None:
        self.directory = directory
        directory.mkdir()
        self.rpc_port, self.kv_port, self.telnet_port, self.ssh_port = free_ports(4)
        self.server_id = f"127.0.0.1:{self.rpc_port}"
        lines = [f"rpc_port={self.rpc_port}", f"kv_port={self.kv_port}", "http_server_port=off", *settings]
        lines += ["servers=127.0.0.1"] * is_first
        (directory / "raft.conf").write_text("\n".join(lines))

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf"]
        with started(command, self.directory) as process:
            wait_until(lambda: ask(self.kv_port, "get nothing"), "a server that listens")
            yield process

    @property
    def output(self) -> str:
        return (self.directory / "output").read_text()

    def wait_for_leader(self) -> None:
        wait_until(lambda: ask(self.kv_port, "get nothing") == "OK null", "a leader")


class TelnetClient:
    """A client as telnet(1) is: it agrees to what it knows, and answers each question once."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._answered: set[bytes] = set()
        self._data = b""
        self._read = 0

    def close(self) -> None:
        self._socket.close()

    def send(self, line: str) -> None:
        self._socket.sendall(line.encode() + b"\r\0")

    def expect(self, text: str, deadline_s: float = DEADLINE_S) -> str:
        """What is seen until `text` has been, and not yet been returned; fails if the other end closes before that."""
        deadline = time.monotonic() + deadline_s
        while text not in (shown := seen(self._data)[self._read :]):
            self._socket.settimeout(max(0.1, deadline - time.monotonic()))
            data = self._socket.recv(4096)
            assert data, f"closed before {text!r}: {shown}"
            self._data += data
            self._negotiate()
        end = shown.index(text) + len(text)
        self._read += end
        return shown[:end]

    def expect_end(self) -> None:
        self._socket.settimeout(DEADLINE_S)
        while self._socket.recv(4096):
            pass

    def _negotiate(self) -> None:
        for question in re.findall(rb"\xff[\xfb-\xfe].", self._data, re.DOTALL):
            if question in self._answered:
                continue
            self._answered.add(question)
            verb, option = question[1:2], question[2:]
            if verb == WILL:
                self._socket.sendall(IAC + (DO if option in (ECHO, SGA) else DONT) + option)
            elif verb == DO and option == NAWS:
                self._socket.sendall(IAC + WILL + NAWS + IAC + SB + NAWS + b"\0\x50\0\x18" + IAC + SE)
            elif verb == DO:
                self._socket.sendall(IAC + WONT + option)


def test_a_session_by_telnet_makes_a_cluster_of_two(tmp_path: pathlib.Path) -> None:
    first, second = Server(tmp_path / "first", True), Server(tmp_path / "second", False)
    with (first.directory / "raft.conf").open("a") as file:
        file.write(f"\nmanhole_port={first.telnet_port}\nmanhole_password_file=passwords")
    write_password(str(first.directory / "passwords"), USER, PASSWORD.encode())
    with first.running() as process, second.running():
        first.wait_for_leader()
        client = TelnetClient(first.telnet_port)
        client.expect("user: ")
        client.send(USER)
        client.expect("password: ")
        client.send("not the password")
        client.expect("That is not right.")
        client.expect("user: ")
        client.send(USER)
        assert client.expect("password: ").startswith(USER), "the server shows what is typed"
        client.send(PASSWORD)
        assert PASSWORD not in client.expect("txraft> ")
        client.send("members()")
        assert f"{first.server_id}  leader" in client.expect("txraft> ")
        client.send(f'add_server("{second.server_id}")')
        client.expect("#1 runs; its result will be shown here.")
        client.expect("#1 is done:")
        assert re.search(rf"{second.server_id} +voter", client.expect("txraft> "))
        client.send("why")
        assert client.expect("txraft> ").startswith("why\n")
        client.send("__import__('os').system('true')")
        assert "Nothing was done." in client.expect("txraft> ")
        client.send(f"transfer {second.server_id}")
        client.expect("#2 is done:")
        client.expect("txraft> ")
        client.send(f"remove_server {second.server_id}")
        assert f"it is {second.server_id}" in client.expect("Nothing was done; ask the leader.").lower()
        client.send("quit")
        client.expect_end()
        client.close()
        assert ask(second.kv_port, "set fruit apple") == "OK null"

        open_client = TelnetClient(first.telnet_port)
        open_client.expect("user: ")
        assert terminate(process) == -15, "who is still connected does not hold up the end"
        open_client.close()
    said = first.output
    assert "manhole: alice has logged in by telnet from 127.0.0.1:" in said
    assert f"add_server('{second.server_id}') of alice has ended: ok" in said
    assert "not the password" not in said and PASSWORD not in said
    assert "Traceback" not in said and "Unhandled" not in said


@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh here")
class TestSsh:
    @pytest.fixture
    def server(self, tmp_path: pathlib.Path) -> Server:
        server = Server(tmp_path / "first", True)
        for name in ("alice", "mallory"):
            made = run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name], server.directory)
            assert made.returncode == 0, made
        shutil.copy(server.directory / "alice.pub", server.directory / "keys")
        (server.directory / "keys").chmod(0o600)
        return server

    @contextlib.contextmanager
    def running(self, server: Server, *settings: str) -> Iterator[None]:
        lines = [f"manhole_ssh_port={server.ssh_port}", "manhole_authorized_keys=keys", *settings]
        with (server.directory / "raft.conf").open("a") as file:
            file.write("\n" + "\n".join(lines))
        with server.running():
            server.wait_for_leader()
            yield

    def ssh(
        self, server: Server, *words: str, key: str = "alice", text: str = "", options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        settings = (
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=accept-new",
            "UserKnownHostsFile=known",
        )
        command = ["ssh", "-F", "none", "-p", str(server.ssh_port), "-i", key]
        command += [word for setting in settings for word in ("-o", setting)]
        result = subprocess.run(
            [*command, *options, "operator@127.0.0.1", *words],
            cwd=server.directory,
            env=environment(),
            input=text.encode(),
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        # Not as text: that would make one newline of another.
        shown, said = result.stdout.decode(), result.stderr.decode()
        return subprocess.CompletedProcess(result.args, result.returncode, shown, said)

    def test_verbs_by_ssh_with_exit_status_and_a_cluster_of_two(self, server: Server, tmp_path: pathlib.Path) -> None:
        second = Server(tmp_path / "second", False)
        with self.running(server), second.running():
            members = self.ssh(server, "members")
            assert members.returncode == 0, members
            assert f"{server.server_id}  leader" in members.stdout
            added = self.ssh(server, "add_server", second.server_id)
            assert (added.returncode, added.stderr) == (0, ""), added
            assert re.search(rf"{second.server_id} +voter", added.stdout)
            refused = self.ssh(server, "remove_server", "no/server")
            assert refused.returncode == 1 and "Nothing was done." in refused.stdout
            script = self.ssh(server, options=("-T",), text="why\nlog 1 2\n")
            assert script.returncode == 0 and "Entries 1 to" in script.stdout, script
            key = server.directory / "raft-data" / "manhole.key"
            assert stat.S_IMODE(key.stat().st_mode) == 0o600
        said = server.output
        assert "manhole: alice has logged in by ssh from 127.0.0.1:" in said
        assert f"manhole: add_server('{second.server_id}') of alice has ended: ok" in said
        assert "Traceback" not in said and "Unhandled" not in said
        with server.running():
            again = self.ssh(server, "status", options=("-o", "StrictHostKeyChecking=yes"))
            assert again.returncode == 0, f"the host key is the same after a restart: {again}"

    def test_a_terminal_by_ssh(self, server: Server) -> None:
        with self.running(server):
            result = self.ssh(server, options=("-tt",), text="members\rquit\r")
            assert result.returncode == 0, result
            shown = seen(result.stdout.encode())
            assert "txraft> members\n" in shown and f"{server.server_id}  leader" in shown
            without_quit = self.ssh(server, options=("-tt",), text="members\r")
            assert without_quit.returncode == 0 and f"{server.server_id}  leader" in without_quit.stdout, without_quit
            one = self.ssh(server, "why", options=("-tt",))
            assert one.stdout.startswith("It waits for nothing.\r\n"), one

    def test_python_by_ssh_only_if_it_is_asked_for(self, server: Server) -> None:
        with self.running(server, "manhole_mode=python"):
            result = self.ssh(server, options=("-tt",), text="node.raft.role.name * 2\rmembers()\rquit()\r")
            shown = seen(result.stdout.encode())
            assert "'leaderleader'" in shown and f"{server.server_id}  leader" in shown, result
            assert self.ssh(server, "node.raft").returncode == 1, "a line without a terminal is a verb"

    def test_other_keys_passwords_and_other_services_are_refused(self, server: Server) -> None:
        with self.running(server):
            stranger = self.ssh(server, "members", key="mallory")
            assert (stranger.returncode, stranger.stdout) == (255, "")
            assert "Permission denied (publickey)" in stranger.stderr
            forwarded = self.ssh(server, options=("-N", "-W", f"127.0.0.1:{server.kv_port}"))
            assert forwarded.returncode != 0 and "unknown channel" in forwarded.stderr, forwarded
            assert self.ssh(server, "sftp", options=("-s",)).returncode != 0
        assert "manhole: a key of 127.0.0.1:" in server.output


def test_conchs_own_client_gets_an_answer_too(tmp_path: pathlib.Path) -> None:
    server = Server(tmp_path / "first", True)
    identity = make_host_key(str(server.directory / "identity"))
    for name in ("keys", "identity.pub"):
        (server.directory / name).write_bytes(identity.public().toString("openssh", comment=b"carol"))
    with (server.directory / "raft.conf").open("a") as file:
        file.write(f"\nmanhole_ssh_port={server.ssh_port}\nmanhole_authorized_keys=keys")
    run_conch = "import sys; from twisted.conch.scripts.conch import run; run()"
    command = [
        sys.executable,
        "-c",
        run_conch,
        "--noagent",
        "-l",
        "operator",
        "-p",
        str(server.ssh_port),
        "-i",
        "identity",
    ]
    with server.running():
        server.wait_for_leader()
        host_key = read_host_key(str(server.directory / "raft-data" / "manhole.key"))
        assert host_key is not None
        (server.directory / "known").write_bytes(b"127.0.0.1 " + host_key.public().toString("openssh"))
        command += ["--known-hosts", "known", "127.0.0.1", "members"]
        with (
            subprocess.Popen(
                command,
                cwd=server.directory,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as client,
            contextlib.ExitStack() as stack,
        ):
            limit = threading.Timer(DEADLINE_S, client.kill)
            limit.start()
            stack.callback(limit.cancel)
            assert client.stdin is not None and client.stdout is not None
            shown = [client.stdout.readline() for _ in range(2)]
            # It shows nothing if its standard input ends too soon, and stays if it does not end.
            client.stdin.close()
            assert client.wait(DEADLINE_S) == 0
    assert shown[1].startswith(f"{server.server_id}  leader"), shown
    assert "manhole: carol has logged in by ssh" in server.output


@pytest.mark.parametrize("key", ["manhole_port", "manhole_ssh_port"])
def test_a_port_in_use_is_one_line_and_nothing_is_created(tmp_path: pathlib.Path, key: str) -> None:
    server = Server(tmp_path / "first", True)
    write_password(str(server.directory / "passwords"), USER, PASSWORD.encode())
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice"
    (server.directory / "keys").write_text(public)
    settings = ["manhole_password_file=passwords", "manhole_authorized_keys=keys", f"{key}={server.telnet_port}"]
    words = [word for setting in settings for word in ("--set", setting)]
    with socket.create_server(("127.0.0.1", server.telnet_port)):
        result = run([*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf", *words], server.directory)
    said = [line for line in result.stdout.splitlines() if "cannot start" in line]
    assert (result.returncode, len(said)) == (1, 1), result
    assert f"cannot start: --set {key}: Couldn't listen on 127.0.0.1:{server.telnet_port}" in said[0]
    assert not (server.directory / "raft-data").exists()
