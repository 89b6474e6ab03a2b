"""What clients do in a simulated run, and what must be true of what they get."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.errors import FatalError, Refusal
from txraft.node import RaftNode

PROBES = 10
"""Requests that must be answered in the liveness ending."""


class Outcomes:
    """What became of requests, by name. `unexpected` are failures that no server may answer with."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.unexpected: list[Failure] = []

    def answered(self) -> None:
        self.counts["answered"] += 1

    def failed(self, failure: Failure, prefix: str = "") -> None:
        """Note a refusal under its name, which `prefix` comes before."""
        error = failure.value
        if not isinstance(error, Refusal | FatalError):
            self.unexpected.append(failure)
        self.counts[prefix + type(error).__name__] += 1


class Workload(Protocol):
    """
    The clients of one run, and the machines that they talk to. A request is some words, drawn before the run begins.

    `outcomes` counts answers and refusals by name.
    """

    outcomes: Outcomes

    def machine(self, server_id: str) -> Any:
        """A new state machine; called at every start of a server."""

    def draw(self, rng: random.Random) -> tuple[str, ...]:
        """The words of a request."""

    def probe(self, number: int) -> tuple[str, ...]:
        """The words of a request that may be repeated until it is answered, for each `number` below `PROBES`."""

    def request(self, node: RaftNode, *words: str) -> Deferred[bool]:
        """Ask a server; fires with whether it was answered: what is not was refused, or is unknown."""

    def check_agreement(self, machines: Mapping[str, Any]) -> None:
        """
        All servers have applied everything: look at their machines, by server id.

        :raises InvariantBroken: something is lost, came twice, or differs.
        """

    def check_history(self) -> bool:
        """
        Judge what the clients saw; False if it could be judged neither right nor wrong.

        :raises InvariantBroken: it is wrong.
        """
