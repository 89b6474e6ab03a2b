"""
Disks that are not what they should be: rotten, forgetful, wiped, another server's, or another cluster's.

Raft survives the loss of what one server had made durable only while a quorum without it has all of that. So damage
that a server cannot notice is done within that budget only: then every loss is our bug. Votes are in no quorum's
keeping, so no write to the state file is ever lost unnoticed.
"""

from __future__ import annotations

import random

from txraft.core.invariants import require
from txraft.core.membership import Membership
from txraft.errors import StorageError
from txraft.interfaces import Identity
from txraft.testing.cluster import Cluster
from txraft.testing.content import SECTOR_BYTES
from txraft.testing.disk import FakeDisk
from txraft.testing.server import Server

STATE_FILE = "/data/raft.state"


class Damage:
    """Every method answers what it did, for the count of faults; nothing if that is not possible at the moment."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng

    # -- what is on the disk

    def rot(self, server_id: str) -> str | None:
        """Flip one bit on the disk of a server, and start it: it refuses, or has lost nothing."""
        disk = self._down(server_id).disk
        path = self._rng.choice([path for path in disk.file_names() if disk.read_file(path)] or [""])
        if not path:
            return None
        intact = disk.read_file(path)
        rotten = bytearray(intact)
        rotten[self._rng.randrange(max(1, len(intact.rstrip(b"\0"))))] ^= 1 << self._rng.randrange(8)
        disk.write_file(path, bytes(rotten))
        try:
            self._cluster.start(server_id)
        except StorageError:
            is_useless = path.endswith(".snapshot") and self._does_without(server_id, path)
            require(not is_useless, "a server refuses to start that needs nothing of what is damaged", server_id, path)
            # As its message says: what the disk had held before is restored.
            disk.write_file(path, intact)
            self._cluster.start(server_id)
            return "rot refused"
        return "rot harmless"

    def _does_without(self, server_id: str, path: str) -> bool:
        """Whether a server that does not run would start without a file, which goes, and has lost nothing then."""
        self._cluster.servers[server_id].disk.remove_file(path)
        try:
            return not self._cluster.has_lost(server_id)
        except StorageError:
            return False

    def lose_write(self, server_id: str) -> str | None:
        """Undo the last writes to the log of a server: one sector, or all from one on, as if they were never made."""
        cluster, disk = self._cluster, self._down(server_id).disk
        path = max((path for path in disk.file_names() if path.startswith("/data/raft.log.0")), default=None)
        if path is None:
            return None
        intact = disk.read_file(path)
        sectors = -(-len(intact.rstrip(b"\0")) // SECTOR_BYTES)
        # Mostly the last few: what is lost far back is noticed.
        start = max(1, sectors - self._rng.choice((1, 1, 2, 3, 8))) * SECTOR_BYTES
        stop = self._rng.choice((start + SECTOR_BYTES, len(intact)))
        disk.write_file(path, intact[:start] + bytes(max(0, stop - start)) + intact[stop:])
        offset, data = disk.last_write(path)
        # Behind what is gone there is a complete record. Nobody who reads it may take that for a torn tail.
        is_hole = stop <= offset and any(data) and intact[offset : offset + len(data)] == data
        done = self._judge_loss(server_id, is_noticed=is_hole)
        if done != "lost write":
            disk.write_file(path, intact)
        cluster.start(server_id)
        return done

    def lose_segment(self, server_id: str) -> str | None:
        """Remove one file of the log of a server: it refuses to start, whichever it is, or has lost nothing."""
        disk = self._down(server_id).disk
        paths = [path for path in disk.file_names() if path.startswith("/data/raft.log.0")]
        done = None
        if len(paths) > 1:
            path = self._rng.choice(paths)
            intact = disk.read_file(path)
            disk.remove_file(path)
            done = self._judge_loss(server_id, is_noticed=True) and "lost segment refused"
            disk.write_file(path, intact)
        self._cluster.start(server_id)
        return done

    def _judge_loss(self, server_id: str, is_noticed: bool) -> str | None:
        """@param is_noticed: whoever has lost what it had made durable must refuse to start."""
        cluster = self._cluster
        try:
            if not cluster.has_lost(server_id):
                return None
            require(not is_noticed, "a server does not notice what its disk has lost", server_id)
            if not cluster.is_held_by_others(server_id):
                return None
        except StorageError:
            return "lost write refused"
        cluster.note_loss(server_id)
        return "lost write"

    def _down(self, server_id: str) -> Server:
        """Whoever works on a disk makes room on it, too: what it refuses then it does not refuse for want of that."""
        server = self._cluster.servers[server_id]
        if server.node is not None:
            self._cluster.crash(server_id, keep="all")
        server.disk.fill(False)
        return server

    # -- a disk in another one's place

    def wipe(self, server_id: str) -> str | None:
        """
        Start a server with an empty disk. The others refuse it as long as they remember what it had.

        So each of them must run, and have met it. Call `end` before one of them stops.
        """
        cluster = self._cluster
        wiped = cluster.servers[server_id].node
        others = [server for other, server in cluster.servers.items() if other != server_id]
        # A passive server has a say in nothing; but no change may be under way that would make the others forget.
        members = [server for server in others if server.node is None or self._membership(server).members]
        is_settled = all(self._is_settled_member(server_id, server) for server in members)
        if wiped is None or self._begins_alone(server_id) or not (members and is_settled):
            return None
        if not all(self._remembers(server, wiped.identity) for server in members):
            return None
        self._down(server_id)
        cluster.put_in(server_id, FakeDisk(random.Random(self._rng.getrandbits(64))))
        return "wiped disk"

    def renew(self, server_id: str) -> str | None:
        """
        Give a server that was removed an empty disk for good, as operators are told to: now it belongs to no cluster.

        Nobody may need what it has promised, also not those who have not heard of its removal.
        """
        cluster, server = self._cluster, self._down(server_id)
        try:
            is_free = not cluster.is_member(server_id) and cluster.is_held_by_others(server_id)
        except StorageError:
            return None
        if is_free:
            cluster.wipe(server_id)
            server.is_renewed = True
        cluster.start(server_id)
        return "renewed" if is_free else None

    def _begins_alone(self, server_id: str) -> bool:
        """With an empty disk it would make a cluster of its own, and whoever asks it would be answered."""
        return self._cluster.founders == (server_id,) and self._cluster.is_founder(server_id)

    @staticmethod
    def _membership(server: Server) -> Membership:
        assert server.node is not None and server.node.raft is not None, server.server_id
        return server.node.raft.membership

    def _is_settled_member(self, server_id: str, server: Server) -> bool:
        """Whether a server takes another one for a member, and knows of no change that is under way."""
        if server.node is None:
            return False
        membership = self._membership(server)
        return server_id in membership.members and not membership.is_changing

    @staticmethod
    def _remembers(server: Server, identity: Identity) -> bool:
        return server.node is not None and server.transport is not None and server.transport.knows(identity)

    def join_wrong_cluster(self, server_id: str) -> str | None:
        """Start a server with a new disk and another cluster's name."""
        is_founder = self._cluster.is_founder(server_id)
        if self._is_anybody_out_of_place() or self._begins_alone(server_id) or not is_founder:
            return None
        self._down(server_id)
        disk = FakeDisk(random.Random(self._rng.getrandbits(64)))
        self._cluster.put_in(server_id, disk, cluster_id="another")
        return "wrong cluster"

    def clone(self, server_id: str, other_id: str) -> str | None:
        """Start a server with a copy of another one's disk: it must refuse."""
        cluster = self._cluster
        copy = cluster.servers[other_id].disk.copy()
        if STATE_FILE not in copy.file_names() or cluster.servers[other_id].own_disk is not None:
            return None
        self._down(server_id)
        try:
            cluster.put_in(server_id, copy)
        except StorageError as error:
            require(repr(other_id) in str(error), "the refusal names the disk's owner", server_id, other_id, error)
        else:
            require(False, "a server takes another one's disk", server_id, other_id)
        cluster.start(server_id)
        return "cloned disk"

    def _is_anybody_out_of_place(self) -> bool:
        return any(server.own_disk is not None for server in self._cluster.servers.values())

    def end(self) -> None:
        """Whoever runs on another disk gets its own back, and is started with it."""
        for server_id, server in sorted(self._cluster.servers.items()):
            if server.own_disk is not None:
                self._cluster.crash(server_id)
                server.disk.fill(False)
                self._cluster.start(server_id)
