"""State machines with one planted bug each, and a plugin for each of them; `sound` has none."""

from __future__ import annotations

import random
from collections.abc import Sequence

from zope.interface import implementer

from txraft.images import IPreparedRestore
from txraft.interfaces import ISimulatedPlugin, IStateMachine, IStateMachinePlugin

NAMES = ("ann", "bob", "cleo", "dan", "eve", "finn", "gus", "hal")


@implementer(IStateMachine)
class Guests:
    """Who is here. Commands are `come name`, `go name` and `pick`; a query asks how many there are."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.picked = ""

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        return [self.carry_out(*command.decode().split()) for command in commands]

    def carry_out(self, kind: str, name: str = "") -> object:
        if kind == "pick":
            self.picked = self.pick() if self.names else ""
            return self.picked
        if kind == "come" and name not in self.names:
            self.names.append(name)
        if kind == "go" and name in self.names:
            self.names.remove(name)
        return len(self.names)

    def pick(self) -> str:
        return self.names[len(self.names) // 2]

    def query(self, request: bytes) -> object:
        return len(self.names)

    def snapshot(self) -> Sequence[bytes]:
        return [name.encode() for name in [self.picked, *self.names]]

    def restore(self, chunks: Sequence[bytes]) -> None:
        self.picked, *self.names = [chunk.decode() for chunk in chunks]


class Random(Guests):
    def pick(self) -> str:
        return random.choice(self.names)


class NotesRandom(Guests):
    """Answers are right, but the state differs."""

    def carry_out(self, kind: str, name: str = "") -> object:
        random.shuffle(self.names)
        return super().carry_out("come" if kind == "pick" else kind, name or "ann")


class SetOrder(Guests):
    """Equal on all servers of one process: only another hash seed shows it."""

    def pick(self) -> str:
        return next(iter(set(self.names)))


class QueryOfASet(Guests):
    """The state is right, but its answers depend on the process."""

    def query(self, request: bytes) -> object:
        return list(set(self.names))


class ForgetsOnRestore(Guests):
    def restore(self, chunks: Sequence[bytes]) -> None:
        super().restore(chunks)
        self.picked = ""


class MergesOnRestore(Guests):
    def restore(self, chunks: Sequence[bytes]) -> None:
        before = self.names
        super().restore(chunks)
        self.names = sorted({*before, *self.names}) if before else self.names


@implementer(IPreparedRestore)
class Prepares(Guests):
    """Restored by chunks, and loses all but the first."""

    is_hasty = False

    def restoring(self) -> Preparing:
        return Preparing(self)


class Preparing:
    def __init__(self, machine: Prepares) -> None:
        self.machine = machine
        self.chunks: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        if self.machine.is_hasty:
            self.machine.restore(self.chunks)

    def finish(self) -> None:
        self.machine.restore(self.chunks if self.machine.is_hasty else self.chunks[:1])


class PreparesHastily(Prepares):
    """The state changes before all of it is there."""

    is_hasty = True


class SnapshotLeavesOut(Guests):
    """Snapshots are equal, but a machine that was restored from one goes on in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.picks = 0

    def pick(self) -> str:
        self.picks += 1
        return self.names[self.picks % len(self.names)]


class SnapshotLives(Guests):
    """Later changes show in a snapshot that was taken before."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[bytes] = []

    def snapshot(self) -> Sequence[bytes]:
        self.chunks[:] = super().snapshot()
        return self.chunks


class Raises(Guests):
    def pick(self) -> str:
        if len(self.names) == 3:
            raise LookupError("three is a crowd")
        return super().pick()


class DependsOnBatches(Guests):
    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        results = super().apply(first_index, commands, time_ms)
        self.names.sort()
        return results


class OneResultTooFew(Guests):
    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[object]:
        return [result for result in super().apply(first_index, commands, time_ms) if result != 4]


class QueryChangesState(Guests):
    def query(self, request: bytes) -> object:
        return self.names.pop() if self.names else ""


class IsFull(Guests):
    """Nothing is wrong with it but what its plugin's check says."""


class TextInSnapshot(Guests):
    def snapshot(self) -> Sequence[bytes]:
        return ["text"]  # type: ignore[list-item]


@implementer(IStateMachinePlugin, ISimulatedPlugin)
class Plugin:
    name = "guests"
    description = "for a test"

    def __init__(self, machine: type[Guests]) -> None:
        self.machine = machine

    def build(self, options: dict[str, str]) -> IStateMachine:
        return self.machine()

    def service(self, node: object, machine: IStateMachine, options: dict[str, str]) -> object:
        return None

    def command(self, rng: random.Random) -> bytes:
        kind = rng.choice(("come", "come", "go", "pick"))
        return kind.encode() if kind == "pick" else f"{kind} {rng.choice(NAMES)}".encode()

    def query(self, rng: random.Random) -> bytes:
        return b"count"

    def check(self, machine: Guests) -> None:
        assert len(set(machine.names)) == len(machine.names), machine.names
        assert type(machine) is not IsFull or len(machine.names) < 5, "the house is full"


@implementer(IStateMachinePlugin)
class Unable:
    """A plugin whose machine cannot be simulated."""

    name = "unable"
    description = "for a test"


class DrawsText(Plugin):
    def command(self, rng: random.Random) -> bytes:
        return "text"  # type: ignore[return-value]


sound = Plugin(Guests)
random_choice = Plugin(Random)
notes_random = Plugin(NotesRandom)
set_order = Plugin(SetOrder)
query_of_a_set = Plugin(QueryOfASet)
forgets_on_restore = Plugin(ForgetsOnRestore)
merges_on_restore = Plugin(MergesOnRestore)
prepares = Plugin(Prepares)
prepares_hastily = Plugin(PreparesHastily)
snapshot_leaves_out = Plugin(SnapshotLeavesOut)
snapshot_lives = Plugin(SnapshotLives)
raises = Plugin(Raises)
depends_on_batches = Plugin(DependsOnBatches)
one_result_too_few = Plugin(OneResultTooFew)
query_changes_state = Plugin(QueryChangesState)
is_full = Plugin(IsFull)
text_in_snapshot = Plugin(TextInSnapshot)
unable = Unable()
draws_text = DrawsText(Guests)
