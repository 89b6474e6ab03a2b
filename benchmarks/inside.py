"""A kv machine whose front end proposes by itself, inside the leader's process. `state_machine=inside:plugin`."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet import task
from zope.interface import implementer

from txraft.errors import NotLeader
from txraft.interfaces import IStateMachinePlugin
from txraft.machines.kv_encoding import pack_set
from txraft.machines.kv_plugin import KeyValuePlugin

IN_FLIGHT = 256
OPERATIONS = 300_000


class Proposer(Service):
    """Once this server leads, keeps 256 proposals in flight, a Deferred each, and writes what it measured to a file."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.latencies: list[float] = []
        self.sent = 0
        self.commands = [pack_set(b"key:%012d" % number, b"v" * 100) for number in range(10_000)]

    def startService(self) -> None:
        super().startService()
        self.waiting = task.LoopingCall(self.look)
        self.waiting.start(0.05, now=False)

    def look(self) -> None:
        status = self.node.status()
        if status.role == "leader" and status.applied_index > 0:
            self.waiting.stop()
            self.began, self.cpu = time.perf_counter(), time.process_time()
            for _ in range(IN_FLIGHT):
                self.propose()

    def propose(self) -> None:
        began = time.perf_counter()
        self.sent += 1
        self.node.propose(self.commands[self.sent % 10_000]).addCallbacks(self.answered, self.refused, (began,))

    def answered(self, _: object, began: float) -> None:
        self.latencies.append(time.perf_counter() - began)
        if self.sent < OPERATIONS:
            self.propose()
        elif len(self.latencies) == OPERATIONS:
            facts = {
                "operations": OPERATIONS,
                "seconds": time.perf_counter() - self.began,
                "cpu_s": time.process_time() - self.cpu,
                "latencies": sorted(self.latencies),
            }
            with open("inside.json", "w") as file:
                json.dump(facts, file)

    def refused(self, failure: Any) -> None:
        failure.trap(NotLeader)


@implementer(IStateMachinePlugin)
class InsidePlugin(KeyValuePlugin):
    """The kv machine and front end, and the proposer beside it."""

    def service(self, node: Any, machine: Any, options: dict[str, str]) -> MultiService:
        both = MultiService()
        super().service(node, machine, options).setServiceParent(both)
        Proposer(node).setServiceParent(both)
        return both


plugin = InsidePlugin()
