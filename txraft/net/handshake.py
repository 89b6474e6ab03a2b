"""
Who may talk to whom: what each side of a peer connection says first, and whether the other accepts it.

Nothing here authenticates. These checks keep apart servers that were mixed up: other clusters, reused addresses, wiped
disks, versions that do not understand each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from txraft.codec import PROTOCOL_VERSION, ConnectionRole, Hello, encode_hello
from txraft.core.cluster_id import has_epoch, may_be_one, name_of, recoveries
from txraft.core.contact import Contact
from txraft.framing import frame
from txraft.interfaces import Addresses, Identity

MAX_HELLO_BYTES = 4096
"""Limit of every frame on a connection that has not shaken hands."""

MAX_STRANGERS = 64
"""How many servers that are no peers a server talks to and remembers."""

MAX_SERVER_ID = 300
"""Characters: a host name and a port have fewer."""

_MAX_QUOTED = 80

_EMPTY_IT = "give it an empty data directory, take `servers` out of its raft.conf"
_REMEDY = f"to make it a member, {_EMPTY_IT}, and add it"

MAX_SENTENCE = 500
"""So much is quoted of a refusal."""


def quoted(text: str, max_length: int = _MAX_QUOTED) -> str:
    """What the other side sent, fit for a log line and for our answer: short, and with nothing unprintable."""
    return repr(text if len(text) <= max_length else text[: max_length - 3] + "...")


def refusal_of(hello: Hello, us: Identity, peers: Collection[str], incarnations: Mapping[str, int]) -> str | None:
    """
    Why `us` does not talk to the speaker of `hello`, in one sentence; None if it does.

    A server talks to all others of its epoch of the cluster, also to those that it knows nothing of: a voter that it
    has not been told about may need its vote (thesis §4.2.1), and one that it knows by another data directory may have
    been removed and added again meanwhile, and lead. A passive server, which belongs to no cluster yet, talks
    to everyone who belongs to one: another leader may go on with what the last one had begun.

    @param incarnations: the numbers of the peers' data directories, as far as they are known.
    """
    speaker, we = quoted(hello.server_id), quoted(us.server_id)
    if hello.protocol_version != PROTOCOL_VERSION:
        return f"{speaker} speaks protocol version {hello.protocol_version}, {we} speaks {PROTOCOL_VERSION}"
    if not may_be_one(hello.cluster_id, us.cluster_id):
        return _other_cluster(hello, us)
    if hello.receiver_id != us.server_id:
        return f"{speaker} calls {quoted(hello.receiver_id)}, but this is {we}"
    if hello.server_id in ("", us.server_id):
        return f"another server calls itself {speaker}"
    if len(hello.server_id) > MAX_SERVER_ID or not hello.server_id.isprintable():
        return f"{speaker} is no server's name"
    is_of_our_epoch = has_epoch(hello.cluster_id) and us.cluster_id in (hello.cluster_id, name_of(hello.cluster_id))
    is_taking_us_in = not us.cluster_id and bool(hello.cluster_id)
    if hello.server_id not in peers and not is_of_our_epoch and not is_taking_us_in:
        return _stranger(hello, us)
    if not is_of_our_epoch and is_another(hello, incarnations):
        return f"{speaker} has lost its data, or has another server's: remove it from the cluster and add it again"
    return None


def _is_new(before: Contact | None, now: Contact) -> bool:
    """Whether a server may be another one than that of its name before, of which something may be known."""
    if before is None:
        return True
    return (before.is_leaving and not now.is_leaving) or bool(before.incarnation and not now.incarnation)


def is_another(hello: Hello, incarnations: Mapping[str, int]) -> bool:
    """Whether the speaker has another data directory than the server of that name: what that promised, it has not."""
    return incarnations.get(hello.server_id, hello.incarnation) != hello.incarnation


def _stranger(hello: Hello, us: Identity) -> str:
    stranger = f"{quoted(hello.server_id)} is no member of this cluster, as far as {quoted(us.server_id)} knows"
    if not hello.cluster_id or not has_epoch(us.cluster_id):
        return stranger
    # Perhaps it is of another cluster of this name, and nobody here may tell it anything.
    return (
        f"{stranger}, and it does not know itself which cluster of that name it is of. If it was removed before it "
        f"knew, it may be stopped; {_REMEDY}"
    )


def _other_cluster(hello: Hello, us: Identity) -> str:
    speaker, we = quoted(hello.server_id), quoted(us.server_id)
    ours, theirs = us.cluster_id, hello.cluster_id
    clusters = f"{speaker} belongs to cluster {quoted(theirs)}, {we} to cluster {quoted(ours)}"
    if name_of(ours) != name_of(theirs):
        return (
            f"{clusters}: if one of them is to join the other, and nobody needs what it holds, {_EMPTY_IT}, and add it"
        )
    if recoveries(theirs) < recoveries(ours):
        return f"{clusters}, which was recovered without it: {_REMEDY}"
    # Nobody here can tell which of them has what was acknowledged: perhaps we are the one that was founded anew.
    choice = (
        "one of them was founded anew, perhaps by a server that had lost its data; find out which has yours, then give "
        "the servers of the other empty data directories, take `servers` out of their raft.conf, and add them"
    )
    return f"{clusters}, which are two of one name: {choice}" if recoveries(theirs) == recoveries(ours) else clusters


class Registry:
    """
    Who this server is, whom it talks to, and what each of them said last.

    :ivar disowned_by: the server that said that we are not the member of our name; empty if none has. It counts no more
        once we have been taken in again.
    :ivar refusal: which server has refused us, and why; empty if the last one that we asked has not.
    """

    def __init__(self) -> None:
        self.us = Identity("", "", 0)
        """Set before the first connection."""
        self.advertised = Addresses()
        self.contacts: dict[str, Contact] = {}
        """The peers, by server id."""
        self.disowned_by = ""
        self.refusal = ""
        self.when_disowned: Callable[[], None] = lambda: None
        self.met: Callable[[], None] = lambda: None
        """Called when something was learned of a server."""
        self._known: dict[str, Hello] = {}

    @property
    def peers(self) -> tuple[str, ...]:
        """Their server ids, sorted."""
        return tuple(self.contacts)

    def set_peers(self, contacts: Sequence[Contact]) -> None:
        """
        Keep links to these. What is known of others is forgotten, and of those who come to be or to stay among them:
        removed and added again, a server is new.
        """
        by_id = {contact.server_id: contact for contact in contacts if contact.server_id != self.us.server_id}
        before, self.contacts = self.contacts, dict(sorted(by_id.items()))
        pinned = self._pinned
        new = {server_id for server_id, contact in by_id.items() if _is_new(before.get(server_id), contact)}
        self._known = {
            server_id: hello
            for server_id, hello in self._known.items()
            if server_id in self.contacts and server_id not in new and not is_another(hello, pinned)
        }

    @property
    def _pinned(self) -> dict[str, int]:
        return {contact.server_id: contact.incarnation for contact in self.contacts.values() if contact.incarnation}

    @property
    def incarnations(self) -> dict[str, int]:
        """The numbers of the data directories of those that were met, by server id."""
        return {server_id: known.incarnation for server_id, known in self._known.items()}

    @property
    def identities(self) -> dict[str, Identity]:
        """Who those are that were met, by server id."""
        return {
            server_id: Identity(known.cluster_id, server_id, known.incarnation)
            for server_id, known in self._known.items()
        }

    def refusal_of(self, hello: Hello) -> str | None:
        """Why this server does not talk to the speaker; None if it does."""
        refusal = refusal_of(hello, self.us, self.contacts, self.incarnations | self._pinned)
        is_disowned = self.disowned_by and not has_epoch(self.us.cluster_id)
        if refusal is None and is_disowned and not has_epoch(hello.cluster_id):
            # Two that have both lost their data would make a cluster of their own, with nothing in it.
            return f"{quoted(self.us.server_id)} is not the member of its name, says {self.disowned_by}"
        return refusal

    def is_counted(self, server_id: str, incarnation: int) -> bool:
        """Whether the answers of that data directory are those of the server of its name, as far as we know."""
        known = self._pinned.get(server_id) or self.incarnations.get(server_id)
        return known in (None, incarnation)

    def learn(self, hello: Hello) -> None:
        """Remember an accepted hello."""
        if not self.is_counted(hello.server_id, hello.incarnation):
            return
        self._known.pop(hello.server_id, None)
        self._known[hello.server_id] = hello
        strangers = [server_id for server_id in self._known if server_id not in self.contacts]
        if len(strangers) > MAX_STRANGERS:
            del self._known[strangers[0]]
        self.met()

    def learn_refusal(self, hello: Hello) -> None:
        """The other side refuses us. Who has been part of an epoch knows better, and need not believe it."""
        self.refusal = f"{quoted(hello.server_id)} says: {quoted(hello.refusal, MAX_SENTENCE)}"
        is_one_of_us = hello.server_id in self.contacts and may_be_one(hello.cluster_id, self.us.cluster_id)
        if hello.lost_data and is_one_of_us and not has_epoch(self.us.cluster_id) and not self.disowned_by:
            self.disowned_by = quoted(hello.server_id)
            self.when_disowned()

    def address(self, server_id: str) -> str:
        """Where to dial it: a server that is no peer is reached at its id."""
        contact = self.contacts.get(server_id)
        return (contact and contact.address) or server_id

    def addresses(self, server_id: str) -> Addresses:
        """What that server said last of where it serves."""
        hello = self._known.get(server_id)
        return Addresses(hello.client_address, hello.admin_address) if hello else Addresses()

    def hello_to(
        self,
        receiver_id: str,
        refusal: str | None = None,
        lost_data: bool = False,
        role: int = ConnectionRole.MESSAGES,
    ) -> bytes:
        """The frame in which this server introduces itself, or refuses; see `raft.proto`."""
        hello = Hello(
            PROTOCOL_VERSION,
            self.us.cluster_id,
            self.us.server_id,
            receiver_id[:_MAX_QUOTED] if refusal else receiver_id,
            self.us.incarnation,
            self.advertised.client,
            self.advertised.admin,
            refusal or "",
            lost_data,
            role,
        )
        return frame(encode_hello(hello))
