"""What of a server's state is worth a log line, and whom it must keep links to."""

from __future__ import annotations

from twisted.logger import Logger

from txraft.core.candidate import strangers_said_to_lead
from txraft.core.contact import Contact
from txraft.core.leader import Leader
from txraft.core.membership import Membership
from txraft.core.raft import Raft
from txraft.interfaces import ITransport
from txraft.node.belonging import introduce

_log = Logger()


class News:
    """Looked at after every turn: says what has changed since the last one, and tells the transport."""

    def __init__(self, transport: ITransport) -> None:
        self._transport = transport
        self._role: tuple[object, ...] = ()
        self._membership_index = -1
        self._peers: tuple[Contact, ...] | None = None
        self._peers_key: tuple[object, ...] = ()

    def note(self, raft: Raft) -> None:
        """Log changes of role, term, leader and membership; keep links to the right servers."""
        role = (raft.role.name, raft.term, raft.leader_id)
        self._note_peers(raft)
        if raft.memberships.current_index != self._membership_index:
            self._membership_index = raft.memberships.current_index
            _log.info("entry {index}: {membership}", index=self._membership_index, membership=sentence(raft.membership))
        if role != self._role:
            self._role = role
            _log.info(
                "{role} in term {term}, leader {leader}", role=role[0], term=role[1], leader=raft.leader_id or "none"
            )

    def _note_peers(self, raft: Raft) -> None:
        index, progress_count = raft.memberships.current_index, 0
        if isinstance(raft.role, Leader):
            progress_count = len(raft.role.progress)
        said_to_lead = strangers_said_to_lead(raft)
        key = (index, raft.commit_index >= index, raft.leader_id, raft.role.name, progress_count, said_to_lead)
        # Every turn comes by here, and next to none changes anything.
        if key != self._peers_key:
            self._peers_key = key
            peers = contacts(raft)
            if peers != self._peers:
                self._peers = peers
                self._transport.set_peers(peers)
                introduce(raft, self._transport)


def contacts(raft: Raft) -> tuple[Contact, ...]:
    """
    Whom this server talks to: the members; those before them, until the membership is committed; who leads, as it may
    have removed itself, or come later; and at a leader, those who are no members any more and must hear of it.
    """
    now, before = raft.membership, raft.memberships.at(raft.memberships.current_index - 1)
    server_ids = {*now.members, raft.leader_id or raft.server_id, *strangers_said_to_lead(raft)}
    if raft.commit_index < raft.memberships.current_index:
        server_ids |= {*before.members}
    if isinstance(raft.role, Leader):
        server_ids |= raft.role.progress.keys()
    known = {server_id: now if server_id in now.members else before for server_id in server_ids - {raft.server_id}}
    is_leading = isinstance(raft.role, Leader)
    return tuple(
        Contact(
            server_id,
            known[server_id].address(server_id),
            known[server_id].incarnation(server_id),
            is_leaving=is_leading and server_id not in now.members,
        )
        for server_id in sorted(known)
    )


def sentence(membership: Membership) -> str:
    """A membership in words."""
    parts = [f"voters {', '.join(membership.voters) or 'none'}"]
    if membership.outgoing:
        parts.append(f"with the voters before them, {', '.join(membership.outgoing)}")
    if membership.learners:
        parts.append(f"learners {', '.join(membership.learners)}")
    if membership.next_voters:
        parts.append(f"to become voters {', '.join(membership.next_voters)}")
    return "; ".join(parts)
