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

AMBUSHES = (
    ("new-leader", "cut"),
    ("new-leader", "cut"),
    ("new-leader", "mute"),
    ("new-leader", "kill"),
    ("new-candidate", "cut"),
    ("new-candidate", "sleep"),
    ("new-pre-candidate", "stall"),
)
"""Who is waited for, and what happens to it; see `Faults.do_ambush`."""

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


@attrs.frozen
class Profile:
    """
    How a run is drawn: its length, how often something happens, and the share of each kind (weights).

    `requests_per_s` and `faults_per_s` are means; requests come in bursts of up to `burst`.
    """

    seconds: float = 12.0
    servers: tuple[int, ...] = (3, 3, 3, 5)
    requests_per_s: float = 40.0
    burst: int = 6
    faults_per_s: float = 14.0
    ambushes: tuple[tuple[str, str], ...] = AMBUSHES
    at_leader: float = 0.3
    """The share of faults that are aimed at whoever leads."""
    weights: tuple[tuple[str, int], ...] = (
        ("crash", 2),
        ("start", 6),
        ("crash-all", 1),
        ("bounce", 3),
        ("halt", 2),
        ("isolate", 1),
        ("blip", 4),
        ("bridge", 1),
        ("ring", 1),
        ("cut", 2),
        ("heal", 6),
        ("reset", 2),
        ("replay", 4),
        ("network", 4),
        ("disk", 5),
        ("fail-disk", 3),
        ("pause", 1),
        ("resume", 3),
        ("hiccup", 4),
        ("strand", 2),
        ("clock", 1),
        ("slow-apply", 2),
        ("stumble", 1),
        ("fill-disk", 1),
        ("rot", 2),
        ("lose-write", 2),
        ("lose-segment", 1),
        ("wipe", 2),
        ("clone", 2),
        ("wrong-cluster", 2),
    )


PROFILES = {
    "standard": Profile(),
    "crashes": Profile(
        weights=(
            ("crash", 4),
            ("start", 8),
            ("crash-all", 1),
            ("bounce", 8),
            ("halt", 8),
            ("disk", 6),
            ("fail-disk", 6),
            ("rot", 3),
            ("stumble", 4),
            ("fill-disk", 2),
            ("lose-write", 4),
            ("lose-segment", 3),
            ("slow-apply", 1),
            ("blip", 2),
            ("strand", 1),
            ("heal", 1),
        ),
    ),
    "partitions": Profile(
        faults_per_s=20.0,
        weights=(
            ("isolate", 2),
            ("blip", 6),
            ("bridge", 2),
            ("ring", 1),
            ("cut", 4),
            ("heal", 7),
            ("network", 3),
            ("replay", 3),
            ("reset", 2),
            ("strand", 2),
            ("resume", 2),
        ),
    ),
    "late": Profile(
        servers=(3, 5),
        requests_per_s=10.0,
        faults_per_s=10.0,
        weights=(
            ("replay", 12),
            ("network", 3),
            ("strand", 2),
            ("resume", 2),
            ("isolate", 2),
            ("cut", 2),
            ("heal", 5),
            ("disk", 1),
        ),
    ),
    "calm": Profile(faults_per_s=0.5, requests_per_s=220.0),
    # All is well until the ending: a leader that works meets what only some of the others can bear.
    "short": Profile(
        seconds=2.0,
        servers=(5,),
        faults_per_s=1.0,
        weights=(("disk", 2), ("network", 1), ("hiccup", 1)),
    ),
    # Leaders come and go, and each leaves a tail of its own in the log of a few.
    "elections": Profile(
        servers=(3, 5, 5),
        faults_per_s=20.0,
        at_leader=0.7,
        weights=(
            ("blip", 5),
            ("ambush", 8),
            ("usurp", 4),
            ("oversleep", 3),
            ("cut", 3),
            ("heal", 5),
            ("bounce", 5),
            ("hiccup", 5),
            ("disk", 3),
            ("network", 2),
            ("replay", 2),
        ),
    ),
    # Much is under way at once, and arrives late, twice, in another order, or not at all.
    "traffic": Profile(
        seconds=8.0,
        requests_per_s=120.0,
        at_leader=0.5,
        weights=(
            ("network", 8),
            ("replay", 8),
            ("reset", 4),
            ("hiccup", 6),
            ("blip", 4),
            ("disk", 4),
            ("slow-apply", 3),
        ),
    ),
    # Little goes wrong, but each time at the worst moment: see the paper's Figure 8.
    "ambushes": Profile(
        seconds=6.0,
        servers=(3, 5),
        requests_per_s=60.0,
        faults_per_s=3.0,
        at_leader=1.0,
        ambushes=(("new-leader", "cut"), ("new-leader", "cut"), ("new-candidate", "cut")),
        weights=(("ambush", 3), ("hiccup", 2)),
    ),
    # Others in a server's place, of whom those who have just started may know nothing.
    "strangers": Profile(
        seconds=6.0,
        servers=(3,),
        weights=(
            ("wrong-cluster", 6),
            ("wipe", 3),
            ("clone", 1),
            ("crash", 4),
            ("start", 3),
            ("bounce", 6),
            ("isolate", 3),
            ("heal", 3),
        ),
    ),
    "disks": Profile(
        faults_per_s=20.0,
        at_leader=0.5,
        weights=(
            ("disk", 14),
            ("hiccup", 6),
            ("blip", 5),
            ("bounce", 4),
            ("halt", 5),
            ("fail-disk", 5),
            ("slow-apply", 3),
        ),
    ),
    # Records of several sectors, and a crash within many of them.
    "one": Profile(
        servers=(1,),
        requests_per_s=60.0,
        burst=30,
        weights=(
            ("bounce", 6),
            ("halt", 10),
            ("stumble", 3),
            ("disk", 4),
            ("fail-disk", 3),
            ("hiccup", 2),
            ("slow-apply", 2),
        ),
    ),
}


DrawRequest = Callable[[random.Random], tuple[str, ...]]


ALL = "all"
"""In a profile's place: seeds take the profiles in turn."""


def profile_of(seed: int, profile: str = ALL) -> str:
    """The name of the profile that a seed runs under."""
    return sorted(PROFILES)[seed % len(PROFILES)] if profile == ALL else profile


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
            # There may be two that say they lead.
            where = f"leader-{rng.randrange(2)}" if rng.random() < 0.85 else f"any-{rng.randrange(5)}"
            yield Action(at_ms, "client", (where, *draw_request(rng)))


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
        case "clock":
            return (who, rng.choice(("0.8", "1.0", "1.25")))
        case "slow-apply":
            return (who, rng.choice(("0", "0", "5", "100", "500")))
        case "strand":
            return (rng.choice(("pause", "stall", "cut")),)
        case "heal" | "reset" | "replay":
            return ()
        case _:
            return (who,)


def _mostly(rng: random.Random, names: Iterable[str], best: str) -> str:
    """One of the names; half of the time the best, or clients would get no answers at all."""
    return best if rng.random() < 0.5 else rng.choice(sorted(names))
