"""The workload of a user's own state machine: its commands, its queries, its invariant."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import Invalid
from zope.interface.verify import verifyObject

from txraft.core.invariants import require
from txraft.errors import ConfigError
from txraft.interfaces import ISimulatedPlugin
from txraft.node import RaftNode
from txraft.plugins import find_state_machine
from txraft.testing.replays import check_in_other_processes, check_restore
from txraft.testing.replicas import Answered, Chronicle, MachineBroken, Replica
from txraft.testing.workload import Outcomes


def find_simulated(machine: str, options: Mapping[str, str]) -> Any:
    """
    The plugin that `machine` means, as `state_machine=` in raft.conf does. It can be simulated, with these options.

    :raises ConfigError: there is none, it can not, or it refuses the options.
    """
    plugin = find_state_machine(machine)
    try:
        verifyObject(ISimulatedPlugin, plugin)
    except Invalid as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"state_machine: {machine} cannot be simulated, see ISimulatedPlugin: {why}") from error
    plugin.build(dict(options))
    return plugin


class MachineWorkload:
    """
    Clients that send what a plugin draws. A request is `command` or `query`, and the number that it is drawn from.

    The log is the order in which commands were carried out, and a deterministic machine answers a query from the state
    that some part of the log leads to. So the history is linearizable if the replicas agree, and what was answered is
    newer than whatever had been answered before it was asked.
    """

    def __init__(self, machine: str, options: Mapping[str, str], seed: int) -> None:
        """
        :param machine: see `find_simulated`.
        :param seed: decides how batches are split, and where a replica is restored from a snapshot.
        """
        self.outcomes = Outcomes()
        # In every other run the commands go one by one, so that the one that is to blame is known.
        self.chronicle = Chronicle(splits=seed % 2 == 1)
        self._reference = machine
        self._options = dict(options)
        self._plugin = find_simulated(machine, options)
        self._seed = seed
        self._starts: Counter[str] = Counter()
        self._proposed: Counter[bytes] = Counter()
        self._answered_index = 0
        self._stale: list[tuple[str, str, int, int]] = []

    def machine(self, server_id: str) -> Replica:
        """See `Workload`, also for what follows."""
        restarts = self._starts[server_id]
        self._starts[server_id] += 1
        name = f"{server_id} after restart {restarts}" if restarts else server_id
        return Replica(self._build, self._plugin.check, self.chronicle, name, self._seed)

    def _build(self) -> Any:
        return self._plugin.build(dict(self._options))

    def draw(self, rng: random.Random) -> tuple[str, ...]:
        return rng.choice(("command", "command", "query")), str(rng.randrange(2**32))

    def probe(self, number: int) -> tuple[str, ...]:
        return ("command", "query")[number % 2], str(number)

    def request(self, node: RaftNode, *words: str) -> Deferred[bool]:
        kind, number = words
        before = self._answered_index
        outcome = self._send(node, kind, random.Random(int(number)))

        def answered(answer: Answered) -> bool:
            self.outcomes.answered()
            # Two queries may see one state, but a command makes a new one.
            if answer.index < before + (kind == "command"):
                self._stale.append((kind, number, answer.index, before))
            self._answered_index = max(self._answered_index, answer.index)
            return True

        def failed(failure: Failure) -> bool:
            self.outcomes.failed(failure)
            return False

        return outcome.addCallbacks(answered, failed)

    def _send(self, node: RaftNode, kind: str, rng: random.Random) -> Deferred[Any]:
        if kind == "query":
            return node.read(_draw(self._plugin.query, rng))
        command = _draw(self._plugin.command, rng)
        self._proposed[command] += 1
        return node.propose(command)

    def check_agreement(self, machines: Mapping[str, Any]) -> None:
        for server_id, machine in sorted(machines.items()):
            index = machine.applied_index
            require(index >= self._answered_index, "an acknowledged command is lost", server_id, index)

    def check_history(self) -> bool:
        require(not self._stale, "an answer is older than one before it (kind, number, index, before)", *self._stale)
        applied = Counter(entry.command for entry in self.chronicle.entries.values())
        twice = applied - self._proposed
        require(not twice, "a command was applied more often than it was proposed", *twice)
        check_restore(self._build, self.chronicle, random.Random(self._seed))
        check_in_other_processes(self._reference, self._options, self.chronicle)
        return True


def _draw(draw: Callable[[random.Random], object], rng: random.Random) -> bytes:
    try:
        drawn = draw(rng)
    except Exception as error:
        raise MachineBroken(f"the plugin's {draw.__name__}() raised: {type(error).__name__}: {error}") from error
    if type(drawn) is not bytes:
        raise MachineBroken(f"the plugin's {draw.__name__}() must give bytes: it gave {drawn!r}")
    return drawn
