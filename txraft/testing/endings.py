"""How a simulated run ends: what must come true when only some faults remain, or none."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from txraft.core.invariants import require
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster
from txraft.testing.schedule import NETWORKS
from txraft.testing.workload import PROBES, Workload

LEADER_WITHIN = 10
COMMIT_WITHIN = 20
"""In longest election timeouts."""

Ask = Callable[[RaftNode, tuple[str, ...], Callable[[bool], None]], None]


class Endings:
    """
    Each method lets one run end.

    @param election_s: the longest election timeout.
    @param ask: sends a client's request to a server, and tells whether it was answered.
    """

    def __init__(self, cluster: Cluster, workload: Workload, rng: random.Random, election_s: float, ask: Ask) -> None:
        self._cluster = cluster
        self._workload = workload
        self._rng = rng
        self._election_s = election_s
        self._ask = ask

    def safety(self) -> None:
        """Faults to the end."""

    def agreement(self) -> None:
        """All faults end, and soon every server has applied the same, with every acknowledged write in it."""
        cluster = self._cluster
        self._leave_connected(cluster.ids)
        cluster.elect(LEADER_WITHIN * self._election_s)
        limit_s = COMMIT_WITHIN * self._election_s
        require(cluster.run_until(self._has_everybody_everything, limit_s), "no agreement within", limit_s)
        self._workload.check_agreement({server_id: server.machine for server_id, server in cluster.servers.items()})

    def _has_everybody_everything(self) -> bool:
        rafts = [node.raft for node in self._cluster.running() if node.raft is not None]
        last_index = max(raft.log.last_index for raft in rafts)
        return all(raft.applied_index == last_index for raft in rafts)

    def liveness(self) -> None:
        """Some faults stay for ever, but a majority is connected: it has a leader soon, and answers every request."""
        cluster = self._cluster
        majority = sorted(self._rng.sample(cluster.ids, len(cluster.ids) // 2 + 1))
        self._leave_connected(majority)
        limit_s = LEADER_WITHIN * self._election_s
        require(cluster.run_until(lambda: self._leads(majority), limit_s), "no leader within", limit_s, majority)
        done: list[bool] = []
        for number in range(PROBES):
            self._request_until_done(majority, self._workload.probe(number), done)
        limit_s = COMMIT_WITHIN * self._election_s
        require(cluster.run_until(lambda: len(done) == PROBES, limit_s), "not committed within", limit_s, majority)

    def _leave_connected(self, majority: Sequence[str]) -> None:
        """All is well among these; the others, and the links to and from them, stay as bad as they are, or worse."""
        cluster = self._cluster
        bad = [(a, b) for a in cluster.ids for b in cluster.ids if a != b and not (a in majority and b in majority)]
        cut = [link for link in bad if cluster.network.is_cut(*link) or self._rng.random() < 0.5]
        cluster.network.heal()
        for link in cut:
            cluster.network.cut(*link)
        cluster.network.faults = NETWORKS["good"]
        for server_id in majority:
            server = cluster.servers[server_id]
            server.disk_seconds, server.apply_seconds, server.clock_rate = (lambda: 0.001), 0.0, 1.0
            if server.node is not None:
                cluster.crash(server_id, keep="all")
            cluster.start(server_id)

    def _leads(self, majority: Sequence[str]) -> bool:
        """True if one of them leads, or follows a leader outside, who must have a quorum then and has not lost it."""
        nodes = [self._cluster.node(server_id) for server_id in majority]
        leader = self._cluster.leader()
        return any(node.raft is not None and node.raft.role.name == "leader" for node in nodes) or (
            leader is not None and leader.raft is not None and leader.raft.commit_index >= leader.raft.log.last_index
        )

    def _request_until_done(self, majority: Sequence[str], words: tuple[str, ...], done: list[bool]) -> None:
        """A client that follows the leader, and asks a server of the majority if it finds none."""

        def again(was_answered: bool) -> None:
            if was_answered:
                done.append(True)
            else:
                self._cluster.clock.callLater(0.01, ask)

        def ask() -> None:
            leader = self._cluster.leader()
            is_awake = leader is not None and not self._cluster.is_paused(leader.settings.server_id)
            self._ask(leader if leader and is_awake else self._cluster.node(self._rng.choice(majority)), words, again)

        ask()
