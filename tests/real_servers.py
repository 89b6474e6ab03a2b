"""Real servers in directories of their own, who writes to them, and what must be there afterwards."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import subprocess
import threading

import attrs
from processes import DEADLINE_S, TWISTD, ask, free_ports, started, terminate, wait_until
from twisted.internet.task import Clock

from txraft.core.log import EntryKind
from txraft.machines.kv import KeyValueMachine
from txraft.machines.kv_encoding import GET_PREFIX
from txraft.storage.files import FileSystem
from txraft.storage.snapshot_file import SnapshotFileReader
from txraft.storage.snapshots import SnapshotStore
from txraft.storage.store import LogStore
from txraft.testing.writer import FakeWriter


@attrs.define
class Server:
    """One server, running or not. Its directory outlives its processes."""

    directory: pathlib.Path
    client_port: int
    rpc_port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self, stack: contextlib.ExitStack) -> None:
        command = [*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf"]
        self.process = stack.enter_context(started(command, self.directory))

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    @property
    def is_leader(self) -> bool:
        return self.process is not None and ask(self.client_port, "get nothing").startswith("OK")

    def has_on_disk(self, text: bytes) -> bool:
        """While it runs: whether `text` stands in its log's files."""
        segments = sorted((self.directory / "raft-data").glob("raft.log.*"))
        return any(text in segment.read_bytes() for segment in segments)

    def machine_from_disk(self) -> KeyValueMachine:
        """The state that this stopped server's newest snapshot and the entries behind it make."""
        data_dir = self.directory / "raft-data"
        store = LogStore(
            data_dir=str(data_dir),
            log_file=str(data_dir / "raft.log"),
            core_map_file=str(data_dir / "raft.state"),
            server_id=f"127.0.0.1:{self.rpc_port}",
            cluster_id="",
            segment_bytes=1 << 20,
            fsync=True,
            files=FileSystem(),
            writer=FakeWriter(Clock()),
            new_incarnation=lambda: 0,
            monotonic=lambda: 0.0,
            snapshots=SnapshotStore(FileSystem(), str(data_dir / "snapshots"), 2, True, FakeWriter(Clock())),
        )
        machine, recovered = KeyValueMachine(), store.open()
        first_index = 1
        if recovered.snapshot is not None:
            first_index = recovered.snapshot.meta.last_index + 1
            [path] = (data_dir / "snapshots").glob(f"{first_index - 1:020d}-*.snapshot")
            reader = SnapshotFileReader(FileSystem(), str(path))
            machine.restore(list(iter(reader.next_chunk, None)))
            reader.close()
        for run in recovered.runs:
            if run.kind is EntryKind.COMMAND and run.last_index >= first_index:
                run = run.starting_at(max(run.first_index, first_index))
                machine.apply(run.first_index, run.commands, run.time_ms)
        store.close()
        return machine


class Writer:
    """Writes numbered keys for as long as it is not stopped; remembers what was acknowledged."""

    def __init__(self, servers: list[Server]) -> None:
        self.acknowledged: list[int] = []
        self._servers = servers
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        number = 0
        while not self._stopping.is_set():
            for server in self._servers:
                with contextlib.suppress(OSError):
                    number = self._write_to(server.client_port, number)

    def _write_to(self, port: int, number: int) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, connection.makefile("rb") as file:
            while not self._stopping.is_set():
                number += 1
                connection.sendall(b"set key%d value%d\r\n" % (number, number))
                answer = file.readline()
                if not answer.startswith(b"OK"):
                    break
                self.acknowledged.append(number)
        return number

    def has_gone_on(self, count: int = 30) -> None:
        """Wait until so many more writes have been acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal, f"{count} more writes")

    def stop(self) -> dict[bytes, bytes]:
        """What must be there."""
        self._stopping.set()
        self._thread.join(DEADLINE_S)
        return {b"key%d" % number: b"value%d" % number for number in self.acknowledged}


def three_servers(directory: pathlib.Path, *settings: str) -> list[Server]:
    """Each has these lines in its raft.conf. They do not run yet."""
    ports = free_ports(6)
    members = ",".join(f"127.0.0.1:{port}" for port in ports[3:])
    servers = []
    for client_port, rpc_port in zip(ports[:3], ports[3:], strict=True):
        own = directory / str(rpc_port)
        own.mkdir()
        lines = [f"servers={members}", f"rpc_port={rpc_port}", f"kv_port={client_port}", "http_server_port=off"]
        (own / "raft.conf").write_text("\n".join([*lines, *settings, ""]))
        servers.append(Server(own, client_port, rpc_port))
    return servers


def leader_of(servers: list[Server], deadline_s: float = DEADLINE_S) -> Server:
    """Whoever leads; waits for that."""
    found: list[Server] = []
    wait_until(lambda: found.extend(server for server in servers if server.is_leader) or found, "a leader", deadline_s)
    return found[0]


def assert_all_is_there(servers: list[Server], expected: dict[bytes, bytes]) -> None:
    """Through the cluster; and, once everybody has caught up and has stopped, on each server's disk."""
    leader = leader_of(servers)
    lost = [key for key, value in expected.items() if _get(leader, key) != value]
    assert not lost, f"{len(lost)} of {len(expected)} acknowledged writes are missing"
    assert ask(leader.client_port, "set last the-very-last-value").startswith("OK")
    for server in servers:
        wait_until(lambda: server.has_on_disk(b"the-very-last-value"), "all servers have everything")  # noqa: B023
    for server in servers:
        assert server.process is not None
        assert terminate(server.process) == -signal.SIGTERM
    for server in servers:
        machine = server.machine_from_disk()
        lost = [key for key, value in expected.items() if machine.query(GET_PREFIX + key) != value]
        assert not lost, f"{len(lost)} of {len(expected)} acknowledged writes are not on server {server.rpc_port}"


def _get(server: Server, key: bytes) -> bytes:
    return ask(server.client_port, f"get {key.decode()}").removeprefix("OK ").encode()
