"""
Measures a durable cluster of three processes on this machine: python benchmarks/run.py [row ...]

Each row prints ops/s, latencies, CPU of all servers per operation, and its ratio to a bare server or a bare disk that
is measured beside it. Quote the ratios: the absolute figures are this machine's, of this minute.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from bare import syncs_per_second
from load import Result, closed_loop, get_request, set_request
from servers import ROOT, Server, cluster, free_ports, leader_of


@contextlib.contextmanager
def bare_server() -> Iterator[int]:
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, str(ROOT / "benchmarks" / "bare.py"), str(port)])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                closed_loop(port, get_request, 1, 1, 1)
                break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def show(name: str, result: Result, cpu_s: float, beside: str) -> None:
    print(
        f"{name:34} {result.rate:9,.0f} ops/s  p50 {result.percentile_ms(50):6.2f} ms  "
        f"p99 {result.percentile_ms(99):6.2f} ms  {1e6 * cpu_s / result.operations:6.1f} µs CPU/op  {beside}",
        flush=True,
    )


def measure(name: str, request: Callable[[int], bytes], operations: int, connections: int, in_flight: int) -> None:
    with cluster() as servers:
        leader = leader_of(servers)
        closed_loop(leader.port, set_request, 20_000, 1, 256)
        before = sum(server.cpu_s for server in servers)
        result = closed_loop(leader.port, request, operations, connections, in_flight)
        cpu_s = sum(server.cpu_s for server in servers) - before
    with bare_server() as port:
        bare = closed_loop(port, request, operations, connections, in_flight)
    show(name, result, cpu_s, f"{result.rate / bare.rate:.2f} of a bare server")


def one_in_flight() -> None:
    with cluster() as servers:
        leader = leader_of(servers)
        closed_loop(leader.port, set_request, 200, 1, 1)
        before = sum(server.cpu_s for server in servers)
        result = closed_loop(leader.port, set_request, 3000, 1, 1)
        cpu_s = sum(server.cpu_s for server in servers) - before
    show("one SET in flight", result, cpu_s, f"{syncs_per_second() / result.rate:.1f} bare syncs long")


def inside() -> None:
    with cluster(settings="state_machine=inside:plugin") as servers:
        leader = leader_of(servers)
        paths = [server.directory / "inside.json" for server in servers]
        written: list[pathlib.Path] = []
        before = sum(server.cpu_s for server in servers)
        while not written:
            time.sleep(0.2)
            written = [path for path in paths if path.exists() and path.stat().st_size]
        time.sleep(0.5)
        cpu_s = sum(server.cpu_s for server in servers) - before
        facts = json.loads(written[0].read_text())
        assert leader.process.poll() is None
    result = Result(facts["operations"], facts["seconds"], facts["latencies"])
    show(
        "inside the leader, 256 in flight",
        result,
        cpu_s,
        f"leader alone {1e6 * facts['cpu_s'] / result.operations:.1f} µs",
    )


def redis_benchmark() -> None:
    """64 connections with one SET each in flight, by Redis's own tool if it is there."""
    if shutil.which("redis-benchmark") is None:
        measure("64 connections, own client", set_request, 60_000, 64, 1)
        return

    def rate(port: int) -> tuple[float, str]:
        command = [
            "redis-benchmark",
            "-p",
            str(port),
            "-t",
            "set",
            "-n",
            "100000",
            "-c",
            "64",
            "-d",
            "100",
            "-r",
            "10000",
        ]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (figure,) = re.findall(r"throughput summary: ([\d.]+)", output)
        latency = re.findall(r"latency summary.*\n.*\n\s*([\d. ]+)", output)
        return float(figure), "avg min p50 p95 p99 max ms: " + " ".join(latency[0].split())

    with cluster() as servers:
        leader = leader_of(servers)
        before = sum(server.cpu_s for server in servers)
        figure, latency = rate(leader.port)
        cpu_s = sum(server.cpu_s for server in servers) - before
    with bare_server() as port:
        bare, _ = rate(port)
    print(
        f"{'64 connections, redis-benchmark':34} {figure:9,.0f} ops/s  {latency}  {cpu_s * 10:6.1f} µs CPU/op  "
        f"{figure / bare:.2f} of a bare server",
        flush=True,
    )


def redis() -> None:
    """One Redis server that syncs each write, by the same tool: tells how fast this machine is."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(dir=".") as name:
        directory = str(pathlib.Path(name).absolute())
        options = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir", directory]
        server = subprocess.Popen(["redis-server", "--port", str(port), *options], stdout=subprocess.DEVNULL)
        try:
            time.sleep(1)
            for connections in (64, 1):
                result = closed_loop(port, set_request, 50_000 if connections > 1 else 3000, connections, 1)
                show(f"Redis, one server, {connections} connections", result, 0.0, "not replicated")
        finally:
            server.kill()
            server.wait()


def fail_over(kills: int = 9) -> None:
    """From the kill of the leader to the next accepted write, again and again."""
    seconds = []
    for _ in range(kills):
        with cluster() as servers:
            leader = leader_of(servers)
            time.sleep(0.5)
            others = [server for server in servers if server is not leader]
            began = time.perf_counter()
            leader.process.kill()
            while not _accepts(others):
                time.sleep(0.002)
            seconds.append(time.perf_counter() - began)
    print(
        f"{'kill to the next accepted write':34} median {statistics.median(seconds):.3f} s, "
        f"min {min(seconds):.3f}, max {max(seconds):.3f}, {kills} kills, timeouts 150 to 300 ms",
        flush=True,
    )


def _accepts(servers: list[Server]) -> bool:
    return any(server.ask(b"set after kill").startswith(b"OK") for server in servers)


def memory() -> None:
    with cluster() as servers:
        leader = leader_of(servers)
        empty = [server.rss_mib for server in servers]
        closed_loop(leader.port, set_request, 200_000, 1, 256)
        full = [server.rss_mib for server in servers]
    print(
        f"{'memory after 200,000 writes':34} {max(full):.0f} MiB the largest of three, {max(empty):.0f} MiB when empty",
        flush=True,
    )


ROWS: dict[str, Callable[[], None]] = {
    "inside": inside,
    "pipelined": lambda: measure("one connection, 256 SETs in flight", set_request, 200_000, 1, 256),
    "connections": redis_benchmark,
    "one": one_in_flight,
    "reads": lambda: measure("one connection, 256 GETs in flight", get_request, 200_000, 1, 256),
    "fail-over": fail_over,
    "memory": memory,
} | ({"redis": redis} if shutil.which("redis-server") else {})

if __name__ == "__main__":
    for row in sys.argv[1:] or ROWS:
        ROWS[row]()
