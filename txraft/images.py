"""What a state machine may say about how its snapshots are taken, and how it is restored from one."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from zope.interface import Attribute, Interface


class SnapshotWay(Enum):
    """How the image of a machine's state comes to disk while the server goes on."""

    FORK = "fork"
    """By a copy of the process, as it is at that moment. The machine does nothing for it; the fork takes some ms."""
    INCREMENTAL = "incremental"
    """In slices of time, out of what `image` returned."""
    INLINE = "inline"
    """At once, before anything else is done: for a state that is always small."""


class ISnapshotImage(Interface):
    """
    What a machine provides beside `IStateMachine` if it has a word to say about how its snapshots are taken.

    One that does not is forked, or, where that cannot be done or has failed, inline.
    """

    snapshot_way = Attribute("The `SnapshotWay` that suits it best. If forking fails, incremental is what is left.")

    def image() -> Iterator[bytes]:
        """
        The state as it is now, as `snapshot` returns it, but each chunk is made when it is asked for.

        Returns soon, and so does each step of the iterator; later changes must not show. Also called in a forked child.
        """


class IPreparedRestore(Interface):
    """
    What a machine provides beside `IStateMachine` if its state is so large that `restore` would take long.

    The server then goes on while it gets a snapshot ready. `restore` must do the same at once.
    """

    def restoring() -> IRestoring:
        """Begin to be restored. One that does not come to its end is dropped, and nothing has changed."""


class IRestoring(Interface):
    """A state that is being made of a snapshot, beside the one that the machine has and goes on with."""

    def add(chunk: bytes) -> None:
        """
        The next chunk, as it was cut by who took the snapshot. Returns soon.

        @raise ValueError: it is not of a snapshot.
        """

    def finish() -> None:
        """
        There are no more chunks: replace the machine's whole state by the new one. Returns soon.

        @raise ValueError: they are not a whole snapshot; the state is as it was.
        """
