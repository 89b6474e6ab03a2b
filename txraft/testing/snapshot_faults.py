"""The faults of a simulated run that are about snapshots."""

from __future__ import annotations

import errno

from txraft.testing.faults import Faults
from txraft.testing.network import nothing

SNAPSHOTS = "/data/snapshots"


class SnapshotFaults(Faults):
    """All faults: also what is done to those who take, send, receive or install a snapshot."""

    def end(self) -> None:
        super().end()
        self._cluster.network.on_commit = nothing

    def do_lag(self, server_id: str, milliseconds: str) -> None:
        """A server hears nothing for a time, and the leader forgets meanwhile what it would need then."""
        self.counts["lag"] += 1
        self.do_blip(server_id, "both", milliseconds)
        self._after(str(int(milliseconds) * 2 // 3), self._take_at_leader)

    def _take_at_leader(self) -> None:
        leader = self._cluster.leader()
        if leader is not None:
            self.do_slow_snapshots(leader.settings.server_id, "0")
            self.do_snapshot(leader.settings.server_id)

    def do_overtake(self, how: str, timeouts: str) -> None:
        """
        The next server that a snapshot has come to takes so many election timeouts to install it.

        `wait`: its leader goes on, and takes the next ones. `cut`: its leader is cut off, and its successor gives it
        entries. `bounce`: all but that server start anew, so that who leads then does not know what is committed, and
        it hears that server only, for as long as there is another one. Pitfalls S10, S03, S02.
        """
        network = self._cluster.network

        def strike(sender_id: str, receiver_id: str) -> None:
            network.on_commit = nothing
            self.counts[f"overtake {how}"] += 1
            receiver = self._servers[receiver_id]
            milliseconds = str(int(float(timeouts) * self._cluster.node(receiver_id).settings.max_election_timeout))
            before, receiver.snapshot_seconds = receiver.snapshot_seconds, lambda: int(milliseconds) / 1000
            self._after(str(int(milliseconds) // 2), setattr, receiver, "snapshot_seconds", before)
            if how == "cut":
                self._after("0", self.do_blip, sender_id, "both", milliseconds)
            elif how == "bounce":
                for other_id in self._cluster.ids:
                    if other_id != receiver_id:
                        self._after("0", self.do_bounce, other_id, "all", "10")
                self._cluster.watch_roles(lambda other_id, role: self._leave_alone(other_id, role, receiver_id))

        network.on_commit = strike

    def _leave_alone(self, server_id: str, role: str, other_id: str) -> None:
        """If a server leads now, it hears and is heard by one other only, until it gives up."""
        if role != "leader" or server_id == other_id:
            return
        self._cluster.watch_roles(None)
        for_ms = str(2 * self._cluster.node(server_id).settings.max_election_timeout)
        for stranger_id in self._cluster.ids:
            if stranger_id not in (server_id, other_id):
                for link in ((server_id, stranger_id), (stranger_id, server_id)):
                    self._cluster.network.cut(*link)
                    self._after(for_ms, self._cluster.network.mend, *link)

    def do_slow_snapshots(self, server_id: str, milliseconds: str) -> None:
        """As if snapshots were large: to make and to write a piece of one takes long, and the log's writes do not."""
        self.counts["slow snapshots"] += 1
        server, longest, rng = self._servers[server_id], int(milliseconds) / 1000, self._rng
        server.snapshot_seconds, server.chunk_seconds = (lambda: rng.uniform(0, longest)), longest / 10

    def do_fail_snapshot(self, server_id: str, call: str, error: str, number: str) -> None:
        """One of the next calls for a snapshot fails, whether that is taken or received."""
        if self._servers[server_id].node is not None:
            self.counts[f"snapshot {error}"] += 1
            disk = self._servers[server_id].disk
            disk.fail(call, int(number), getattr(errno, error), under=SNAPSHOTS)

    def do_halt_snapshot(self, server_id: str, keep: str, number: str) -> None:
        """Lose power within the writing, the receiving, the installing or the removing of a snapshot."""
        self._halt(server_id, keep, int(number), SNAPSHOTS)

    def do_garble(self, server_id: str, place: str, number: str) -> None:
        """In that one of the next writes for snapshots, taken or received, the disk writes what it was not told."""
        if self._servers[server_id].node is not None:
            self.counts["garbled snapshot"] += 1
            self._servers[server_id].disk.garble(SNAPSHOTS, int(place), int(number))
