"""The faults of a simulated run, by the names that a schedule uses."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from txraft.core.invariants import require
from txraft.errors import StorageError, TxraftError
from txraft.testing.cluster import Cluster
from txraft.testing.damage import Damage
from txraft.testing.disk import Halted
from txraft.testing.schedule import DISKS, NETWORKS, ROLES, Action


class Faults:
    """
    Does to a cluster what a schedule says. What makes no sense at the moment, like a second crash, does nothing.

    `counts` are those that did something, by kind. `have_ended`: the run's ending has begun.
    """

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.have_ended = False
        self._cluster = cluster
        self._servers = cluster.servers
        self._rng = rng
        self._ends: list[IDelayedCall] = []
        self._damage = Damage(cluster, rng)

    def carry_out(self, action: Action) -> None:
        """
        Do what `action` says.

        :raises ValueError: it says nothing that there is.
        """
        do = getattr(self, "do_" + action.kind.replace("-", "_"), None)
        if do is None:
            raise ValueError(f"there is no such action: {action}")
        do(*(self._resolve(word) if word in ROLES else word for word in action.words))

    def _resolve(self, role: str) -> str:
        """A server's id in the place of `leader` or `follower`; any of them, if there is none at the moment."""
        leader = self._cluster.leader()
        leader_id = leader.settings.server_id if leader is not None else ""
        ids = [server_id for server_id in self._cluster.ids if (server_id == leader_id) == (role == "leader")]
        return self._rng.choice(ids or self._cluster.ids)

    def _after(self, milliseconds: str, do: Callable[..., None], *args: object) -> None:
        """Let a fault end by itself, unless the run's ending has begun by then."""
        self._ends.append(self._cluster.clock.callLater(int(milliseconds) / 1000, do, *args))

    def restart_failed(self) -> None:
        """As a supervisor does: a server whose disk failed has stopped itself, and is started again."""
        for server_id, server in sorted(self._servers.items()):
            if server.node is None or server.writer is None:
                continue
            is_stopped = server.node.failure is not None
            require(is_stopped or not server.writer.has_failed, "a server goes on after its disk failed", server_id)
            if is_stopped:
                require(isinstance(server.node.failure, StorageError), "a server stopped itself", server.node.failure)
                self._damage.end()
                if self._servers[server_id].node is server.node:
                    self.counts["start on a full disk"] += server.disk.is_full
                    self._cluster.crash(server_id, keep="all")
                    self._start(server_id)

    def _start(self, server_id: str) -> None:
        """Who needs room for that, and finds none, stays down until it is started again."""
        try:
            self._cluster.start(server_id)
        except StorageError:
            if not self._servers[server_id].disk.is_full:
                raise
            self.counts["no start on a full disk"] += 1

    def end(self) -> None:
        """
        Whoever runs on another disk than its own gets that back, and no call to a disk fails any more. What is as it is
        stays so: nothing ends by itself from now on.
        """
        self._damage.end()
        for server in self._servers.values():
            server.disk.work()
        self._cluster.watch_roles(None)
        self.have_ended = True
        for call in self._ends:
            if call.active():
                call.cancel()

    def end_damage(self) -> None:
        """Whoever runs on another disk than its own gets that back."""
        self._damage.end()

    def do_crash(self, server_id: str, keep: str) -> None:
        self._damage.end()
        if self._servers[server_id].node is not None:
            self.counts["crash"] += 1
            self._cluster.crash(server_id, keep)

    def do_crash_all(self, keep: str) -> None:
        for server_id in self._cluster.ids:
            self.do_crash(server_id, keep)

    def do_start(self, server_id: str) -> None:
        self._damage.end()
        if self._servers[server_id].node is None:
            self._start(server_id)

    def do_bounce(self, server_id: str, keep: str, milliseconds: str) -> None:
        """Crash, and start again soon."""
        self.do_crash(server_id, keep)
        self._after(milliseconds, self.do_start, server_id)

    def do_halt(self, server_id: str, keep: str, number: str) -> None:
        """Lose power within a write: in this one of the system calls that come next."""
        self._halt(server_id, keep, int(number))

    def _halt(self, server_id: str, keep: str, number: int, under: str = "") -> None:
        server = self._servers[server_id]
        node = server.node

        def lose_power() -> None:
            if server.node is node:
                self.counts["halt"] += 1
                self._cluster.crash(server_id, keep)
                self.do_start(server_id)

        if node is not None and server.own_disk is None:
            # Not now: the call that fails is still under way.
            server.disk.halt_at(number, lambda: self._after("0", lose_power), under)

    def do_stumble(self, server_id: str, keep: str, number: str) -> None:
        """Crash, and once more within the start: in that one of its system calls. Then start."""
        self.do_crash(server_id, keep)
        self.stumble(server_id, keep, int(number))

    def stumble(self, server_id: str, keep: str, number: int) -> None:
        """Start a server that does not run; the first attempt dies within that one of its system calls."""
        disk = self._servers[server_id].disk
        disk.halt_at(number)
        try:
            self._start(server_id)
        except Halted:
            self.counts["halt in a start"] += 1
            disk.crash(keep)
            self._start(server_id)
        else:
            disk.halt_at(None)

    def do_fill_disk(self, server_id: str, milliseconds: str) -> None:
        """For some time there is no room on a disk, however often its server is started anew."""
        self.counts["disk full"] += 1
        disk = self._servers[server_id].disk
        disk.fill()
        self._after(milliseconds, disk.fill, False)

    def do_isolate(self, server_id: str) -> None:
        self.counts["partition"] += 1
        self._cluster.network.partition([server_id], [other for other in self._cluster.ids if other != server_id])

    def do_blip(self, server_id: str, direction: str, milliseconds: str) -> None:
        """For a short time a server hears nobody (`in`), is not heard (`out`), or `both`."""
        self.counts["blip"] += 1
        network = self._cluster.network
        others = [other for other in self._cluster.ids if other != server_id]
        links = [(server_id, other) for other in others if direction != "in"]
        links += [(other, server_id) for other in others if direction != "out"]
        for link in [link for link in links if not network.is_cut(*link)]:
            network.cut(*link)
            self._after(milliseconds, network.mend, *link)

    def do_usurp(self, milliseconds: str) -> None:
        """Nobody hears the leader, whose disk is slow; it hears its successor, who replaces what it is just writing."""
        leader = self._cluster.leader()
        if leader is not None:
            self.counts["usurp"] += 1
            self.do_disk(leader.settings.server_id, "stalled")
            self.do_blip(leader.settings.server_id, "out", milliseconds)

    def do_oversleep(self, server_id: str, milliseconds: str) -> None:
        """A server sleeps, and for as long again after that it does not hear what has become of the others."""
        self.counts["oversleep"] += 1
        self.do_blip(server_id, "both", str(2 * int(milliseconds)))
        self.do_hiccup(server_id, milliseconds)

    def do_ambush(self, role: str, how: str, milliseconds: str, number: str) -> None:
        """
        The next so many servers that take a role, `new-leader` or another, are hit at that moment: what they have and
        know then, they alone do. `new-membership` is that of a leader who has just put another one in force.

        So leaders follow each other as in the paper's Figure 8, which a fault at any time hardly ever begins; and the
        only one that has the end of a change may be a server that is no member by it.
        """
        left = int(number)

        def strike(server_id: str, name: str) -> None:
            nonlocal left
            if "new-" + name == role and left:
                left -= 1
                self.counts[f"ambush {how}"] += 1
                self._strike(how, server_id, milliseconds)

        self._cluster.watch_roles(strike)

    def _strike(self, how: str, server_id: str, milliseconds: str) -> None:
        match how:
            case "cut":
                self.do_blip(server_id, "both", milliseconds)
            case "mute":
                self.do_blip(server_id, "out", milliseconds)
            case "sleep":
                self.do_hiccup(server_id, milliseconds)
            case "stall":
                self.do_disk(server_id, "stalled")
                self._after(milliseconds, self.do_disk, server_id, "fast")
            case "kill":
                self.do_bounce(server_id, "none", milliseconds)
            case "crown":
                self._after("0", self._crown, server_id)
            case _:
                raise ValueError(f"there is no such ambush: {how}")

    def _crown(self, server_id: str) -> None:
        """It hears its leader again, and first that it shall lead."""
        leader = self._cluster.leader()
        if leader is not None and not self._cluster.is_paused(leader.settings.server_id):
            self._cluster.network.mend(leader.settings.server_id, server_id)
            leader.transfer_leadership(server_id).addErrback(lambda _: None)

    def do_bridge(self, server_id: str) -> None:
        """Two halves that do not hear each other, and one server that hears both."""
        self.counts["bridge"] += 1
        others = [other for other in self._cluster.ids if other != server_id]
        self._cluster.network.partition(others[: len(others) // 2], others[len(others) // 2 :])

    def do_ring(self, server_id: str) -> None:
        """Everybody hears the next one only, in one direction."""
        self.counts["ring"] += 1
        ids = self._cluster.ids
        for at, sender in enumerate(ids):
            for receiver in ids:
                if receiver not in (sender, ids[(at + 1) % len(ids)]):
                    self._cluster.network.cut(sender, receiver)

    def do_cut(self, sender: str, receiver: str) -> None:
        if sender != receiver:
            self.counts["cut"] += 1
            self._cluster.network.cut(sender, receiver)

    def do_heal(self) -> None:
        self._cluster.network.heal()

    def do_reset(self) -> None:
        self.counts["reset"] += 1
        self._cluster.network.reset()

    def do_replay(self) -> None:
        self.counts["replay"] += 1
        self._cluster.network.replay(20)

    def do_network(self, name: str) -> None:
        self.counts[f"network {name}"] += 1
        self._cluster.network.faults = NETWORKS[name]

    def do_disk(self, server_id: str, name: str) -> None:
        self.counts[f"disk {name}"] += 1
        longest, rng = DISKS[name], self._rng
        self._servers[server_id].disk_seconds = lambda: rng.uniform(0, longest)

    def do_fail_disk(self, server_id: str, call: str, error: str) -> None:
        if self._servers[server_id].node is not None:
            self.counts[f"disk {error}"] += 1
            self._servers[server_id].disk.fail(call, error=getattr(errno, error))

    def do_snapshot(self, server_id: str) -> None:
        """Take one now; whether it succeeds, the disk decides."""
        server = self._servers[server_id]
        if server.node is not None and server.own_disk is None and server.clock is not None:
            node = server.node
            self.counts["snapshot"] += 1
            server.clock.when_awake(lambda: node.take_snapshot().addErrback(lambda failure: failure.trap(TxraftError)))

    def do_pause(self, server_id: str) -> None:
        if self._servers[server_id].node is not None:
            self.counts["pause"] += 1
            self._cluster.pause(server_id)

    def do_resume(self, server_id: str) -> None:
        if self._servers[server_id].node is not None:
            self._cluster.resume(server_id)

    def do_strand(self, how: str) -> None:
        """
        What others do while the leader cannot, and what it does when it can again, is where much goes wrong.

        `pause`: it sleeps. `stall`: its disk takes very long. `cut`: that, and nobody hears it; so others may replace
        what it writes before it is written.
        """
        leader = self._cluster.leader()
        if leader is None:
            return
        self.counts[f"strand {how}"] += 1
        server_id = leader.settings.server_id
        if how == "pause":
            self.do_pause(server_id)
            return
        self.do_disk(server_id, "stalled")
        if how == "cut":
            self.do_isolate(server_id)

    def do_hiccup(self, server_id: str, milliseconds: str) -> None:
        """A pause that ends soon."""
        self.do_pause(server_id)
        self._after(milliseconds, self.do_resume, server_id)

    def do_clock(self, server_id: str, rate: str) -> None:
        self.counts["clock"] += 1
        self._servers[server_id].clock_rate = float(rate)

    def do_slow_apply(self, server_id: str, milliseconds: str) -> None:
        self.counts["slow apply"] += 1
        self._servers[server_id].apply_seconds = int(milliseconds) / 1000

    def do_rot(self, server_id: str) -> None:
        self._do_damage(self._damage.rot, server_id)

    def do_lose_segment(self, server_id: str) -> None:
        self._do_damage(self._damage.lose_segment, server_id)

    def do_lose_write(self, server_id: str) -> None:
        self._do_damage(self._damage.lose_write, server_id)

    def do_wipe(self, server_id: str) -> None:
        self._do_damage(self._damage.wipe, server_id)

    def renew(self, server_id: str) -> bool:
        """Give a server that runs, and was removed, an empty disk; whether that was done."""
        self._damage.end()
        server = self._servers[server_id]
        if server.node is None or server.disk.is_full:
            return False
        done = self._damage.renew(server_id)
        self.counts["renewed"] += done is not None
        return done is not None

    def do_wrong_cluster(self, server_id: str) -> None:
        self._do_damage(self._damage.join_wrong_cluster, server_id)

    def do_clone(self, server_id: str, other_id: str) -> None:
        if server_id != other_id:
            self._do_damage(self._damage.clone, server_id, other_id)

    def _do_damage(self, damage: Callable[..., str | None], *server_ids: str) -> None:
        self._damage.end()
        done = damage(*server_ids)
        if done is not None:
            self.counts[done] += 1
