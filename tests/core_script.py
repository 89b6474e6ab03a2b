"""
Scripts for several cores: a question as a comment, commands, `----`, and what the servers are then.

Commands, separated by `;` or newlines (servers by number):

    cluster voters=1,2,3 [leader=N] [log=1:a,1:b]   new servers, all with that log; N is elected
    log N [term=T] 1:a 2:b   before anything else: server N's log, on disk, behind the first entry, and its term
    campaign N               its election timeout passes, others' do not
    propose N x y            append commands at a leader
    read N name              ask for a confirmed read index
    join N                   a server that belongs to no cluster yet
    change N +4 ~5 -3        ask the leader to make these a voter, a learner, no member
    hand-over N M            ask leader N to let M lead
    tick N [count] / tick all [count]
    deliver / hold           let messages through (they are by default) / keep them under way
    drop                     lose what is under way
    partition 1 | 2 3        cut both directions between the groups; `heal` undoes all cuts
    cut 1>2                  cut one direction
    disk N slow / disk N ok  do not finish writes / finish them
    crash N / restart N      forget what is not on disk
    snapshot N [sending]     a snapshot of what N has applied is on its disk; `sending`: what it sends stays under way
    arrive                   let the snapshots that are under way arrive
    lose                     let them fail
    show                     print the servers here, too
"""

from __future__ import annotations

import random
from collections.abc import Callable

from core_text import SETTINGS, change, make_log, membership, propose, show, tick

from txraft.core.change import ChangeRefused
from txraft.core.errors import NotLeading
from txraft.core.invariants import ClusterInvariants
from txraft.core.leader import Leader
from txraft.core.log import Log
from txraft.core.messages import HardState, Message
from txraft.core.raft import Raft
from txraft.core.snapshot import SnapshotMeta


class Script:
    """One cluster of cores. Every command is followed by delivery until nothing moves, unless messages are held."""

    def __init__(self) -> None:
        self.servers: dict[str, Raft] = {}
        self.output: list[str] = []
        self._down: dict[str, tuple[Log, HardState]] = {}
        self._snapshots: dict[str, SnapshotMeta] = {}
        self._sending: dict[tuple[str, str], SnapshotMeta] = {}
        self._is_sending_slow = False
        self._under_way: list[tuple[str, str, Message]] = []
        self._cut: set[tuple[str, str]] = set()
        self._slow: set[str] = set()
        self._writing: set[str] = set()
        self._held = False
        self._reads: list[str] = []
        self._invariants = ClusterInvariants()

    def run(self, text: str) -> str:
        """Carry out a script's commands; what it prints."""
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        for command in ";".join(lines).split(";"):
            words = command.split()
            if words:
                getattr(self, "do_" + words[0].replace("-", "_"))(*words[1:])
                self._settle()
        self.do_show()
        return "\n".join(self.output) + "\n"

    # -- commands

    def do_cluster(self, voters: str, *more: str) -> None:
        options = dict(word.split("=", 1) for word in (voters, *more))
        log = options.get("log", "").replace(",", " ")
        for server_id in membership(options["voters"]).members:
            self._start(server_id, f"1:{{{options['voters']}}} {log}")
        if "leader" in options:
            self.do_campaign(options["leader"])

    def _start(self, server_id: str, log: str, term: int = 0) -> None:
        full = make_log(log)
        state = HardState(max(term, full.last_term), None)
        self.servers[server_id] = Raft(server_id, SETTINGS, random.Random(server_id), state, full)

    def do_log(self, server_id: str, *entries: str) -> None:
        first = show(self.servers[server_id].log).split()[0]
        term = 0
        if entries and entries[0].startswith("term="):
            term, entries = int(entries[0].removeprefix("term=")), entries[1:]
        self._start(server_id, " ".join([first, *entries]), term)
        # It is what the script begins with, and nothing that has happened.
        self._invariants = ClusterInvariants()

    def do_campaign(self, server_id: str) -> None:
        server = self.servers[server_id]
        for other in self.servers.values():
            # Others have not heard from a leader for long enough to listen, and not so long that they stand as well.
            if other is not server and other.role.name == "follower":
                other.role.elapsed_ticks = SETTINGS.min_election_ticks
                other.role.timeout_ticks = SETTINGS.max_election_ticks
        server.become_pre_candidate()

    def do_propose(self, server_id: str, *commands: str) -> None:
        try:
            propose(self.servers[server_id], [command.encode() for command in commands])
        except NotLeading:
            self.output.append(f"s{server_id}: not the leader")

    def do_join(self, server_id: str) -> None:
        self._start(server_id, "")

    def do_change(self, server_id: str, *asked: str) -> None:
        self._ask(server_id, lambda leader: leader.reconfiguration.begin(change(" ".join(asked))))

    def do_hand_over(self, server_id: str, heir: str) -> None:
        self._ask(server_id, lambda leader: leader.reconfiguration.hand_over(heir))

    def _ask(self, server_id: str, ask: Callable[[Leader], None]) -> None:
        try:
            ask(self.servers[server_id].leader())
        except NotLeading:
            self.output.append(f"s{server_id}: not the leader")
        except ChangeRefused as error:
            self.output.append(f"s{server_id}: {error}")

    def do_read(self, server_id: str, name: str) -> None:
        self._reads.append(name)
        try:
            self.servers[server_id].request_read(len(self._reads) - 1)
        except NotLeading:
            self.output.append(f"s{server_id}: not the leader")

    def do_tick(self, which: str, count: str = "1") -> None:
        for server_id in list(self.servers) if which == "all" else [which]:
            for _ in range(int(count)):
                tick(self.servers[server_id])
                self._settle()

    def do_deliver(self) -> None:
        self._held = False

    def do_hold(self) -> None:
        self._held = True

    def do_drop(self) -> None:
        self._under_way.clear()

    def do_partition(self, *words: str) -> None:
        groups = [group.split() for group in " ".join(words).split("|")]
        for one in groups:
            for other in groups:
                if one is not other:
                    self._cut |= {(a, b) for a in one for b in other}

    def do_cut(self, *links: str) -> None:
        self._cut |= {(link.split(">")[0], link.split(">")[1]) for link in links}

    def do_heal(self) -> None:
        self._cut.clear()

    def do_disk(self, server_id: str, how: str) -> None:
        if how == "slow":
            self._slow.add(server_id)
        else:
            self._slow.discard(server_id)

    def do_crash(self, server_id: str) -> None:
        server = self.servers.pop(server_id)
        log = Log(server.log.base_index, server.log.base_term)
        for run in server.log.runs(server.log.first_index, server.log.durable_index + 1):
            log.extend(run)
        log.take_unwritten()
        log.made_durable(log.last_index, log.last_term)
        self._down[server_id] = (log, server.durable_state)
        self._sending = {link: meta for link, meta in self._sending.items() if server_id not in link}
        self._writing.discard(server_id)

    def do_restart(self, server_id: str) -> None:
        log, state = self._down.pop(server_id)
        snapshot = self._snapshots.get(server_id)
        self.servers[server_id] = Raft(server_id, SETTINGS, random.Random(server_id), state, log, snapshot)

    def do_snapshot(self, server_id: str, *sending: str) -> None:
        self._is_sending_slow |= bool(sending)
        server = self.servers[server_id]
        self._snapshots[server_id] = server.snapshots.meta()
        server.snapshots.compact(self._snapshots[server_id].last_index)

    def do_arrive(self) -> None:
        for (sender, receiver), snapshot in sorted(self._sending.items()):
            self._sending.pop((sender, receiver))
            if self.servers[receiver].snapshots.install(snapshot):
                self._snapshots[receiver] = snapshot
            self.servers[sender].leader().sending.sent(receiver)

    def do_lose(self) -> None:
        for sender, receiver in sorted(self._sending):
            self._sending.pop((sender, receiver))
            self.servers[sender].leader().sending.failed(receiver)

    def _send_snapshots(self, sender: str, receivers: tuple[str, ...]) -> None:
        under_way = {receiver for one, receiver in self._sending if one == sender}
        for receiver in under_way - {*receivers}:
            del self._sending[sender, receiver]
        for receiver in sorted({*receivers} - under_way):
            snapshot = self._sending[sender, receiver] = self._snapshots[sender]
            self.servers[sender].leader().sending.begun(receiver, snapshot.last_index)

    def do_show(self) -> None:
        for server_id, raft in sorted(self.servers.items()):
            self.output.append(
                f"s{server_id}@{raft.term} {raft.role.name:13} last={raft.log.last_index}@{raft.log.last_term} "
                f"commit={raft.commit_index} {show(raft.log)}"
            )

    # -- time stands still, messages move

    def _settle(self) -> None:
        for _ in range(1000):
            moved = self._flush_all()
            if not self._held:
                moved |= self._deliver_all()
            self._invariants.check(self.servers)
            if not moved:
                return
        raise AssertionError("the messages never end")

    def _flush_all(self) -> bool:
        moved = False
        for server_id, raft in sorted(self.servers.items()):
            if server_id in self._writing and server_id not in self._slow:
                self._writing.discard(server_id)
                raft.persisted()
                moved = True
            ready = raft.ready()
            if ready.persist is not None:
                self._writing.add(server_id)
                moved = True
            if ready.apply_index > raft.applied_index:
                raft.applied(ready.apply_index)
            self._under_way += [(server_id, to, message) for to, message in ready.messages]
            self.output += [f"s{server_id}: read {self._reads[read]} at {index}" for read, index in ready.reads]
            self.output += [f"s{server_id}: read {self._reads[read]} refused" for read in ready.dropped_reads]
            self._send_snapshots(server_id, ready.snapshots)
            moved |= bool(ready.messages)
        if self._sending and not self._is_sending_slow:
            self.do_arrive()
            moved = True
        return moved

    def _deliver_all(self) -> bool:
        messages, self._under_way = self._under_way, []
        for sender, receiver, message in messages:
            if (sender, receiver) not in self._cut and receiver in self.servers:
                self.servers[receiver].step(sender, message)
        return bool(messages)
