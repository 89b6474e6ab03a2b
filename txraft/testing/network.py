"""A network in memory that loses, repeats, reorders and delays, and whose every direction can be cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from txraft.codec import decode_message, encode_message
from txraft.core.messages import Message
from txraft.errors import ProtocolError
from txraft.interfaces import Addresses, Identity, ITransport
from txraft.testing.clock import SimulatedClock

REPLAY_SAMPLE = 200
"""Old frames that are kept to be delivered again."""

Receive = Callable[[str, Sequence[Message]], None]
Arrive = Callable[[str, bytes], None]


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


class Network:
    """
    All links of a cluster. Messages pass through the real codec: what arrives is never the object that was sent.

    `frames` counts what was handed to the network, by (sender, receiver, message class name); `trace` is told of every
    delivery.
    """

    def __init__(self, clock: SimulatedClock, rng: random.Random) -> None:
        self.faults = NetworkFaults()
        self.frames: dict[tuple[str, str, str], int] = {}
        self.trace: Callable[[bytes], None] = lambda line: None
        self._clock = clock
        self._rng = rng
        self._cut: set[tuple[str, str]] = set()
        self._receivers: dict[str, tuple[object, Arrive]] = {}
        self._addresses: dict[str, Addresses] = {}
        self._arrival: dict[tuple[str, str], float] = {}
        self._resets = 0
        self._carried = 0
        self._old: list[tuple[str, str, bytes]] = []

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

    def partition(self, *groups: Sequence[str]) -> None:
        """Cut both directions between servers of different groups. Cuts that were there stay."""
        for one in groups:
            for other in groups:
                if one is not other:
                    self._cut.update((a, b) for a in one for b in other)

    def is_cut(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) in self._cut

    def attach(self, server_id: str, owner: object, arrive: Arrive) -> None:
        self._receivers[server_id] = (owner, arrive)

    def detach(self, server_id: str, owner: object) -> None:
        if self._receivers.get(server_id, (None,))[0] is owner:
            del self._receivers[server_id]

    def advertise(self, server_id: str, addresses: Addresses) -> None:
        self._addresses[server_id] = addresses

    def addresses(self, server_id: str) -> Addresses:
        return self._addresses.get(server_id, Addresses())

    def carry(self, sender: str, receiver: str, payload: bytes) -> None:
        """Send one frame, subject to the faults."""
        faults, rng = self.faults, self._rng
        if rng.random() < faults.drop:
            return
        self._keep_for_replay(sender, receiver, payload)
        copies = 2 if rng.random() < faults.duplicate else 1
        for _ in range(copies):
            longest_s = faults.max_late_s if rng.random() < faults.late else faults.max_delay_s
            arrival = self._clock.now + rng.uniform(faults.min_delay_s, longest_s)
            if not faults.reorders:
                arrival = self._arrival[sender, receiver] = max(arrival, self._arrival.get((sender, receiver), 0.0))
            self._send(arrival - self._clock.now, sender, receiver, payload)

    def _send(self, delay_s: float, sender: str, receiver: str, payload: bytes) -> None:
        self._clock.callLater(delay_s, self._deliver, self._resets, sender, receiver, payload)

    def reset(self) -> None:
        """Reset every connection: what is under way is lost."""
        self._resets += 1

    def replay(self, count: int) -> None:
        """Deliver old frames of this run once more, wherever they went the first time."""
        for sender, receiver, payload in self._rng.choices(self._old, k=count) if self._old else ():
            self._send(0, sender, receiver, payload)

    def _keep_for_replay(self, sender: str, receiver: str, payload: bytes) -> None:
        """A sample of all frames so far, each as likely as any other to be in it."""
        self._carried += 1
        if len(self._old) < REPLAY_SAMPLE:
            self._old.append((sender, receiver, payload))
        elif (place := self._rng.randrange(self._carried)) < REPLAY_SAMPLE:
            self._old[place] = (sender, receiver, payload)

    def _deliver(self, resets: int, sender: str, receiver: str, payload: bytes) -> None:
        attached = self._receivers.get(receiver)
        if attached is not None and resets == self._resets and not self.is_cut(sender, receiver):
            self.trace(b"%s>%s %s" % (sender.encode(), receiver.encode(), payload))
            attached[1](sender, payload)


@implementer(ITransport)
class SimulatedTransport:
    """One server's end of a `Network`. `on_send` is told of every message before it is sent."""

    def __init__(self, network: Network, server_id: str, when_awake: Callable[[Callable[[], object]], None]) -> None:
        self._network = network
        self._server_id = server_id
        self._when_awake = when_awake
        self._peers: frozenset[str] = frozenset()
        self._queued: list[tuple[str, bytes]] = []
        self.on_send: Callable[[str, Message], None] = lambda receiver_id, message: None

    def start(self, identity: Identity, receive: Receive) -> None:
        def hand_over(sender: str, payload: bytes) -> None:
            try:
                receive(sender, [decode_message(payload)])
            except ProtocolError as error:
                raise AssertionError(f"{self._server_id} refused what {sender} sent: {error}") from error

        def arrive(sender: str, payload: bytes) -> None:
            self._when_awake(lambda: hand_over(sender, payload))

        self._network.attach(self._server_id, self, arrive)

    def set_peers(self, server_ids: Sequence[str]) -> None:
        self._peers = frozenset(server_ids)

    def advertise(self, addresses: Addresses) -> None:
        self._network.advertise(self._server_id, addresses)

    def send(self, receiver_id: str, message: Message) -> None:
        self.on_send(receiver_id, message)
        if receiver_id in self._peers:
            key = (self._server_id, receiver_id, type(message).__name__)
            self._network.frames[key] = self._network.frames.get(key, 0) + 1
            self._queued.append((receiver_id, encode_message(message)))

    def flush(self) -> None:
        queued, self._queued = self._queued, []
        for receiver_id, payload in queued:
            self._network.carry(self._server_id, receiver_id, payload)

    def addresses(self, server_id: str) -> Addresses:
        return self._network.addresses(server_id)

    def link_status(self, server_id: str) -> str:
        return "cut" if self._network.is_cut(self._server_id, server_id) else "connected"

    def stop(self) -> Deferred[None]:
        self._network.detach(self._server_id, self)
        return succeed(None)
