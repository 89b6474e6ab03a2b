"""
Real servers with a large state: what they take on the disk is bounded, and a wiped one gets all of it, through kill -9.

TXRAFT_TEST_KEYS=1000000 makes it a million keys, which takes minutes.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator

import pytest
from processes import RAFTCTL, environment, free_ports, terminate, wait_until
from real_servers import Server, leader_of
from test_grow import TIMINGS, Cluster, server_id, succeeded

from txraft.machines.kv_encoding import GET_PREFIX

pytestmark = pytest.mark.process

KEYS = int(os.environ.get("TXRAFT_TEST_KEYS", "100000"))
KEYS_PER_COMMAND = 1000
COMMANDS_IN_FLIGHT = 8
PASSES = 7
"""So often each key is written at least: this is more log than the bound below allows to be kept."""

STATE_BYTES = KEYS * (8 + 8 + 8)
"""Key, value, and their lengths, in a snapshot. In the log they take the same."""
SEGMENT_BYTES = max(1 << 16, STATE_BYTES // 32)
HOLD_BYTES = 2 * STATE_BYTES
LARGEST_BYTES = 4 * STATE_BYTES + HOLD_BYTES + 4 * SEGMENT_BYTES
"""
Of a data directory: one snapshot is kept and another one may be on its way; the log may grow to the size of a snapshot
before the next is due (`snapshot_ratio=1`), and go on growing for as much while that is taken; and what is held for the
sake of a server that is sent one.
"""
PASS_S = 4.0
"""No pass takes less, so that a snapshot is taken before as much has been written as the bound allows for."""
SLOW_PASS_S = 20.0
"""While a server is sent a snapshot: it arrives before more has been written than is held for it."""
PATIENCE_S = 300.0

SETTINGS = (
    *TIMINGS,
    "snapshot_log_bytes=64 KiB",
    "snapshot_ratio=1",
    "snapshot_keep=1",
    "log_keep_entries=0",
    f"snapshot_hold_bytes={HOLD_BYTES}",
    f"log_segment_bytes={SEGMENT_BYTES}",
    # Some seconds for a whole one: there is time to see it come, and to kill.
    f"snapshot_bandwidth={STATE_BYTES // 6}",
)


def key(number: int) -> bytes:
    return b"k%07d" % number


def value(pass_number: int) -> bytes:
    return b"%08d" % pass_number


def command(pass_number: int, first: int) -> bytes:
    """KEYS_PER_COMMAND keys from `first` on get the value of this pass."""
    arguments = b"".join(
        b"$8\r\nk%07d\r\n$8\r\n%08d\r\n" % (number, pass_number) for number in range(first, first + KEYS_PER_COMMAND)
    )
    return b"*%d\r\n$4\r\nMSET\r\n" % (1 + 2 * KEYS_PER_COMMAND) + arguments


class Load:
    """
    Writes all keys, pass after pass, through whatever happens to the servers; one in `pass_s` at most.

    `done` commands were acknowledged.
    """

    def __init__(self, servers: list[Server]) -> None:
        self.done = 0
        self.pass_s = PASS_S
        self._servers = servers
        self._stop_at: int | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def passes(self) -> int:
        """So many are complete."""
        return self.done // (KEYS // KEYS_PER_COMMAND)

    def _work(self) -> None:
        while not self._is_over:
            for server in self._servers:
                with contextlib.suppress(OSError):
                    self._write_to(server.client_port)

    @property
    def _is_over(self) -> bool:
        return self._stop_at is not None and self.done >= self._stop_at

    def _write_to(self, port: int) -> None:
        """What was not acknowledged before is sent again: it may happen twice."""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection, connection.makefile("rb") as file:
            sent: deque[int] = deque()
            following = self.done
            while not self._is_over:
                while len(sent) < COMMANDS_IN_FLIGHT and following != self._stop_at:
                    first = following * KEYS_PER_COMMAND
                    connection.sendall(command(first // KEYS, first % KEYS))
                    sent.append(following)
                    following += 1
                if file.readline() != b"+OK\r\n":
                    return
                self.done = sent.popleft() + 1
                time.sleep(self.pass_s * KEYS_PER_COMMAND / KEYS)

    def finish(self) -> int:
        """End with a whole pass, which is that of the last value of every key."""
        per_pass = KEYS // KEYS_PER_COMMAND
        passes = max(PASSES, self.passes + 2)
        self._stop_at = passes * per_pass
        self._thread.join(PATIENCE_S)
        assert self.done == self._stop_at, (self.done, self._stop_at)
        return passes - 1


class Sizes:
    """Looks at the data directories all the time. `largest` is what one of them took at most."""

    def __init__(self, servers: list[Server]) -> None:
        self.largest = self.samples = 0
        self._servers = servers
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._is_over.wait(0.1):
            self.largest = max(self.largest, *map(size, self._servers))
            self.samples += 1

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()


def size(server: Server) -> int:
    found = 0
    for path in (server.directory / "raft-data").rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def partial_bytes(server: Server) -> int:
    """Of a snapshot that is being received there."""
    found = 0
    for path in (server.directory / "raft-data" / "snapshots").glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            found = max(found, path.stat().st_size)
    return found


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack)


@contextlib.contextmanager
def adding(cluster: Cluster, server: Server, at: list[Server]) -> Iterator[subprocess.Popen[str]]:
    """`raftctl add`, which goes on until it is done."""
    asked = [text for one in at for text in ("--server", cluster.admin(one))]
    process = subprocess.Popen(
        [*RAFTCTL, "add", server_id(server), *asked], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def bring_back(cluster: Cluster, wiped: Server, others: list[Server], load: Load) -> None:
    """Add it again, with its empty disk, while `load` goes on; kill it, and then the sender, in the midst of that."""
    wiped.start(cluster.stack)
    with adding(cluster, wiped, others):
        wait_until(lambda: partial_bytes(wiped), "a snapshot is on its way", PATIENCE_S)
        wiped.kill()
        wiped.start(cluster.stack)
        before = partial_bytes(wiped)
        wait_until(lambda: partial_bytes(wiped) > before, "it goes on", PATIENCE_S)
        sender = leader_of(others, PATIENCE_S)
        sender.kill()
        sender.start(cluster.stack)
        leader_of(others, PATIENCE_S)
    # Whatever came of the first request: it says what shall be, and can be repeated.
    with adding(cluster, wiped, others) as request:
        goal = load.done + 1
        assert request.wait(PATIENCE_S) == 0
        wait_until(lambda: load.done >= goal, "the writes have gone on", PATIENCE_S)


def test_a_large_state_keeps_the_disk_bounded_and_reaches_a_wiped_server_through_kill_9(cluster: Cluster) -> None:
    """S01, S06, S07, S09, S10, S12, S14."""
    ports = free_ports(3)
    members = ",".join(f"127.0.0.1:{port}" for port in ports)
    servers = [cluster.start(rpc_port=port, timings=(*SETTINGS, f"servers={members}")) for port in ports]
    leader = leader_of(servers, PATIENCE_S)
    load, sizes = Load(servers), Sizes(servers)
    wait_until(lambda: load.passes >= 2, "all keys are there", PATIENCE_S)

    wiped = next(server for server in servers if server is not leader)
    others = [server for server in servers if server is not wiped]
    load.pass_s = SLOW_PASS_S
    wiped.kill()
    shutil.rmtree(wiped.directory / "raft-data")
    succeeded(cluster.raftctl("remove", server_id(wiped), at=leader))
    bring_back(cluster, wiped, others, load)

    load.pass_s = PASS_S
    last_pass = load.finish()
    leader = leader_of(servers, PATIENCE_S)
    applied = cluster.status(leader)["applied_index"]
    wait_until(
        lambda: all(cluster.status(server)["applied_index"] >= applied for server in servers),
        "all have all",
        PATIENCE_S,
    )
    assert cluster.status(wiped)["snapshots"]["received"] >= 1
    sizes.stop()
    for server in servers:
        assert server.process is not None
        assert terminate(server.process) == -signal.SIGTERM
        server.process = None
    assert sizes.samples > 10
    assert sizes.largest < LARGEST_BYTES < PASSES * STATE_BYTES
    whole = [server.machine_from_disk() for server in servers]
    assert [len(machine) for machine in whole] == [KEYS] * 3
    assert all(whole[0].query(GET_PREFIX + key(number)) == value(last_pass) for number in range(KEYS))
    assert [machine.snapshot() == whole[0].snapshot() for machine in whole] == [True] * 3
