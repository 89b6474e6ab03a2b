"""How a sort of simulated runs is described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    limits: Mapping[str, Any] = {}
    """What the settings of its servers are, whatever else was drawn; see `NodeSettings`."""
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
