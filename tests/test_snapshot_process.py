"""A real server that takes snapshots by forking while it is written to, and is killed in the midst of it."""

from __future__ import annotations

import contextlib
import pathlib
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from processes import DEADLINE_S, TWISTD, ask, free_ports, run, started, terminate, wait_until

pytestmark = pytest.mark.process

KEYS = 2000
BATCH = 50


class Writer:
    """
    Writes KEYS keys again and again, in batches, through whatever happens to the server.

    `possible` is what each key may hold: what was acknowledged last, and what was sent since.
    """

    def __init__(self, port: int) -> None:
        self.possible: dict[int, list[int]] = {}
        self.count = 0
        self._port = port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5) as connection:
                self._write(connection)
            time.sleep(0.02)

    def _write(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            while not self._is_over.is_set():
                numbers = range(self.count, self.count + BATCH)
                self.count += BATCH
                for number in numbers:
                    self.possible.setdefault(number % KEYS, [-1]).append(number)
                connection.sendall(b"".join(b"set key%d %060d\r\n" % (number % KEYS, number) for number in numbers))
                for number in numbers:
                    if not file.readline().startswith(b"OK"):
                        return
                    self.possible[number % KEYS] = [number]

    def has_gone_on(self, count: int) -> None:
        goal = self.count + count
        wait_until(lambda: self.count >= goal, f"{count} more writes")

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join(DEADLINE_S)


class Server:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.port, rpc_port = free_ports(2)
        settings = [
            f"servers=127.0.0.1:{rpc_port}",
            f"rpc_port={rpc_port}",
            f"kv_port={self.port}",
            "http_server_port=off",
            "log_segment_bytes=64 KiB",
            "snapshot_log_bytes=256 KiB",
            "snapshot_ratio=1",
            "log_keep_entries=100",
        ]
        (directory / "raft.conf").write_text("\n".join(settings))

    @contextlib.contextmanager
    def running(self) -> Iterator[object]:
        command = [*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf"]
        with started(command, self.directory) as process:
            wait_until(lambda: ask(self.port, "get nothing").startswith("OK"), "a leader")
            yield process

    def size(self) -> int:
        sizes = []
        for path in (self.directory / "raft-data").rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return sum(sizes)

    def verify(self) -> None:
        done = run([sys.executable, "-m", "txraft.admin.raftctl", "verify", "raft-data"], self.directory)
        assert done.returncode == 0, done.stdout + done.stderr

    def output(self) -> str:
        return (self.directory / "output").read_text()


def test_a_server_that_is_killed_again_and_again_keeps_what_it_acknowledged_and_its_disk_use_is_bounded(tmp_path):
    """S07, S14, D02, with a forked child that may outlive its parent by a moment."""
    server = Server(tmp_path)
    rng = random.Random(1)
    largest = 0
    writer = Writer(server.port)
    try:
        for _ in range(5):
            with server.running() as process:
                writer.has_gone_on(8_000)
                largest = max(largest, server.size())
                time.sleep(rng.random() / 4)
                process.kill()
                process.wait()
            server.verify()
        with server.running() as process:
            writer.has_gone_on(8_000)
            writer.stop()
            for key, numbers in sorted(writer.possible.items()):
                assert ask(server.port, f"get key{key}") in [f"OK {number:060d}" for number in numbers], key
            assert terminate(process) in (0, -15)
    finally:
        writer.stop()
    server.verify()
    output = server.output()
    assert len(re.findall(r"snapshot at .* fork", output)) >= 5, output[-3000:]
    assert "by fork failed" not in output
    assert "no snapshot was taken" not in output
    # Two snapshots of 160 KiB, and a log for each of at most twice 256 KiB, by segments of 64 KiB.
    assert largest < 3 << 20, largest
    assert (
        sorted(path.name for path in (tmp_path / "raft-data" / "snapshots").iterdir() if path.suffix != ".snapshot")
        == []
    )
