"""Loads on one server, from this process: closed loops of RESP requests over one or many connections."""

from __future__ import annotations

import random
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

import attrs
import hiredis

VALUE = b"v" * 100


@attrs.frozen
class Result:
    """Latencies in seconds, sorted; `seconds` is the whole load's time."""

    operations: int
    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        return self.operations / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return 1000 * self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * percent / 100))]


def set_request(number: int) -> bytes:
    key = b"key:%012d" % number
    return b"*3\r\n$3\r\nSET\r\n$16\r\n%b\r\n$100\r\n%b\r\n" % (key, VALUE)


def get_request(number: int) -> bytes:
    return b"*2\r\n$3\r\nGET\r\n$16\r\nkey:%012d\r\n" % number


class _Connection:
    """One connection with a number of requests in flight."""

    def __init__(self, port: int, in_flight: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.in_flight = in_flight
        self._reader = hiredis.Reader()
        self._sent: deque[float] = deque()

    def send(self, requests: list[bytes]) -> None:
        if requests:
            self._sent.extend([time.perf_counter()] * len(requests))
            self.socket.sendall(b"".join(requests))

    def receive(self) -> list[float]:
        """The latencies of the answers that are there."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._reader.feed(data)
        now, latencies = time.perf_counter(), []
        while (answer := self._reader.gets()) is not False:
            if isinstance(answer, Exception):
                raise answer
            latencies.append(now - self._sent.popleft())
        return latencies


def closed_loop(
    port: int, request: Callable[[int], bytes], operations: int, connections: int, in_flight: int, keys: int = 10_000
) -> Result:
    """`operations` requests on random keys; as soon as some are answered, as many follow."""
    rng = random.Random(1)
    requests = [request(number) for number in range(keys)]
    poll = select.epoll()
    by_fd = {}
    for _ in range(connections):
        connection = _Connection(port, in_flight)
        by_fd[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
    latencies: list[float] = []
    left = operations
    began = time.perf_counter()
    for connection in by_fd.values():
        count = min(left, in_flight)
        left -= count
        connection.send(rng.choices(requests, k=count))
    while len(latencies) < operations:
        for fd, _ in poll.poll():
            answered = by_fd[fd].receive()
            latencies += answered
            count = min(left, len(answered))
            left -= count
            by_fd[fd].send(rng.choices(requests, k=count) if count else [])
    seconds = time.perf_counter() - began
    for connection in by_fd.values():
        connection.socket.close()
    return Result(operations, seconds, sorted(latencies))
