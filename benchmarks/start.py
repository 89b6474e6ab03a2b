"""
Measures how long a server with many keys takes to start: python benchmarks/start.py [--keys N] [--log-keys N]

One server of its own cluster gets the keys; it takes a snapshot, and some more are written, which are in its log only.
It is killed, and started: until it answers a read, which is when all of that is in its state again. Twice.
"""

from __future__ import annotations

import argparse
import os
import socket
import time

from servers import Server, cluster, launch, leader_of

VALUE = b"v" * 80
BATCH = 1000


def write(server: Server, start: int, stop: int) -> None:
    """Keys of 12 bytes with values of 80, a thousand in a command."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection, connection.makefile("rb") as answers:
        for first in range(start, stop, BATCH):
            numbers = range(first, min(first + BATCH, stop))
            pairs = b"".join(b"$12\r\nkey-%08d\r\n$80\r\n%b\r\n" % (number, VALUE) for number in numbers)
            connection.sendall(b"*%d\r\n$4\r\nMSET\r\n%b" % (1 + 2 * len(numbers), pairs))
            answer = answers.readline()
            if answer != b"+OK\r\n":
                raise RuntimeError(f"the server answers {answer!r}")


def snapshots(server: Server) -> list[str]:
    return [path.name for path in (server.directory / "raft-data" / "snapshots").glob("*.snapshot")]


def restart(server: Server) -> float:
    """Kill it; seconds from its start to its first answer."""
    server.process.kill()
    server.process.wait()
    began = time.monotonic()
    server.process = launch(server.directory)
    while not server.is_leader:
        time.sleep(0.01)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000, help="in the snapshot (default: 1000000)")
    parser.add_argument("--log-keys", type=int, default=100_000, help="behind it, in the log (default: 100000)")
    arguments = parser.parse_args()
    # Due when the keys are there, and not again.
    due = max(4096, arguments.keys * 96)
    with cluster(1, f"snapshot_log_bytes={due}\nsnapshot_ratio=1000") as servers:
        server = leader_of(servers)
        print(f"empty                     {restart(server):6.2f} s   load average {os.getloadavg()[0]:.1f}", flush=True)
        began = time.monotonic()
        write(server, 0, arguments.keys)
        while not snapshots(server):
            time.sleep(0.1)
        write(server, arguments.keys, arguments.keys + arguments.log_keys)
        print(f"written in                {time.monotonic() - began:6.2f} s   {server.rss_mib:.0f} MiB", flush=True)
        output = (server.directory / "output").read_text()
        print(*[line.partition("] ")[2] for line in output.splitlines() if "snapshot at " in line], sep="\n")
        for _ in range(2):
            seconds = restart(server)
            answer = server.ask(b"get key-%08d" % (arguments.keys + arguments.log_keys - 1))
            assert answer.rstrip().endswith(VALUE), answer
            what = f"{arguments.keys} + {arguments.log_keys}"
            print(
                f"{what:25} {seconds:6.2f} s   {server.rss_mib:.0f} MiB, {server.cpu_s:.2f} s of CPU, "
                f"load average {os.getloadavg()[0]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
