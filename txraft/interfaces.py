"""
What txraft asks of the parts that can be exchanged: first the state machine that you write, then disk and network.

Importing this module imports nothing of Twisted's reactor: Twisted's plugin cache names these interfaces, so every
Twisted command in the environment may load it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from txraft.core.log import EntryRun
from txraft.core.messages import HardState, Message


class IStateMachine(Interface):
    """
    Your program's state. Every server holds one, and every one is given the same commands in the same order.

    What `apply` does must follow from the state and its arguments alone: no clock, no random numbers, no iteration over
    sets, no files. All methods are called on the reactor's thread and must return soon.
    """

    def apply(first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        """
        Carry out committed commands, in order, and return one result for each, in the same order.

        @param first_index: index of `commands[0]` in the log; the next command has the next index.
        @param commands: one or more, as they were proposed. Must not be changed.
        @param time_ms: when the leader appended them, in ms since 1970; the same on every server, never decreasing.
            The only clock that `apply` may use.
        @return: as many results as commands. On the server that proposed it, a result fires the proposal's Deferred.
        @raise Exception: stops the server, on every server: a command that is wrong is answered with a result that
            says so, not with an exception. Clients are told its type, the log what it says: nothing secret.
        """

    def query(request: bytes) -> object:
        """
        Answer a read. Must not change the state.

        @raise Exception: fails the `read` that asked, and nothing else.
        """

    def snapshot() -> Sequence[bytes]:
        """The whole state as it is now, as chunks of bytes of any size; later changes must not show in them."""

    def restore(chunks: Sequence[bytes]) -> None:
        """
        Replace the whole state by one that `snapshot` returned, here or on another server.

        @raise ValueError: the chunks are not a snapshot; the state is as it was.
        """


class IStateMachinePlugin(IPlugin):
    """
    Makes state machines of one sort. Put an instance into a module of `twisted/plugins/`; it is an `IPlugin` by this.

    A plugin is one object per process; `build` makes a new machine for each server in it.
    """

    name = Attribute("What `state_machine=` in raft.conf says: lower-case letters, digits and underscores.")
    description = Attribute("One line for `twistd raftcore --list-state-machines`.")

    def build(options: dict[str, str]) -> IStateMachine:
        """
        Make a machine in its first state. Has no side effects: it is also called by `--check-config`.

        @param options: the keys of raft.conf that start with the plugin's name and `_`, whole, with their values.
        @raise txraft.errors.ConfigError: an option is unknown or wrong.
        """

    def service(node: object, machine: IStateMachine, options: dict[str, str]) -> object:
        """
        A Twisted `IService` that serves the machine's clients, or None. It starts and stops with the server.

        @param node: the `txraft.node.RaftNode`; call its `advertise(client_address=...)` so that other servers can
            send clients here.
        @raise txraft.errors.ConfigError: an option is unknown or wrong.
        """


class ISimulatedPlugin(Interface):
    """
    What a plugin provides beside `IStateMachinePlugin` if its machine is to be tried in simulated clusters.

    `raftctl simulate --machine` and `txraft.testing.simulate` use it; servers do not.
    """

    def command(rng: random.Random) -> bytes:
        """
        A command for `apply`, such as a client might send; better one that meets others' than one of its own.

        @param rng: the only source of randomness: the same state of it gives the same command, in every process.
        """

    def query(rng: random.Random) -> bytes:
        """A request for the machine's `query`. See `command`."""

    def check(machine: IStateMachine) -> None:
        """
        Look at a machine after every batch of commands. Must not change it.

        @raise Exception: it is in a state in which it must never be; says how.
        """


@attrs.frozen
class Identity:
    """Who a data directory belongs to. `cluster_id` is empty on a passive server that has joined none."""

    cluster_id: str
    server_id: str
    incarnation: int


@attrs.frozen
class Addresses:
    """Where a server serves its clients and its admin HTTP, as host:port; empty if it does not, or nobody knows."""

    client: str = ""
    admin: str = ""


@attrs.frozen
class Recovered:
    """What was found on disk. `runs` start at index 1 and have no gap; empty in a new data directory."""

    identity: Identity
    hard_state: HardState
    runs: Sequence[EntryRun]


@attrs.frozen
class StorageStatus:
    """What the disk is doing. `write_seconds` is None when no write is outstanding."""

    path: str
    segments: int
    log_bytes: int
    syncs: int
    unsafe: bool
    write_seconds: float | None


class ILogStore(Interface):
    """The replicated log, term, vote and identity on disk. Nothing here is retried after a failure."""

    def open() -> Recovered:
        """
        Lock the data directory, recover what is in it, or make a new one. Blocks.

        @raise txraft.errors.StorageError: it is locked, damaged, unwritable, or another server's.
        """

    def write(hard_state: HardState | None, runs: Sequence[EntryRun]) -> Deferred[None]:
        """
        Make durable, first `hard_state` unless None, then `runs` in one write and one sync.

        A run that starts at or below the last index written replaces the log from there on. Called on the reactor's
        thread, never while an earlier write is outstanding; encodes a run there if nobody has.

        @return: a Deferred of None, or of a `StorageError` after which the store must not be used.
        """

    def join(cluster_id: str) -> None:
        """A passive server belongs to this cluster from now on: the next write says so too, before all else."""

    def status() -> StorageStatus:
        """What the disk is doing now."""

    def close() -> Deferred[None]:
        """Finish the outstanding write and let go of the data directory. A Deferred of None; never fails."""


class ITransport(Interface):
    """
    Messages to and from the other servers. They may be lost, and one that is too late is dropped: Raft resends.

    From one sender they arrive in the order in which they were sent.
    """

    def start(identity: Identity, receive: Callable[[str, Sequence[Message]], None]) -> None:
        """
        Begin to listen and to connect.

        @param receive: called with (sender_id, list of messages) on the reactor's thread, for links that have shaken
            hands only. It may raise `ProtocolError`, which closes that link.
        """

    def set_peers(server_ids: Sequence[str]) -> None:
        """Keep a link to each of these, and to nobody else."""

    def join(cluster_id: str) -> None:
        """Say in every handshake from now on that this server, which was passive, belongs to this cluster."""

    def advertise(addresses: Addresses) -> None:
        """Say these in every handshake from now on."""

    def send(receiver_id: str, message: Message) -> None:
        """Queue a message for the next `flush`; drop it if there is no link or the link is full."""

    def flush() -> None:
        """Hand everything queued to the network, one write per link."""

    def addresses(server_id: str) -> Addresses:
        """What that server said of itself last."""

    def link_status(server_id: str) -> str:
        """ "connected", or in a few words why not."""

    def stop() -> Deferred[None]:
        """Close every link and stop listening. A Deferred of None; never fails."""
