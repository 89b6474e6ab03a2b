"""
What txraft asks of the parts that can be exchanged: first the state machine that you write, then disk and network.

Importing this module imports nothing of Twisted's reactor: Twisted's plugin cache names these interfaces, so every
Twisted command in the environment may load it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from txraft.core.contact import Contact
from txraft.core.log import EntryRun
from txraft.core.messages import HardState, Message
from txraft.core.snapshot import SnapshotMeta


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
        @param time_ms: when the leader appended them, ms since 1970, never decreasing; the only clock to be used.
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
        Replace the whole state by one that `snapshot` returned, here or on another server. Nothing else is done
        meanwhile: a machine whose state is large provides `txraft.images.IPreparedRestore`, too.

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
class Snapshot:
    """A snapshot on a disk. `size`, in bytes, and `digest` are of the whole file: the same digest, the same file."""

    meta: SnapshotMeta
    size: int
    digest: bytes


@attrs.frozen
class Recovered:
    """
    What was found on disk; nothing but an identity in a new data directory.

    `runs` have no gap and start at `base_index + 1`; `base_term` is the term of the entry at `base_index`, which is at
    `snapshot.meta.last_index` or before it (some is kept for slow followers): the log agrees with the snapshot.
    Without one both are 0. What is behind `commit_index` may be committed, too.
    """

    identity: Identity
    hard_state: HardState
    runs: Sequence[EntryRun]
    snapshot: Snapshot | None = None
    base_index: int = 0
    base_term: int = 0
    commit_index: int = 0


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

    snapshots = Attribute("The `ISnapshotStore` of the same data directory; of use after `open`.")

    def open() -> Recovered:
        """
        Lock the data directory, recover what is in it, or make a new one. Blocks.

        Starts from the newest snapshot that is whole and intact, and from the log, which must reach back to it. A log
        that does not agree with the snapshot is given up: it ends before, or is not what was committed.

        @raise txraft.errors.StorageError: it is locked, damaged, unwritable, or another server's.
        """

    def write(hard_state: HardState | None, runs: Sequence[EntryRun], commit_index: int = 0) -> Deferred[None]:
        """
        Make durable, first `hard_state` unless None, then `runs` in one write and one sync.

        A run that starts at or below the last index written replaces the log from there on. Called on the reactor's
        thread, never while an earlier write is outstanding; encodes a run there if nobody has.
        @return: a Deferred of None, or of a `StorageError` after which the store must not be used.
        """

    def compact(first_index: int) -> Deferred[None]:
        """
        Give up what is in the log before `first_index`: by whole segments, and nothing behind the oldest snapshot that
        is kept, so that each of them can be started from.

        In order with the writes: what was handed to `write` before is written before.
        @return: a Deferred of None, or of a `StorageError` after which the store must not be used.
        """

    def reset(meta: SnapshotMeta) -> Deferred[None]:
        """
        Give up the whole log: it goes on behind a snapshot, which is in `snapshots` and durable.

        A crash at any point leaves the old log or none, and `open` does what was left to do: a log that does not agree
        with the snapshot is given up. In order with the writes. See `compact`.
        """

    def join(cluster_id: str) -> Deferred[None]:
        """This server belongs to that cluster from now on. In order with the writes, and answered like `compact`."""

    def status() -> StorageStatus:
        """What the disk is doing now."""

    def close() -> Deferred[None]:
        """Finish the outstanding write and let go of the data directory. A Deferred of None; never fails."""


class ISnapshotStore(Interface):
    """
    The snapshots of a server on disk. What is in here is complete, verified and durable.

    Nothing blocks the reactor: whatever touches the disk is a Deferred. A failure costs that snapshot, and no other.
    """

    problem = Attribute("What is wrong with a newer one that had to be left aside; empty if nothing is.")

    def kept() -> Sequence[Snapshot]:
        """The snapshots that are there, newest first."""

    def begin(meta: SnapshotMeta) -> ISnapshotWriter:
        """Begin a snapshot of our own state. One at a time."""

    def open(snapshot: Snapshot) -> Deferred[ISnapshotReader]:
        """A Deferred of a reader for one of `kept()`, readable until that is closed. Fails with `StorageError`."""

    def check(snapshot: Snapshot) -> Deferred[bool]:
        """Whether one of `kept()`, read again, is what it was; else it goes from there. Fails with `StorageError`."""

    def receive(offer: Snapshot) -> Deferred[IPartialSnapshot]:
        """
        A Deferred of the place for a snapshot that is offered, with what has come of it already, also before a restart.
        What had come of another one is given up. One at a time. Fails with `StorageError`.
        """


class ISnapshotWriter(Interface):
    """A snapshot that is being written. It counts when `commit` has fired, and not before."""

    def write_sessions(chunk: bytes) -> Deferred[None]:
        """Add a chunk, of less than a MiB, of the table of sessions; as `write`, and before the first of those."""

    def write(chunk: bytes) -> Deferred[None]:
        """Add a chunk of the machine's, in order. Fails with `StorageError`, and so does everything behind it."""

    def write_here(sessions: Iterable[bytes], chunks: Iterable[bytes], alive: Callable[[], None]) -> None:
        """
        Write the whole snapshot, and block meanwhile: for a forked child, after which the parent calls `adopt`.
        `alive` is called before each chunk.

        @raise StorageError: it failed.
        """

    def commit() -> Deferred[Snapshot]:
        """
        Make the snapshot durable, read it back, and let it count; then remove those that are too old to be kept.
        Fails with `StorageError`; what was written is removed then.
        """

    def adopt() -> Deferred[Snapshot]:
        """As `commit`, for what a forked child has written with `write_here`."""

    def abort() -> Deferred[None]:
        """Remove what was written. Never fails."""


class ISnapshotReader(Interface):
    """A snapshot that is being read, by one reader in one of two ways. Both fail with `StorageError`."""

    def next_chunk() -> Deferred[bytes | None]:
        """The machine's next chunk, cut as the machine had cut it, checked; None behind the last one."""

    def next_sessions() -> Deferred[bytes] | None:
        """The next chunk of the table of sessions, in another turn; None behind the last. After a `next_chunk` only."""

    def read(offset: int, length: int) -> Deferred[bytes]:
        """`length` bytes of the file from `offset`, to send; fewer only where it ends."""

    def close() -> Deferred[None]:
        """Let go of it. Never fails."""


class IPartialSnapshot(Interface):
    """A snapshot that is being received: the bytes of the sender's file, in order."""

    offset = Attribute("How many bytes of it are here: where the next ones belong.")

    def append(offset: int, data: bytes) -> Deferred[int]:
        """
        Add bytes at `offset`, which must be `self.offset`; a Deferred of the new offset.

        @raise ProtocolError: they do not belong there, or are more than was offered.
        """

    def commit() -> Deferred[Snapshot]:
        """
        Verify what has come, make it durable, and let it count. Fails with `StorageError`, or with `ProtocolError` if
        it is not what was offered; then it is given up.
        """

    def close() -> Deferred[None]:
        """Let go of it, and keep what has come, so that `receive` goes on there. Never fails."""


class ISnapshotTransfer(Interface):
    """A snapshot on its way to another server."""

    done = Attribute(
        """
        A Deferred of None: the receiver has the snapshot, has verified it and made it durable. It fails with
        `TransferFailed` if the receiver does not want it, or gets nowhere. It never fires after `cancel`.
        """
    )
    offset = Attribute("How many bytes of the file the receiver has.")

    def cancel() -> None:
        """Send no more of it."""


class ITransport(Interface):
    """
    Messages to and from the other servers. They may be lost, and one that is too late is dropped: Raft resends.

    From one sender they arrive in the order in which they were sent.
    """

    refusal = Attribute("Which server has refused to talk to this one, and why; empty if the last one asked has not.")

    def start(
        identity: Identity,
        receive: Callable[[str, Sequence[Message]], None],
        met: Callable[[], None],
        accept: Callable[[str, Snapshot], Deferred[IPartialSnapshot]],
    ) -> None:
        """
        Begin to listen and to connect.

        @param receive: called with (sender_id, list of messages) on the reactor's thread, for links that have shaken
            hands only. It may raise `ProtocolError`, which closes that link.
        @param met: called when hands were shaken, before anything is received there: `identities` may say more.
        @param accept: called with (sender_id, snapshot) when another server offers one: a Deferred of the place for
            it, which is committed when all of it has come, and closed in any case. What these fail with, the sender is
            told. It may raise `ProtocolError`, too.
        """

    def set_peers(peers: Sequence[Contact]) -> None:
        """
        Keep a link to each of these, who must be who they are said to be.

        Other servers of the cluster are answered as long as they keep a link to us: they may know of members that this
        server has not heard of yet.
        """

    def join(cluster_id: str) -> None:
        """Say in every handshake from now on that this server, which was passive, belongs to this cluster."""

    def advertise(addresses: Addresses) -> None:
        """Say these in every handshake from now on."""

    def send(receiver_id: str, message: Message) -> None:
        """Queue a message for the next `flush`; drop it if there is no link or the link is full."""

    def flush() -> None:
        """Hand everything queued to the network, one write per link."""

    def send_snapshot(receiver_id: str, snapshot: Snapshot, reader: ISnapshotReader) -> ISnapshotTransfer:
        """
        Send a file on a connection of its own, so that no message waits behind it; not faster than is allowed.

        It goes on after lost connections, with what the receiver lacks.
        """

    def addresses(server_id: str) -> Addresses:
        """What that server said of itself last."""

    def identities() -> Mapping[str, Identity]:
        """Who those servers are with whom hands were shaken, as each of them said last."""

    def link_status(server_id: str) -> str:
        """ "connected", or in a few words why not."""

    def stop() -> Deferred[None]:
        """Close every link and stop listening. A Deferred of None; never fails."""
