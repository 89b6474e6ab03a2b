"""What a simulated server says, and to whom."""

from __future__ import annotations

from txraft.core.invariants import require
from txraft.core.messages import AppendEntriesResponse, Message
from txraft.core.raft import Raft
from txraft.core.words import Words
from txraft.testing.network import SimulatedTransport


class LinkedWords(Words):
    """
    What one process says: checked as the core's, and that it goes somewhere.

    Whoever follows a leader keeps a link to it, whatever its log says of who is a member: it may be a log of long ago,
    or one in which that leader has removed itself, and must yet hear that this is durable. Thesis §4.2.1, §4.2.2.
    """

    def __init__(self, raft: Raft, transport: SimulatedTransport) -> None:
        super().__init__(raft)
        self._transport = transport

    def check(self, receiver: str, message: Message) -> None:
        """:raises InvariantBroken: it must not be sent, or cannot arrive."""
        super().check(receiver, message)
        is_to_leader = isinstance(message, AppendEntriesResponse) and receiver == self._raft.leader_id
        has_link = not is_to_leader or self._transport.keeps_link_to(receiver)
        require(has_link, "a follower keeps no link to its leader", self._raft.server_id, receiver)
