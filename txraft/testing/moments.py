"""The moments of a simulated run at which a fault does most harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from txraft.core.leader import Leader
from txraft.core.raft import Raft

MEMBERSHIP = "membership"
"""In a role's place: a leader has put another membership in force, which nobody else knows yet."""


class Moments:
    """Tells of every server that takes a role, or as a leader another membership, from now on."""

    def __init__(self, tell: Callable[[str, str], object], rafts: Mapping[str, Raft]) -> None:
        """@param tell: called with the server's id, and the role's name or `MEMBERSHIP`."""
        self._tell = tell
        self._rafts = rafts
        self._known = {server_id: (raft.role, raft.membership.roles) for server_id, raft in rafts.items()}

    def look(self, server_ids: Iterable[str]) -> None:
        """These have done something."""
        for server_id in server_ids:
            raft = self._rafts[server_id]
            role, members = self._known.get(server_id, (None, None))
            now = self._known[server_id] = raft.role, raft.membership.roles
            if now[0] is not role:
                self._tell(server_id, raft.role.name)
            elif now[1] != members and isinstance(raft.role, Leader):
                self._tell(server_id, MEMBERSHIP)
