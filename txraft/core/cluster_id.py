"""
What a cluster is called: a name that its founders are given, and an epoch that nobody can know beforehand.

An epoch, `NAME.NUMBER.RANDOM`, begins with the cluster's first leader, and another whenever what is left of a cluster
is made one again by hand (`raftctl recover`). A server keeps the epoch that it has been part of. So two clusters that
were founded under one name never mix, nor does what a recovery has left behind; and a founder whose disk was wiped,
which knows the name only, is told from a member.
"""

from __future__ import annotations

import re
from functools import lru_cache

_EPOCH = re.compile(r"(.*)\.(\d+)\.[0-9a-f]{8}", re.DOTALL)


@lru_cache(maxsize=64)
def _parsed(cluster_id: str) -> re.Match[str] | None:
    """Remembered, as every turn of a server asks."""
    return _EPOCH.fullmatch(cluster_id)


def name_of(cluster_id: str) -> str:
    """The name, which is all that raft.conf says."""
    found = _parsed(cluster_id)
    return found[1] if found else cluster_id


def has_epoch(cluster_id: str) -> bool:
    """Whether it says more than the name."""
    return _parsed(cluster_id) is not None


def recoveries(cluster_id: str) -> int:
    """How often the cluster was recovered before this epoch; 0 if no epoch is named."""
    found = _parsed(cluster_id)
    return int(found[2]) if found else 0


def first_epoch(name: str, random_bits: int) -> str:
    """The cluster id of a new cluster. Of `random_bits` 32 are used."""
    return f"{name}.0.{random_bits & 0xFFFFFFFF:08x}"


def next_epoch(cluster_id: str, random_bits: int) -> str:
    """The cluster id of what is left of a cluster."""
    return f"{name_of(cluster_id)}.{recoveries(cluster_id) + 1}.{random_bits & 0xFFFFFFFF:08x}"


def may_be_one(cluster_id: str, other_id: str) -> bool:
    """Whether these can be one cluster, as far as each of them says what it is."""
    if not cluster_id or not other_id:
        return True
    if has_epoch(cluster_id) and has_epoch(other_id):
        return cluster_id == other_id
    return name_of(cluster_id) == name_of(other_id)
