"""
A network in memory that loses, repeats, reorders and delays, and whose every direction can be cut.

Two processes shake hands as they do on a socket, by the same rules, before anything passes between them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from txraft.codec import decode_hello, decode_message, encode_message
from txraft.core.cluster_id import has_epoch
from txraft.core.contact import Contact
from txraft.core.invariants import require
from txraft.core.messages import ANSWERS, Message
from txraft.errors import ProtocolError, Stopped
from txraft.framing import Splitter
from txraft.interfaces import Addresses, Identity, IPartialSnapshot, ISnapshotReader, ITransport, Snapshot
from txraft.net.handshake import MAX_HELLO_BYTES, Registry
from txraft.testing.clock import SimulatedClock
from txraft.testing.transfers import SimulatedTransfer

CONNECT_S = 0.001

UNNOTICED_S = 0.5
"""So long a receiver may go on with a connection that is lost: what is under way still comes to it."""

REPLAY_SAMPLE = 40
"""Old frames of each kind of message that are kept to be delivered again."""

Receive = Callable[[str, Sequence[Message]], None]
Accept = Callable[[str, Snapshot], Deferred[IPartialSnapshot]]


@attrs.define
class NetworkFaults:
    """Probabilities per frame, and the delay's range in seconds. The default is a good network."""

    drop: float = 0.0
    duplicate: float = 0.0
    min_delay_s: float = 0.0002
    max_delay_s: float = 0.001
    late: float = 0.0
    max_late_s: float = 0.0
    """With the probability `late` a frame takes up to `max_late_s` instead: the heavy tail of a true network."""
    reorders: bool = False
    """Frames of one direction may overtake each other; a TCP connection never does that."""


def nothing(*_: str) -> None:
    """What is done about whatever nobody waits for."""


class Network:
    """
    All links of a cluster. Messages pass through the real codec: what arrives is never the object that was sent.

    `frames` counts what was handed to the network, by (sender, receiver, message class name); `harmed` what it dropped,
    duplicated or held up of that; `refused` what came from a process that the receiver does not talk to. `trace` is
    told of every delivery.
    """

    def __init__(self, clock: SimulatedClock, rng: random.Random) -> None:
        self.faults = NetworkFaults()
        self.frames: dict[tuple[str, str, str], int] = {}
        self.harmed: Counter[str] = Counter()
        self.refused = 0
        self.trace: Callable[[bytes], None] = lambda line: None
        self._clock = clock
        self._rng = rng
        self.addresses: dict[str, str] = {}
        """Where the servers are that are not at their id; what is sent elsewhere reaches nobody."""
        self._cut: set[tuple[str, str]] = set()
        self._receivers: dict[str, SimulatedTransport] = {}
        self._arrival: dict[tuple[str, str], float] = {}
        self._resets = 0
        self._carried: Counter[int] = Counter()
        self.transfers: dict[SimulatedTransfer, None] = {}
        """The snapshots that are on their way."""
        self.on_commit: Callable[[str, str], object] = nothing
        """Told of the sender and the receiver of a snapshot of which all has come, and that does not count yet."""
        self._old: dict[int, list[tuple[SimulatedTransport, str, bytes]]] = {}

    def transport(self, server_id: str, when_awake: Callable[[Callable[[], object]], None]) -> SimulatedTransport:
        """
        A new transport for a server; an older one of the same server is dead from its start on.

        @param when_awake: calls what it is given once the receiving process runs.
        """
        return SimulatedTransport(self, server_id, when_awake)

    def cut(self, sender: str, receiver: str) -> None:
        """Lose everything in this one direction, also what is under way."""
        self._cut.add((sender, receiver))

    def heal(self) -> None:
        """Undo every cut."""
        self._cut.clear()

    def mend(self, sender: str, receiver: str) -> None:
        """Undo the cut of this one direction."""
        self._cut.discard((sender, receiver))

    def partition(self, *groups: Sequence[str]) -> None:
        """Cut both directions between servers of different groups. Cuts that were there stay."""
        for one in groups:
            for other in groups:
                if one is not other:
                    self._cut.update((a, b) for a in one for b in other)

    def is_cut(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) in self._cut

    def attach(self, transport: SimulatedTransport) -> None:
        self._receivers[transport.server_id] = transport
        self._clock.callLater(CONNECT_S, self._connect, transport)

    def _connect(self, transport: SimulatedTransport) -> None:
        """A process dials all others when it starts; where that fails, the first frame that gets through does it."""
        if not self.is_attached(transport):
            return
        for other_id, other in sorted(self._receivers.items()):
            link = (transport.server_id, other_id)
            if other is not transport and not (self.is_cut(*link) or self.is_cut(*reversed(link))):
                transport.shakes_hands_with(other)

    def is_attached(self, transport: SimulatedTransport) -> bool:
        return self._receivers.get(transport.server_id) is transport

    def detach(self, transport: SimulatedTransport) -> None:
        if self.is_attached(transport):
            del self._receivers[transport.server_id]
            self._break_off(transport)

    def _break_off(self, transport: SimulatedTransport) -> None:
        for transfer in list(self.transfers):
            if transfer.involves(transport):
                transfer.break_off()

    # -- for snapshots

    def now(self) -> float:
        return self._clock.now

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        self._clock.callLater(seconds, do)

    def delay(self) -> float:
        """How long something is under way that is not late."""
        return self._rng.uniform(self.faults.min_delay_s, self.faults.max_delay_s)

    def unnoticed(self) -> float:
        """How long a receiver of a snapshot goes on with a connection that is lost; half of the time not at all."""
        return max(0.0, self._rng.uniform(-UNNOTICED_S, UNNOTICED_S))

    def is_unlucky(self) -> bool:
        """Whether a connection is lost now."""
        return self._rng.random() < self.faults.drop

    def reached(self, sender: SimulatedTransport, receiver_id: str) -> SimulatedTransport | None:
        """The process with which a connection would be; None if there cannot be one."""
        transport, link = self._receivers.get(receiver_id), (sender.server_id, receiver_id)
        if transport is None or self.is_cut(*link) or self.is_cut(*reversed(link)):
            return None
        return transport if sender.shakes_hands_with(transport) else None

    def carry(self, sender: SimulatedTransport, receiver: str, payload: bytes) -> None:
        """Send one frame, subject to the faults."""
        faults, rng = self.faults, self._rng
        if rng.random() < faults.drop:
            self.harmed["frame dropped"] += 1
            return
        self._keep_for_replay(sender, receiver, payload)
        is_double = rng.random() < faults.duplicate
        self.harmed["frame duplicated"] += is_double
        for _ in range(1 + is_double):
            is_late = rng.random() < faults.late
            self.harmed["frame late"] += is_late
            longest_s = faults.max_late_s if is_late else faults.max_delay_s
            arrival = self._clock.now + rng.uniform(faults.min_delay_s, longest_s)
            if not faults.reorders:
                link = (sender.server_id, receiver)
                arrival = self._arrival[link] = max(arrival, self._arrival.get(link, 0.0))
            self._send(arrival - self._clock.now, sender, receiver, payload)

    def _send(self, delay_s: float, sender: SimulatedTransport, receiver: str, payload: bytes) -> None:
        self._clock.callLater(delay_s, self._deliver, self._resets, sender, receiver, payload)

    def reset(self) -> None:
        """Reset every connection: what is under way is lost, and hands are shaken again."""
        self._resets += 1
        for transport in self._receivers.values():
            transport.disconnect()
        for transfer in list(self.transfers):
            transfer.break_off()

    def replay(self, count: int) -> None:
        """Deliver old frames of this run once more, wherever they went the first time; each kind is as likely."""
        for old in self._rng.choices([old for _, old in sorted(self._old.items())], k=count) if self._old else ():
            self._send(0, *self._rng.choice(old))

    def _keep_for_replay(self, sender: SimulatedTransport, receiver: str, payload: bytes) -> None:
        """A sample of all frames so far for each kind of message, which its first byte tells."""
        kind = payload[0]
        self._carried[kind] += 1
        old = self._old.setdefault(kind, [])
        if len(old) < REPLAY_SAMPLE:
            old.append((sender, receiver, payload))
        elif (place := self._rng.randrange(self._carried[kind])) < REPLAY_SAMPLE:
            old[place] = (sender, receiver, payload)

    def _reaches(self, address: str, receiver: str) -> bool:
        """A server is at its id unless `addresses` says otherwise; behind a slash it has as many more as one likes."""
        return address.partition("/")[0] == self.addresses.get(receiver, receiver)

    def _deliver(self, resets: int, sender: SimulatedTransport, receiver: str, payload: bytes) -> None:
        transport = self._receivers.get(receiver)
        if transport is None or resets != self._resets or self.is_cut(sender.server_id, receiver):
            return
        if not self._reaches(sender.address(receiver), receiver):
            return
        if not sender.shakes_hands_with(transport):
            self.refused += 1
            return
        self.trace(b"%s>%s %s" % (sender.server_id.encode(), receiver.encode(), payload))
        transport.arrive(sender, payload)


@implementer(ITransport)
class SimulatedTransport:
    """One server's end of a `Network`. `on_send` is told of every message before it is sent."""

    def __init__(self, network: Network, server_id: str, when_awake: Callable[[Callable[[], object]], None]) -> None:
        self.server_id = server_id
        self.on_send: Callable[[str, Message], None] = lambda receiver_id, message: None
        self._network = network
        self.when_awake = when_awake
        self._registry = Registry()
        self._registry.when_disowned = self.disconnect
        self._met: set[SimulatedTransport] = set()
        self._receive: Receive = lambda sender, messages: None
        self.accept: Accept = lambda sender, offer: fail(Stopped("not started"))
        self._queued: list[tuple[str, bytes]] = []
        self.transfers: list[SimulatedTransfer] = []
        """The snapshots that it has sent, or tried to."""

    def start(self, identity: Identity, receive: Receive, met: Callable[[], None], accept: Accept) -> None:
        self._registry.us = identity
        self._registry.met = lambda: self.when_awake(met)
        self._receive = receive
        self.accept = accept
        self._network.attach(self)

    def arrive(self, sender: SimulatedTransport, payload: bytes) -> None:
        """A frame has come from a server with which this one has shaken hands."""
        self.when_awake(lambda: self._hand_over(sender, payload))

    def _hand_over(self, sender: SimulatedTransport, payload: bytes) -> None:
        try:
            message = decode_message(payload)
            is_counted = self._registry.is_counted(sender.server_id, sender.incarnation)
            if is_counted or not isinstance(message, ANSWERS):
                self._receive(sender.server_id, [message])
        except ProtocolError as error:
            raise AssertionError(f"{self.server_id} refused what {sender.server_id} sent: {error}") from error

    def shakes_hands_with(self, other: SimulatedTransport) -> bool:
        """
        Whether both accept what the other says of itself; asked once for each pair of processes.

        What a process sent before its death still arrives where it had shaken hands, and nowhere else.
        """
        if other in self._met and self in other._met:
            return True
        is_any_dead = not (self._network.is_attached(self) and self._network.is_attached(other))
        if is_any_dead or not (self._accepts(other) and other._accepts(self)):
            return False
        self._meet(other)
        other._meet(self)
        return True

    def _accepts(self, other: SimulatedTransport) -> bool:
        hello = decode_hello(other.hello_to(self.server_id))
        refusal = self._registry.refusal_of(hello)
        if refusal is not None:
            is_counted = self._registry.is_counted(other.server_id, other.incarnation)
            # Whoever leads now must reach it, whether or not it has heard of that one before. Pitfalls M14.
            is_waiting = not self._registry.us.cluster_id and has_epoch(hello.cluster_id) and is_counted
            require(not is_waiting, "a passive server refuses a member of a cluster", self.server_id, refusal)
            answer = _payload(self._registry.hello_to(other.server_id, refusal, lost_data=not is_counted))
            other._registry.learn_refusal(decode_hello(answer))
        return refusal is None

    @property
    def incarnation(self) -> int:
        """The number of this process's data directory."""
        return self._registry.us.incarnation

    def address(self, server_id: str) -> str:
        """Where this process looks for a server."""
        return self._registry.address(server_id)

    def knows(self, identity: Identity) -> bool:
        """Whether it has met the server with this data directory."""
        return self._registry.incarnations.get(identity.server_id) == identity.incarnation

    def keeps_link_to(self, server_id: str) -> bool:
        """Whether that server is among those that it was told to talk to."""
        return server_id in self._registry.contacts

    def hello_to(self, receiver_id: str) -> bytes:
        """What this process says of itself to a server."""
        return _payload(self._registry.hello_to(receiver_id))

    def _meet(self, other: SimulatedTransport) -> None:
        self._met.add(other)
        self._registry.refusal = ""
        self._registry.learn(decode_hello(other.hello_to(self.server_id)))

    def set_peers(self, peers: Sequence[Contact]) -> None:
        self._registry.set_peers(peers)
        self.disconnect()

    def disconnect(self) -> None:
        """Whoever is to be talked to must shake hands again."""
        self._met.clear()

    def join(self, cluster_id: str) -> None:
        self._registry.us = attrs.evolve(self._registry.us, cluster_id=cluster_id)

    def advertise(self, addresses: Addresses) -> None:
        self._registry.advertised = addresses

    def send(self, receiver_id: str, message: Message) -> None:
        self.on_send(receiver_id, message)
        if receiver_id in self._registry.peers or receiver_id in self._registry.incarnations:
            key = (self.server_id, receiver_id, type(message).__name__)
            self._network.frames[key] = self._network.frames.get(key, 0) + 1
            self._queued.append((receiver_id, encode_message(message)))

    def send_snapshot(self, receiver_id: str, snapshot: Snapshot, reader: ISnapshotReader) -> SimulatedTransfer:
        return SimulatedTransfer(self._network, self, receiver_id, snapshot, reader)

    def flush(self) -> None:
        queued, self._queued = self._queued, []
        for receiver_id, payload in queued:
            self._network.carry(self, receiver_id, payload)

    def addresses(self, server_id: str) -> Addresses:
        return self._registry.addresses(server_id)

    def identities(self) -> Mapping[str, Identity]:
        return self._registry.identities

    def link_status(self, server_id: str) -> str:
        return "cut" if self._network.is_cut(self.server_id, server_id) else "connected"

    @property
    def refusal(self) -> str:
        return self._registry.refusal

    def stop(self) -> Deferred[None]:
        self._network.detach(self)
        return succeed(None)


def _payload(framed: bytes) -> bytes:
    [payload] = Splitter(MAX_HELLO_BYTES).feed(framed)
    return payload
