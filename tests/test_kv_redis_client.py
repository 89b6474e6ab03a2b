"""The kv server on a real port, used by redis-py as anybody would use Redis."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import redis
from kv_support import LocalNode
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from txraft.machines.kv_plugin import KeyValuePlugin


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def check_commands(client: redis.Redis) -> None:
    value = bytes(range(256)) * 20
    assert client.ping() is True
    assert client.set(b"\x00\r\n", value) is True
    assert client.get(b"\x00\r\n") == value
    assert client.get("none") is None
    assert client.set("a", 1, nx=True) is True
    assert client.set("a", 2, nx=True) is None
    assert client.set("a", 5, get=True) == b"1"
    assert [client.incr("a"), client.decrby("a", 3)] == [6, 3]
    assert client.mset({"b": 1, "c": 2}) is True
    assert client.mget("a", "none", "c") == [b"3", None, b"2"]
    assert client.exists("a", "b", "none") == 2
    assert client.append("b", "23") == client.strlen("b") == 3
    assert client.type("a") == b"string"
    assert client.dbsize() == 4
    assert sorted(client.keys("[abc]")) == [b"a", b"b", b"c"]
    assert sorted(client.scan_iter("?", count=1)) == [b"a", b"b", b"c"]
    assert client.delete("a", "b", "none") == 2
    assert client.info()["role"] == "master"
    assert client.client_setname("me") and client.client_getname() in ("me", b"me")
    assert client.flushdb() is True
    assert client.dbsize() == 0


def check_errors(client: redis.Redis) -> None:
    client.set("text", "x")
    for refused in (lambda: client.incr("text"), lambda: client.lpush("list", 1), lambda: client.set("a", 1, ex=5)):
        with pytest.raises(redis.ResponseError):
            refused()


def check_pipeline(client: redis.Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(2000):
        pipeline.set(f"key{number}", number).get(f"key{number}").incr("counter")
    expected = [reply for number in range(2000) for reply in (True, b"%d" % number, number + 1)]
    assert pipeline.execute() == expected


class BatchingNode(LocalNode):
    """Answers once per turn of the reactor, as a node does."""

    def _ask(self, *arguments: Any) -> Deferred[Any]:
        reactor.callLater(0, self.answer)  # type: ignore[attr-defined]
        return super()._ask(*arguments)


@pytest.mark.process
class RedisClientTests(TestCase):
    def setUp(self) -> None:
        self.options = {"kv_port": str(free_port())}
        plugin = KeyValuePlugin()
        machine = plugin.build(self.options)
        self.node = BatchingNode(machine)  # type: ignore[arg-type]
        self.service: Any = plugin.service(self.node, machine, self.options)
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(lambda: self.service.running and self.service.stopService())

    def use(self, check: Callable[[redis.Redis], None], protocol: int) -> Deferred[None]:
        def run() -> None:
            port = int(self.options["kv_port"])
            with redis.Redis(port=port, protocol=protocol, socket_timeout=30) as client:
                check(client)

        return deferToThread(run)

    def test_commands_in_resp2(self) -> Deferred[None]:
        return self.use(check_commands, 2)

    def test_commands_in_resp3_which_redis_py_chooses_by_itself(self) -> Deferred[None]:
        return self.use(check_commands, 3)

    def test_errors_are_redis_errors(self) -> Deferred[None]:
        return self.use(check_errors, 2)

    def test_a_pipeline_of_reads_and_writes_keeps_its_order(self) -> Deferred[None]:
        return self.use(check_pipeline, 2)

    def test_the_address_for_clients_is_advertised(self) -> None:
        self.assertEqual(self.node.client_address, f"127.0.0.1:{self.options['kv_port']}")

    def test_a_port_in_use_stops_the_start(self) -> None:
        plugin = KeyValuePlugin()
        second: Any = plugin.service(self.node, plugin.build({}), self.options)
        self.assertRaises(CannotListenError, second.privilegedStartService)

    async def test_a_client_that_ends_its_side_gets_its_replies(self) -> None:
        """As `printf ... | nc -N` does."""

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", int(self.options["kv_port"])), timeout=30) as client:
                client.sendall(b"set a 1\nget a\nset a 2\nget a\n")
                client.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: client.recv(100), b""))

        self.assertEqual(await deferToThread(talk), b"OK null\r\nOK 1\r\nOK 1\r\nOK 2\r\n")

    async def test_stopping_closes_the_connections(self) -> None:
        def connect() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", int(self.options["kv_port"])), timeout=30)
            client.sendall(b"set a 1\n")
            assert client.recv(100) == b"OK null\r\n"
            return client

        client = await deferToThread(connect)
        await self.service.stopService()
        self.assertEqual(await deferToThread(client.recv, 100), b"")
        client.close()
