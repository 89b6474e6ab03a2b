"""A new server that must come in while a majority is well, in a run that ends with faults that stay."""

from __future__ import annotations

import random
from collections.abc import Callable

from txraft.core import sending
from txraft.core.change import Change
from txraft.core.invariants import require
from txraft.core.raft import Raft
from txraft.core.reconfiguration import PATIENCE
from txraft.testing.cluster import Cluster

ADDED_WITHIN = sending.PATIENCE + 6 * PATIENCE
"""In longest election timeouts: another one may be waited for first, and its snapshot get nowhere for so long."""

ASK_AGAIN_S = 0.05


class Arrivals:
    """@param election_s: the longest election timeout."""

    def __init__(self, cluster: Cluster, rng: random.Random, election_s: float) -> None:
        self._cluster = cluster
        self._rng = rng
        self._election_s = election_s

    def let_one_in(self, majority: list[str], make_well: Callable[[str], None]) -> None:
        """
        A server that is well, and connected to these, comes in when it is asked, whatever becomes of the others, and
        after whatever change was under way. Thesis §4.2.1, pitfalls M13.

        :raises InvariantBroken: it does not.
        """
        cluster, leader = self._cluster, self._leader()
        members = leader.membership.members if leader is not None else ()
        strangers = [server_id for server_id in cluster.ids if server_id not in (*members, *majority)]
        if not strangers or leader is None or leader.server_id not in majority:
            return
        newcomer = self._rng.choice(strangers)
        for other in majority:
            cluster.network.mend(newcomer, other)
            cluster.network.mend(other, newcomer)
        make_well(newcomer)
        self._ask_in(newcomer)
        limit_s = ADDED_WITHIN * self._election_s
        has_come = cluster.run_until(lambda: self._is_in(newcomer), limit_s)
        # A leader from outside may not reach it.
        leader = self._leader()
        is_possible = leader is not None and leader.server_id in majority and cluster.is_quorum([*majority, newcomer])
        require(has_come or not is_possible, "who is asked in does not come within", limit_s, newcomer, majority)

    def _leader(self) -> Raft | None:
        leader = self._cluster.leader()
        return leader.raft if leader is not None else None

    def _is_in(self, newcomer: str) -> bool:
        """As the newest leader knows for sure, with no change under way."""
        leader = self._leader()
        if leader is None or leader.membership.is_changing or leader.commit_index < leader.memberships.current_index:
            return False
        return newcomer in leader.membership.voters

    def _ask_in(self, newcomer: str) -> None:
        """An operator asks whoever leads, and again after each refusal and failure."""

        def again(_: object = None) -> None:
            self._cluster.clock.callLater(ASK_AGAIN_S, self._ask_in, newcomer)

        leader = self._cluster.leader()
        if leader is None or self._cluster.is_paused(leader.settings.server_id):
            again()
        elif not self._is_in(newcomer):
            leader.change_membership(Change(voters=(newcomer,))).addErrback(again)
