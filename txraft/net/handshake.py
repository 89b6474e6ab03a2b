"""
Who may talk to whom: what each side of a peer connection says first, and whether the other accepts it.

Nothing here authenticates. These checks keep apart servers that were mixed up: other clusters, reused addresses, wiped
disks, versions that do not understand each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from txraft.codec import PROTOCOL_VERSION, Hello, encode_hello
from txraft.framing import frame
from txraft.interfaces import Addresses, Identity

MAX_HELLO_BYTES = 4096
"""Limit of every frame on a connection that has not shaken hands."""

MAX_STRANGERS = 64
"""How many servers that are no peers a server talks to and remembers."""

MAX_SERVER_ID = 300
"""Characters: a host name and a port have fewer."""

_MAX_QUOTED = 80


def quoted(text: str) -> str:
    """What the other side sent, fit for a log line and for our answer: short, and with nothing unprintable."""
    return repr(text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 3] + "...")


def refusal_of(hello: Hello, us: Identity, peers: Collection[str], known_incarnations: Mapping[str, int]) -> str | None:
    """
    Why `us` does not talk to the speaker of `hello`, in one sentence; None if it does.

    A server of a cluster talks to all others of it, also to those that it knows nothing of: a voter that it has not
    been told about may need its vote (thesis §4.2.1). A passive server, which belongs to no cluster and has no peers,
    talks to everyone who belongs to one.
    """
    speaker, we = quoted(hello.server_id), quoted(us.server_id)
    if hello.protocol_version != PROTOCOL_VERSION:
        return f"{speaker} speaks protocol version {hello.protocol_version}, {we} speaks {PROTOCOL_VERSION}"
    if hello.cluster_id and us.cluster_id and hello.cluster_id != us.cluster_id:
        return f"{speaker} belongs to cluster {quoted(hello.cluster_id)}, {we} to cluster {quoted(us.cluster_id)}"
    if hello.receiver_id != us.server_id:
        return f"{speaker} calls {quoted(hello.receiver_id)}, but this is {we}"
    if hello.server_id in ("", us.server_id):
        return f"another server calls itself {speaker}"
    if len(hello.server_id) > MAX_SERVER_ID or not hello.server_id.isprintable():
        return f"{speaker} is no server's name"
    is_of_a_cluster = bool(hello.cluster_id) and (bool(us.cluster_id) or not peers)
    if hello.server_id not in peers and not is_of_a_cluster:
        return f"{speaker} is no member of this cluster, as far as {we} knows"
    if known_incarnations.get(hello.server_id, hello.incarnation) != hello.incarnation:
        return f"{speaker} has lost its data since {we} met it: remove it from the cluster and add it again"
    return None


class Registry:
    """Who this server is, whom it talks to, and what each of them said last."""

    def __init__(self) -> None:
        self.us = Identity("", "", 0)
        """Set before the first connection."""
        self.advertised = Addresses()
        self.peers: tuple[str, ...] = ()
        self._known: dict[str, Hello] = {}

    def set_peers(self, server_ids: Sequence[str]) -> None:
        """Talk to these only. What is known of others is forgotten: removed and added again, a server is new."""
        self.peers = tuple(sorted({*server_ids} - {self.us.server_id}))
        self._known = {server_id: hello for server_id, hello in self._known.items() if server_id in self.peers}

    @property
    def incarnations(self) -> dict[str, int]:
        """By server id, as far as they are known."""
        return {server_id: known.incarnation for server_id, known in self._known.items()}

    def refusal_of(self, hello: Hello) -> str | None:
        """Why this server does not talk to the speaker; None if it does."""
        return refusal_of(hello, self.us, self.peers, self.incarnations)

    def learn(self, hello: Hello) -> None:
        """Remember an accepted hello."""
        self._known.pop(hello.server_id, None)
        self._known[hello.server_id] = hello
        strangers = [server_id for server_id in self._known if server_id not in self.peers]
        if len(strangers) > MAX_STRANGERS:
            del self._known[strangers[0]]

    def addresses(self, server_id: str) -> Addresses:
        """What that server said last of where it serves."""
        hello = self._known.get(server_id)
        return Addresses(hello.client_address, hello.admin_address) if hello else Addresses()

    def hello_to(self, receiver_id: str, refusal: str | None = None) -> bytes:
        """The frame in which this server introduces itself, or refuses."""
        hello = Hello(
            PROTOCOL_VERSION,
            self.us.cluster_id,
            self.us.server_id,
            receiver_id[:_MAX_QUOTED] if refusal else receiver_id,
            self.us.incarnation,
            self.advertised.client,
            self.advertised.admin,
            refusal or "",
        )
        return frame(encode_hello(hello))
