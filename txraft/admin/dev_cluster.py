"""The processes of `raftctl dev`: starts them, passes their log on, finds the leader, and stops them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

POLL_S = 0.1
LEADER_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0

# A process group of its own: Ctrl-C is for raftctl, which then tells each server once. And where the system can do it
# (PR_SET_PDEATHSIG, 1, on Linux), a SIGTERM when raftctl is gone, so that no server outlives it.
_TWISTD = """
import ctypes, os, sys
os.setpgrp()
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
from twisted.scripts.twistd import run
sys.exit(run())
"""


@attrs.frozen
class Server:
    """One server of the cluster; all of its ports are on 127.0.0.1."""

    name: str
    config_path: str
    client_port: int
    rpc_port: int
    http_port: int


class _Question(LineOnlyReceiver):
    """Asks a kv server for a key. `answer` fires with its line, or with nothing if it has none to give."""

    delimiter = b"\n"
    transport: Any

    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred(lambda _: self.transport.abortConnection())
        self._line = b""

    def connectionMade(self) -> None:
        self.sendLine(b"get raftctl")

    def lineReceived(self, line: bytes) -> None:
        self._line = line
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if not self.answer.called:
            self.answer.callback(self._line)


def _is_leaders(answer: bytes) -> bool:
    return answer.startswith(b"OK")


def _names_leader(answer: bytes) -> bool:
    word, _, address = answer.partition(b" ")
    return word == b"NOT_LEADER" and bool(address.strip())


class ServerProcess(ProcessProtocol):
    """The twistd process of one server. `ended` fires when it is gone."""

    transport: Any

    def __init__(self, server: Server, say: Callable[[str], None], when_ended: Callable[[ServerProcess], None]) -> None:
        self.server = server
        self.how_it_ended = ""
        self.ended: Deferred[None] = Deferred()
        self._say = say
        self._when_ended = when_ended
        self._partial = {1: b"", 2: b""}

    @property
    def is_running(self) -> bool:
        return not self.how_it_ended

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._partial[childFD] = (self._partial[childFD] + data).split(b"\n")
        for line in lines:
            self._say(f"{self.server.name}| {line.decode('utf-8', 'replace')}")

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        if reason.check(ProcessDone):
            self.how_it_ended = "ended with status 0"
        elif value.signal is not None:
            self.how_it_ended = f"was ended by signal {value.signal}"
        else:
            self.how_it_ended = f"ended with status {value.exitCode}"
        for channel, rest in self._partial.items():
            if rest:
                self.childDataReceived(channel, b"\n")
        self._when_ended(self)
        self.ended.callback(None)


class DevCluster:
    """
    Runs `servers` from `start` to `stop`. `say` is given every line to show.

    `exit_status` is 0 only if a leader was found, and no server ended before it was told to.
    """

    def __init__(self, reactor: Any, servers: Sequence[Server], say: Callable[[str], None]) -> None:
        self.exit_status = 0
        self._reactor = reactor
        self._say = say
        self._is_stopping = False
        self._has_leader = False
        self._processes = [ServerProcess(server, say, self._server_ended) for server in servers]

    def start(self) -> Deferred[None]:
        """Start all servers, and show the table once one of them leads and the others say so."""
        for process in self._processes:
            arguments = ["-n", "--pidfile=", "raftcore", "--config", process.server.config_path]
            self._reactor.spawnProcess(process, sys.executable, [sys.executable, "-c", _TWISTD, *arguments], env=None)
        return Deferred.fromCoroutine(self._show_leader())

    async def _show_leader(self) -> None:
        deadline = self._reactor.seconds() + LEADER_TIMEOUT_S
        while not self._is_stopping and self._reactor.seconds() < deadline:
            answers = [await self._ask(process) for process in self._processes]
            # Ready for a client that asks any of them: a server that knows no leader cannot send it on.
            if any(map(_is_leaders, answers)) and all(_is_leaders(each) or _names_leader(each) for each in answers):
                self._has_leader = True
                self._show_table(answers)
                return
            await deferLater(self._reactor, POLL_S)
        if not self._is_stopping:
            self._give_up(f"no leader within {LEADER_TIMEOUT_S:.0f} s")

    async def _ask(self, process: ServerProcess) -> bytes:
        endpoint = HostnameEndpoint(self._reactor, "127.0.0.1", process.server.client_port)
        try:
            question = await connectProtocol(endpoint, _Question())
            answer: bytes = await question.answer.addTimeout(1.0, self._reactor)
        except (ConnectError, TimeoutError):
            return b""
        return answer

    def _show_table(self, answers: Sequence[bytes]) -> None:
        self._say(f"{'':4}{'role':10}{'clients':18}{'servers':18}{'pid':>8}")
        for process, answer in zip(self._processes, answers, strict=True):
            server = process.server
            role = "leader" if _is_leaders(answer) else "follower"
            clients, servers = f"127.0.0.1:{server.client_port}", f"127.0.0.1:{server.rpc_port}"
            self._say(f"{server.name:4}{role:10}{clients:18}{servers:18}{process.transport.pid:>8}")
        self._say("The cluster is ready. Ctrl-C stops it.")

    def _server_ended(self, process: ServerProcess) -> None:
        if self._is_stopping:
            return
        self.exit_status = 1
        self._say(f"raftctl: {process.server.name} {process.how_it_ended}")
        if not self._has_leader or not any(other.is_running for other in self._processes):
            self._give_up("the cluster cannot run")
        else:
            command = ["twistd", "-n", "--pidfile=", "raftcore", "--config", process.server.config_path]
            self._say(f"raftctl: to start it again: {shlex.join(command)}")

    def _give_up(self, why: str) -> None:
        self._say(f"raftctl: {why}")
        self.exit_status = 1
        if not self._is_stopping:
            self._is_stopping = True
            self._reactor.stop()

    def stop(self) -> Deferred[None]:
        """End every server, by force after a while. Fires when all are gone."""
        self._is_stopping = True
        if not self._has_leader:
            self.exit_status = 1
        self._signal("TERM")
        killer = self._reactor.callLater(STOP_TIMEOUT_S, self._kill)
        gone = DeferredList([process.ended for process in self._processes])

        def stopped(_: object) -> None:
            if killer.active():
                killer.cancel()

        return gone.addCallback(stopped)

    def _signal(self, name: str) -> None:
        for process in self._processes:
            if process.is_running:
                process.transport.signalProcess(name)

    def _kill(self) -> None:
        self.exit_status = 1
        self._say(f"raftctl: not stopped within {STOP_TIMEOUT_S:.0f} s, killed")
        self._signal("KILL")
