"""How a simulated run ends: what must come true when only some faults remain, or none."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from txraft.core.change import Change
from txraft.core.cluster_id import has_epoch
from txraft.core.invariants import require
from txraft.core.membership import Membership
from txraft.core.raft import Raft
from txraft.core.reconfiguration import FAREWELL
from txraft.interfaces import Snapshot
from txraft.node import RaftNode
from txraft.testing.arrivals import Arrivals
from txraft.testing.cluster import Cluster
from txraft.testing.schedule import DISKS, NETWORKS
from txraft.testing.server import Server
from txraft.testing.snapshot_truth import DIRECTORY
from txraft.testing.workload import PROBES, Workload

LEADER_WITHIN = 10
COMMIT_WITHIN = 20
STABLE_FOR = 5
PATIENCE = 2
"""In longest election timeouts."""

QUICK_WRITE_S = 0.01
SUPERVISE_S = 0.05

Ask = Callable[[RaftNode, tuple[str, ...], Callable[[bool], None]], None]


class Endings:
    """
    Each method lets one run end.

    @param election_s: the longest election timeout.
    @param ask: sends a client's request to a server, and tells whether it was answered.
    @param restart_failed: starts the servers again that have stopped themselves.
    """

    def __init__(
        self,
        cluster: Cluster,
        workload: Workload,
        rng: random.Random,
        election_s: float,
        ask: Ask,
        restart_failed: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._workload = workload
        self._rng = rng
        self._election_s = election_s
        self._ask = ask
        self._arrivals = Arrivals(cluster, rng, election_s)
        self._restart_failed = restart_failed
        self._is_supervised = False

    def _supervise(self) -> None:
        """What a disk did before may show only now."""
        if self._is_supervised:
            self._restart_failed()
            self._cluster.clock.callLater(SUPERVISE_S, self._supervise)

    def safety(self) -> None:
        """Faults to the end."""

    def agreement(self) -> None:
        """All faults end, and soon every server has applied the same, with every acknowledged write in it."""
        cluster = self._cluster
        self._leave_connected(cluster.ids)
        cluster.elect(LEADER_WITHIN * self._election_s)
        self._require_agreement()
        # Who had not heard a leader for long when the faults ended may stand once more.
        cluster.run(self._election_s)
        self._require_agreement()
        self._require_calm()
        self._require_farewells()
        if self._who_may_be_away() is None:
            self._bring_in_everybody()
        self._remove_one_that_is_away()
        self._bring_in_everybody()
        self._leave_one_behind()
        self._is_supervised = False
        members = self._members()
        self._workload.check_agreement({server_id: cluster.servers[server_id].machine for server_id in members})

    def _require_agreement(self) -> None:
        limit_s = COMMIT_WITHIN * self._election_s
        require(self._cluster.run_until(self._has_everybody_everything, limit_s), "no agreement within", limit_s)

    def _require_calm(self) -> None:
        """When all is well, whoever leads goes on leading."""
        before = self._terms()
        self._cluster.run(STABLE_FOR * self._election_s)
        require(self._terms() == before, "elections without a cause", before, self._terms())

    def _strangers(self) -> dict[str, RaftNode]:
        """The servers that are no members; all of them run."""
        members = self._member_ids()
        return {server_id: self._cluster.node(server_id) for server_id in self._cluster.ids if server_id not in members}

    def _require_farewells(self, away: str | None = None) -> None:
        """
        Whoever was removed learns of it, whenever it comes back, and says so. Thesis §4.2.3, pitfalls M09.

        But a founder that has never known which cluster it has founded can be told nothing; `away` has known it.
        """

        def ignorant() -> dict[str, str]:
            strangers = {
                server_id: node
                for server_id, node in self._strangers().items()
                if server_id == away or not node.identity.cluster_id or has_epoch(node.identity.cluster_id)
            }
            roles = {server_id: node.status().role for server_id, node in strangers.items()}
            return {server_id: role for server_id, role in roles.items() if role not in ("removed", "passive")}

        limit_s = COMMIT_WITHIN * self._election_s
        is_told = self._cluster.run_until(lambda: not ignorant(), limit_s)
        require(is_told, "a removed server is not told so within", limit_s, ignorant())

    def _bring_in_everybody(self) -> None:
        """When all is well, whoever is asked in comes, whatever it has been and heard before. Thesis §4.2.1."""
        strangers = tuple(self._strangers())
        if strangers:
            self._require_change(Change(voters=strangers), "who is asked in does not come within")
            self._require_agreement()

    def _who_may_be_away(self) -> str | None:
        """A follower without whom there is a quorum."""
        leader = self._cluster.leader()
        if leader is None or leader.raft is None:
            return None
        membership = leader.raft.membership
        voters = membership.voters if len(membership.voters) >= 3 else ()
        others = [other for other in (*voters, *membership.learners) if other != leader.settings.server_id]
        return self._rng.choice(others) if others else None

    def _remove_one_that_is_away(self) -> None:
        """When it comes back, nobody reminds it any more of its own accord. Pitfalls M09."""
        away = self._who_may_be_away()
        if away is None:
            return
        if self._rng.random() < 0.3:
            # Who has no vote does not ask for any, either.
            self._require_change(Change(learners=(away,)), "a voter does not become a learner within")
            self._require_agreement()
        self._cluster.crash(away, keep="all")
        self._hand_over_to_a_newcomer()
        self._require_change(Change(removed=(away,)), "a server that is away is not removed within")
        self._cluster.run((FAREWELL + 1) * self._election_s)
        self._cluster.start(away)
        self._require_farewells(away)

    def _hand_over_to_a_newcomer(self) -> None:
        """Who is away may never have heard of it."""
        newcomers = tuple(self._strangers())
        if newcomers:
            self._require_change(Change(voters=newcomers), "who is asked in does not come within")
            leader = self._cluster.leader()
            if leader is not None and self._rng.random() < 0.5:
                done: list[object] = []
                leader.transfer_leadership(self._rng.choice(newcomers)).addBoth(done.append)
                self._cluster.run_until(lambda: bool(done), COMMIT_WITHIN * self._election_s)
                self._cluster.elect(LEADER_WITHIN * self._election_s)

    def _require_change(self, change: Change, otherwise: str) -> None:
        leader = self._cluster.leader()
        if leader is None:
            return
        outcome: list[object] = []
        leader.change_membership(change).addBoth(outcome.append)
        limit_s = COMMIT_WITHIN * self._election_s
        self._cluster.run_until(lambda: bool(outcome), limit_s)
        is_made = bool(outcome) and isinstance(outcome[0], Membership)
        require(is_made, otherwise, limit_s, change, *outcome)

    def _leave_one_behind(self) -> None:
        """
        When all is well, who needs a snapshot gets one, also if the leader's is damaged, or cannot be read once where
        it has come. Pitfalls S09, S11.
        """
        cluster, leader, away = self._cluster, self._cluster.leader(), self._who_may_be_away()
        if leader is None or away is None:
            return
        cluster.network.partition([away], [other for other in cluster.ids if other != away])
        self._write_and_take(leader, [member for member in self._member_ids() if member != away])
        match self._rng.randrange(3):
            case 0:
                _spoil(cluster.servers[leader.settings.server_id], self._rng)
            case 1:
                cluster.servers[away].disk.fail("pread", self._rng.randint(1, 4), under=DIRECTORY)
        cluster.network.heal()
        self._require_agreement()

    def _write_and_take(self, leader: RaftNode, members: Sequence[str]) -> None:
        """More than a leader keeps of its log without need, and then a snapshot of it."""
        limit_s, count = COMMIT_WITHIN * self._election_s, 2 * PROBES
        done: list[bool] = []
        for number in range(count):
            self._request_until_done(members, self._workload.probe(number), done)
        is_done = self._cluster.run_until(lambda: len(done) == count, limit_s)
        require(is_done, "not committed within", limit_s, members, len(done))
        taken: list[object] = []
        leader.take_snapshot().addBoth(taken.append)
        is_taken = self._cluster.run_until(lambda: bool(taken), limit_s) and isinstance(taken[0], Snapshot)
        require(is_taken, "no snapshot is taken when all is well", leader.settings.server_id, *taken)

    def _members(self) -> dict[str, Raft]:
        """The servers of the membership that the newest leader has in force; all of them run."""
        rafts = {server_id: self._cluster.node(server_id).raft for server_id in self._member_ids()}
        return {server_id: raft for server_id, raft in rafts.items() if raft is not None}

    def _member_ids(self) -> tuple[str, ...]:
        leader = self._cluster.leader()
        return leader.raft.membership.members if leader is not None and leader.raft is not None else ()

    def _terms(self) -> set[int]:
        return {raft.term for raft in self._members().values()}

    def _has_everybody_everything(self) -> bool:
        rafts = list(self._members().values())
        leaders = [raft for raft in rafts if raft.role.name == "leader"]
        # One of an earlier term may lead yet, while the others elect another.
        if len(leaders) != 1 or len(self._terms()) != 1 or leaders[0].log.last_term != leaders[0].term:
            return False
        last_index = max(raft.log.last_index for raft in rafts)
        # No change waits for ever, and no joint membership stays: thesis §4.3.
        return not leaders[0].membership.is_changing and all(raft.applied_index == last_index for raft in rafts)

    def liveness(self) -> None:
        """Some faults stay for ever, but a majority is connected: it has a leader soon, and answers every request."""
        majority = self._draw_majority()
        self._leave_connected(majority)
        limit_s = LEADER_WITHIN * self._election_s
        self._require_of(majority, lambda: self._leads(majority), "no leader within", limit_s)
        done: list[bool] = []
        for number in range(PROBES):
            self._request_until_done(majority, self._workload.probe(number), done)
        limit_s = COMMIT_WITHIN * self._election_s
        self._require_of(majority, lambda: len(done) == PROBES, "not committed within", limit_s)
        self._arrivals.let_one_in(majority, self._make_well)
        self._is_supervised = False

    def _require_of(self, majority: list[str], holds: Callable[[], bool], otherwise: str, limit_s: float) -> None:
        """
        These must bring that about within so many seconds, as long as they are a quorum: a change of the membership
        that was asked for before may begin only now.
        """
        is_true = self._cluster.run_until(holds, limit_s)
        require(is_true or not self._cluster.is_quorum(majority), otherwise, limit_s, majority)

    def _draw_majority(self) -> list[str]:
        """As few as decide; often without the leader, if there is one."""
        ids, leader = self._rng.sample(self._cluster.ids, len(self._cluster.ids)), self._cluster.leader()
        if leader is not None and self._rng.random() < 0.5:
            ids.remove(leader.settings.server_id)
            ids.append(leader.settings.server_id)
        chosen: list[str] = []
        while not self._cluster.is_quorum(chosen):
            chosen.append(ids.pop(0))
        for server_id in list(chosen):
            others = [other for other in chosen if other != server_id]
            chosen = others if self._cluster.is_quorum(others) else chosen
        return sorted(chosen)

    def _worsen(self, server_id: str) -> None:
        if self._rng.random() < 0.3:
            self._cluster.servers[server_id].disk_seconds = lambda: DISKS["dead"]

    def _leave_connected(self, majority: Sequence[str]) -> None:
        """All is well among these; the others are as badly off as they were, or worse; the links to them may be."""
        cluster = self._cluster
        outside = [server_id for server_id in cluster.ids if server_id not in majority]
        leader = cluster.leader()
        is_led_from_outside = leader is not None and leader.settings.server_id in outside
        if outside and self._rng.random() < (0.6 if is_led_from_outside else 0.1):
            self._leave_one_bridge(majority, outside)
        else:
            self._leave_some_links(majority)
        cluster.network.faults = NETWORKS["good"]
        for server_id in outside:
            self._worsen(server_id)
        for server_id in majority:
            self._make_well(server_id)
        self._is_supervised = True
        self._supervise()

    def _make_well(self, server_id: str) -> None:
        server = self._cluster.servers[server_id]
        server.disk_seconds, server.snapshot_seconds = (lambda: 0.001), (lambda: 0.0)
        server.apply_seconds, server.chunk_seconds, server.clock_rate = 0.0, 0.0, 1.0
        server.disk.mend()
        # A process that goes on keeps its role, its votes and what it believes of the others.
        if self._rng.random() < 0.5 and self._is_well(server):
            self._cluster.resume(server_id)
            return
        if server.node is not None:
            self._cluster.crash(server_id, keep="all")
        self._cluster.start(server_id)

    def _leave_some_links(self, majority: Sequence[str]) -> None:
        cluster = self._cluster
        bad = [(a, b) for a in cluster.ids for b in cluster.ids if a != b and not (a in majority and b in majority)]
        share = self._rng.choice((0.0, 0.0, 0.5, 0.8))
        cut = [link for link in bad if share and (cluster.network.is_cut(*link) or self._rng.random() < share)]
        cluster.network.heal()
        for link in cut:
            cluster.network.cut(*link)

    def _leave_one_bridge(self, majority: Sequence[str], outside: Sequence[str]) -> None:
        """
        One of the majority hears one of the others, their leader if they have it. Those behind that one answer, but
        their disks are dead.

        So somebody may lead who has a quorum that answers, and none that takes anything. Pitfalls D14, E14.
        """
        cluster, leader = self._cluster, self._cluster.leader()
        leader_id = leader.settings.server_id if leader is not None else ""
        pier = leader_id if leader_id in outside else self._rng.choice(outside)
        bridge = {pier, self._rng.choice(majority)}
        cluster.network.heal()
        for one in majority:
            for other in outside:
                if {one, other} != bridge:
                    cluster.network.cut(one, other)
                    cluster.network.cut(other, one)
        for server_id in outside:
            if cluster.servers[server_id].node is None:
                cluster.start(server_id)
            cluster.resume(server_id)
            if server_id != pier:
                cluster.servers[server_id].disk_seconds = lambda: DISKS["dead"]

    def _is_well(self, server: Server) -> bool:
        """Whether a server is held back by nothing that only a new process ends."""
        if server.node is None or server.node.failure is not None or server.clock is None:
            return False
        raft = server.node.raft
        if raft is not None and raft.role.name == "leader" and raft.term <= self._cluster.last_loss_term:
            # It believes what a disk that lied has acknowledged to it, and would not send that again in this term.
            return False
        writers = filter(None, (server.writer, server.snapshot_writer))
        return server.clock.rate == 1.0 and all(writer.busy_seconds < QUICK_WRITE_S for writer in writers)

    def _leads(self, majority: Sequence[str]) -> bool:
        """True if one of them leads, or follows a leader outside, who must have a quorum then and has not lost it."""
        nodes = [self._cluster.node(server_id) for server_id in majority]
        leader = self._cluster.leader()
        return any(node.raft is not None and node.raft.role.name == "leader" for node in nodes) or (
            leader is not None and leader.raft is not None and leader.raft.commit_index >= leader.raft.log.last_index
        )

    def _request_until_done(self, majority: Sequence[str], words: tuple[str, ...], done: list[bool]) -> None:
        """
        A client that follows the leader, and asks a server of the majority if it finds none.

        It asks again when it is refused, and when it hears nothing: the process that it asked may be gone.
        """
        attempts, is_done = 0, False

        def ask() -> None:
            nonlocal attempts
            attempts += 1
            leader = self._cluster.leader()
            is_awake = leader is not None and not self._cluster.is_paused(leader.settings.server_id)
            node = leader if leader and is_awake else self._cluster.node(self._rng.choice(majority))
            self._ask(node, words, again)
            self._cluster.clock.callLater(PATIENCE * self._election_s, ask_if_nothing_came, attempts)

        def again(was_answered: bool) -> None:
            nonlocal is_done
            if was_answered and not is_done:
                is_done = True
                done.append(True)
            elif not is_done:
                self._cluster.clock.callLater(0.01, ask)

        def ask_if_nothing_came(attempt: int) -> None:
            if attempt == attempts and not is_done:
                ask()

        ask()


def _spoil(server: Server, rng: random.Random) -> None:
    """Flip a bit of a running server's newest snapshot."""
    path = max(path for path in server.disk.file_names() if path.endswith(".snapshot"))
    data = bytearray(server.disk.read_file(path))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    server.disk.write_file(path, bytes(data))
