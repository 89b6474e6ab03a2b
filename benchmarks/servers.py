"""Three servers in processes of their own, with what they cost in CPU and memory."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import attrs

ROOT = pathlib.Path(__file__).parents[1]
TWISTD = (sys.executable, "-c", "import sys; from twisted.scripts.twistd import run; sys.exit(run())")
DEADLINE_S = 60.0


@attrs.define
class Server:
    """One twistd process. `directory` holds its configuration, data and output."""

    port: int
    directory: pathlib.Path
    process: subprocess.Popen[bytes]

    def ask(self, line: bytes) -> bytes:
        """The answer to one line of the kv machine; empty if there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(line + b"\r\n")
                return connection.makefile("rb").readline()
        except OSError:
            return b""

    @property
    def is_leader(self) -> bool:
        return self.process.poll() is None and self.ask(b"get txraft-benchmark").startswith(b"OK")

    @property
    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mib(self) -> float:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) / 1024


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def cluster(size: int = 3, settings: str = "") -> Iterator[list[Server]]:
    """Servers of a new cluster with the kv machine; durable unless `settings` (lines of raft.conf) say otherwise."""
    ports = free_ports(2 * size)
    client_ports, rpc_ports = ports[:size], ports[size:]
    members = ",".join(f"127.0.0.1:{port}" for port in rpc_ports)
    servers: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="txraft-benchmark-", dir=".") as name:
        try:
            for client_port, rpc_port in zip(client_ports, rpc_ports, strict=True):
                servers.append(_start(pathlib.Path(name).absolute(), client_port, rpc_port, members, settings))
            yield servers
        finally:
            for server in servers:
                server.process.send_signal(signal.SIGCONT)
                server.process.kill()
                server.process.wait()


def _start(parent: pathlib.Path, client_port: int, rpc_port: int, members: str, settings: str) -> Server:
    directory = parent / str(client_port)
    directory.mkdir()
    ports = [f"rpc_port={rpc_port}", f"kv_port={client_port}", "http_server_port=off"]
    lines = [f"servers={members}", "interface=127.0.0.1", *ports, settings]
    (directory / "raft.conf").write_text("\n".join(lines) + "\n")
    return Server(client_port, directory, launch(directory))


def launch(directory: pathlib.Path) -> subprocess.Popen[bytes]:
    """A server with the configuration, and perhaps the data, in `directory`."""
    with open(directory / "output", "ab") as output:
        return subprocess.Popen(
            [*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf"],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])},
            stdout=output,
            stderr=output,
        )


def leader_of(servers: list[Server]) -> Server:
    """Wait for a leader."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for server in servers:
            if server.is_leader:
                return server
        time.sleep(0.02)
    raise TimeoutError("no leader; see the servers' output")
