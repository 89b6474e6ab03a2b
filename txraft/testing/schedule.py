"""
What a simulated run does, as a list: faults and clients' requests with their times, drawn before it begins.

A schedule is text, one action a line: the time in ms, what is done, and to whom. So a failing run can be cut down to
the few lines that matter, kept in a file, and read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import attrs

from txraft.testing.network import NetworkFaults
from txraft.testing.profile import Profile

NETWORKS = {
    "good": NetworkFaults(),
    "lossy": NetworkFaults(drop=0.1, duplicate=0.1, max_delay_s=0.005, reorders=True),
    "terrible": NetworkFaults(drop=0.3, duplicate=0.2, max_delay_s=0.05, reorders=True),
    "slow": NetworkFaults(min_delay_s=0.02, max_delay_s=0.1),
    # Most frames are quick, and some are as late as an election timeout or two.
    "heavy": NetworkFaults(max_delay_s=0.002, late=0.05, max_late_s=0.4, reorders=True),
    # Nothing is lost, and of much that is under way the last may come first.
    "shuffled": NetworkFaults(max_delay_s=0.03, reorders=True),
}
"""What a network can be like, by the name that a schedule uses."""

DISKS = {"fast": 0.001, "slow": 0.05, "crawling": 0.4, "stalled": 3.0, "dead": 1e6}
"""The longest time that a write takes, in seconds."""

KEEPS = ("some", "none", "all")
"""What a crash leaves of what was not synced; see `FakeDisk.crash`."""

ROLES = ("leader", "follower")
"""What a schedule may say in a server's place: who leads when it is done, or one of those that do not."""


@attrs.frozen
class Action:
    """At `at_ms`, do `kind` with `words`. `str` and `parse` are each other's inverse."""

    at_ms: int
    kind: str
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([str(self.at_ms), self.kind, *self.words])

    @classmethod
    def parse(cls, line: str) -> Action:
        """
        The action that a line of text says.

        :raises ValueError: it says none.
        """
        at_ms, kind, *words = line.split()
        return cls(int(at_ms), kind, tuple(words))


def parse_schedule(text: str) -> list[Action]:
    """The actions of a text; empty lines and `#` comments are skipped."""
    lines = (line.strip() for line in text.splitlines())
    return [Action.parse(line) for line in lines if line and not line.startswith("#")]


DrawRequest = Callable[[random.Random], tuple[str, ...]]


def draw(rng: random.Random, profile: Profile, ids: Sequence[str], draw_request: DrawRequest) -> list[Action]:
    """
    A schedule for these servers: sorted by time, and different for each state of `rng`.

    @param draw_request: the words of a client's request.
    """
    end_ms = int(profile.seconds * 1000)
    actions = [*_draw_requests(rng, profile, end_ms, draw_request), *_draw_faults(rng, profile, end_ms, ids)]
    return sorted(actions, key=lambda action: action.at_ms)


def _times(rng: random.Random, per_s: float, end_ms: int) -> Iterable[int]:
    at_ms = 0.0
    while (at_ms := at_ms + rng.expovariate(per_s) * 1000) < end_ms:
        yield int(at_ms)


def _draw_requests(rng: random.Random, profile: Profile, end_ms: int, draw_request: DrawRequest) -> Iterable[Action]:
    for at_ms in _times(rng, profile.requests_per_s / (profile.burst / 2 + 0.5), end_ms):
        for _ in range(rng.randint(1, profile.burst)):
            yield Action(at_ms, "client", (_draw_asked(rng), *draw_request(rng)))


def _draw_asked(rng: random.Random) -> str:
    """Whom somebody asks: there may be two that say they lead."""
    return f"leader-{rng.randrange(2)}" if rng.random() < 0.85 else f"any-{rng.randrange(5)}"


def _draw_faults(rng: random.Random, profile: Profile, end_ms: int, ids: Sequence[str]) -> Iterable[Action]:
    kinds, weights = zip(*profile.weights, strict=True)
    for at_ms in _times(rng, profile.faults_per_s, end_ms):
        kind = rng.choices(kinds, weights)[0]
        who = rng.choice(ids) if rng.random() >= profile.at_leader else rng.choices(ROLES, (3, 1))[0]
        yield Action(at_ms, kind, _draw_words(rng, profile, kind, who, ids))


def _draw_words(rng: random.Random, profile: Profile, kind: str, who: str, ids: Sequence[str]) -> tuple[str, ...]:
    # As often short as long: an election timeout is anything from 50 ms to 2 s.
    length_ms = str(int(10 ** rng.uniform(1.3, 3.0)))
    match kind:
        case "crash":
            return (who, rng.choice(KEEPS))
        case "crash-all":
            return (rng.choice(KEEPS),)
        case "bounce":
            return (who, rng.choice(KEEPS), length_ms)
        case "halt":
            return (who, rng.choice(KEEPS), str(rng.randint(1, 12)))
        case "stumble":
            return (who, rng.choice(KEEPS), str(rng.randint(1, 40)))
        case "blip":
            return (who, rng.choice(("both", "out", "in")), length_ms)
        case "hiccup" | "oversleep" | "fill-disk":
            return (who, length_ms)
        case "usurp":
            return (length_ms,)
        case "ambush":
            return (*rng.choice(profile.ambushes), length_ms, str(rng.randint(1, 3)))
        case "cut" | "clone":
            return (who, rng.choice(ids)) if rng.random() < 0.5 else (rng.choice(ids), who)
        case "network":
            return (_mostly(rng, NETWORKS, "good"),)
        case "disk":
            return (who, _mostly(rng, DISKS, "fast"))
        case "fail-disk":
            return (who, rng.choice(("pwrite", "fdatasync", "fsync", "rename")), rng.choice(("EIO", "ENOSPC")))
        case "slow-snapshots" | "fail-snapshot" | "halt-snapshot" | "garble":
            return (who, *_draw_of_snapshots(rng, kind))
        case "change":
            return (_draw_asked(rng), *_draw_change(rng, ids))
        case "transfer" | "renew":
            return (_draw_asked(rng), rng.choice(ids))
        case "clock":
            return (who, rng.choice(("0.8", "1.0", "1.25")))
        case "slow-apply":
            return (who, rng.choice(("0", "0", "5", "100", "500")))
        case "lag":
            return (who, str(int(10 ** rng.uniform(2.3, 3.3))))
        case "overtake":
            return rng.choice((("cut", "3"), ("bounce", "1.3"), ("bounce", "1.3"), ("bounce", "1.6"), ("wait", "10")))
        case "strand":
            return (rng.choice(("pause", "stall", "cut")),)
        case "heal" | "reset" | "replay":
            return ()
        case _:
            return (who,)


def _draw_of_snapshots(rng: random.Random, kind: str) -> tuple[str, ...]:
    match kind:
        case "slow-snapshots":
            return (rng.choice(("0", "1", "5", "20", "100")),)
        case "fail-snapshot":
            call = rng.choice(("create", "pwrite", "pread", "fsync", "rename", "fsync_directory", "readdir", "unlink"))
            return (call, rng.choice(("EIO", "ENOSPC")), str(rng.randint(1, 3)))
        case "halt-snapshot":
            return (rng.choice(KEEPS), str(rng.randint(1, 12)))
        case _:
            return (str(rng.randrange(1 << 16)), str(rng.randint(1, 12)))


def _draw_change(rng: random.Random, ids: Sequence[str]) -> tuple[str, ...]:
    """
    Mostly one server or two, and more come than go, or one that has moved; now and then what nobody should ask for.

    See `parse_change`.
    """
    named = rng.sample(ids, min(len(ids), rng.choice((1, 1, 1, 2, 2, 3))))
    change = tuple(rng.choices("+-~", (5, 3, 1))[0] + server_id for server_id in named)
    server_id, other_id = rng.choice(ids), rng.choice(ids)
    moved = f"@{server_id}={server_id}/{rng.randint(1, 3)}"
    kinds = ("change", "move", "both", "all go", "twice", "of another", "nothing")
    match rng.choices(kinds, (84, 6, 4, 3, 1, 1, 1))[0]:
        case "move":
            return (moved,)
        case "both":
            return (*change, moved)
        case "all go":
            return tuple(f"-{server_id}" for server_id in ids)
        case "twice":
            return (*change, *change)
        case "of another":
            # At the address that this one moves to: of one that is no member yet nobody could know that it will be its.
            return (moved, moved.replace(f"@{server_id}", f"@{other_id}"))
        case "nothing":
            return ()
        case _:
            return change


def _mostly(rng: random.Random, names: Iterable[str], best: str) -> str:
    """One of the names; half of the time the best, or clients would get no answers at all."""
    return best if rng.random() < 0.5 else rng.choice(sorted(names))
