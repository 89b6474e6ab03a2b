"""What sorts of simulated runs there are: how long, how many servers, and what happens to them how often."""

from __future__ import annotations

import attrs

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


@attrs.frozen
class Profile:
    """
    How a run is drawn: its length, how often something happens, and the share of each kind (weights).

    `spares` are servers that belong to no cluster until they are asked in.

    `requests_per_s` and `faults_per_s` are means; requests come in bursts of up to `burst`.
    """

    seconds: float = 12.0
    servers: tuple[int, ...] = (3, 3, 3, 5)
    spares: tuple[int, ...] = (0,)
    requests_per_s: float = 40.0
    burst: int = 6
    has_sessions: bool = False
    """Whether clients have sessions, in which they propose again what they have no answer to."""
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
        ("snapshot", 4),
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
    # Servers come, go and are handed the leadership while everything else fails.
    "members": Profile(
        servers=(1, 2, 3, 3, 5),
        spares=(1, 2, 3),
        weights=(
            ("change", 12),
            ("transfer", 5),
            ("crash", 2),
            ("start", 3),
            ("crash-all", 1),
            ("bounce", 3),
            ("halt", 2),
            ("isolate", 2),
            ("blip", 5),
            ("cut", 1),
            ("heal", 5),
            ("reset", 1),
            ("replay", 2),
            ("network", 2),
            ("disk", 3),
            ("fail-disk", 1),
            ("resume", 2),
            ("hiccup", 3),
            ("strand", 1),
            ("slow-apply", 1),
            ("rot", 1),
            ("lose-write", 1),
            ("wipe", 1),
            ("clone", 1),
            ("wrong-cluster", 1),
        ),
    ),
    # Whoever leads leaves, again and again, and at that moment it alone knows.
    "removals": Profile(
        servers=(1, 2, 2, 3),
        spares=(1, 2),
        requests_per_s=60.0,
        faults_per_s=12.0,
        at_leader=0.5,
        ambushes=(("new-membership", "cut"), ("new-membership", "mute"), ("new-membership", "kill")),
        weights=(
            ("change", 14),
            ("renew", 4),
            ("ambush", 6),
            ("transfer", 2),
            ("bounce", 3),
            ("blip", 3),
            ("hiccup", 3),
            ("disk", 2),
            ("heal", 2),
            ("network", 1),
            ("snapshot", 1),
        ),
    ),
    # A leader has the time to see what becomes of those who are asked in, and who may not even be there.
    "newcomers": Profile(
        servers=(1, 3),
        spares=(2,),
        faults_per_s=1.5,
        weights=(("change", 6), ("crash", 2), ("start", 1), ("disk", 2), ("blip", 2), ("network", 1), ("heal", 1)),
    ),
    # The leadership goes round, and who is told to take it dies, is cut off, or hears of it once more, later.
    "handovers": Profile(
        servers=(3, 3, 5),
        spares=(1,),
        faults_per_s=35.0,
        at_leader=0.5,
        ambushes=(("new-pre-candidate", "crown"),),
        weights=(
            ("transfer", 20),
            ("ambush", 10),
            ("change", 3),
            ("replay", 20),
            ("bounce", 14),
            ("hiccup", 5),
            ("blip", 5),
            ("network", 3),
            ("heal", 3),
            ("disk", 2),
            ("reset", 1),
        ),
    ),
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
    # Logs are compacted while others lack what is in them, and whoever takes, sends or installs a snapshot dies.
    "snapshots": Profile(
        servers=(3, 3, 5),
        requests_per_s=60.0,
        at_leader=0.4,
        weights=(
            ("snapshot", 14),
            ("slow-snapshots", 5),
            ("fail-snapshot", 4),
            ("halt-snapshot", 8),
            ("garble", 4),
            ("isolate", 3),
            ("blip", 5),
            ("heal", 7),
            ("bounce", 6),
            ("halt", 8),
            ("crash", 2),
            ("start", 5),
            ("fail-disk", 3),
            ("disk", 4),
            ("network", 3),
            ("replay", 3),
            ("reset", 3),
            ("hiccup", 2),
            ("rot", 3),
            ("lose-write", 1),
            ("strand", 2),
            ("resume", 2),
        ),
    ),
    # Snapshots that take long, and others that lead before they have arrived.
    "laggards": Profile(
        servers=(3, 5, 5),
        spares=(0, 1),
        requests_per_s=80.0,
        faults_per_s=8.0,
        weights=(
            ("lag", 12),
            ("overtake", 10),
            ("slow-snapshots", 5),
            ("snapshot", 2),
            ("blip", 3),
            ("bounce", 3),
            ("halt-snapshot", 3),
            ("garble", 3),
            ("change", 3),
            ("transfer", 3),
            ("reset", 2),
            ("network", 3),
            ("heal", 3),
            ("disk", 1),
        ),
    ),
    # Clients do not know what became of their commands, and propose them again: at servers that have had a snapshot.
    "sessions": Profile(
        seconds=8.0,
        servers=(3, 3, 5),
        requests_per_s=80.0,
        has_sessions=True,
        at_leader=0.5,
        weights=(
            ("snapshot", 8),
            ("bounce", 8),
            ("blip", 8),
            ("usurp", 3),
            ("transfer", 4),
            ("hiccup", 4),
            ("lag", 4),
            ("heal", 6),
            ("isolate", 2),
            ("network", 3),
            ("replay", 2),
            ("disk", 3),
            ("halt", 3),
            ("slow-apply", 2),
            ("crash", 1),
            ("start", 2),
        ),
    ),
    # Records of several sectors, a crash within many of them, and time to write some between two elections.
    "one": Profile(
        servers=(1,),
        requests_per_s=150.0,
        burst=60,
        faults_per_s=6.0,
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


ALL = "all"
"""In a profile's place: seeds take the profiles in turn."""


def profile_of(seed: int, profile: str = ALL) -> str:
    """The name of the profile that a seed runs under."""
    return sorted(PROFILES)[seed % len(PROFILES)] if profile == ALL else profile
