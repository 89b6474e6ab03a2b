"""What the simulation knows of a snapshot that is being received: each check notices what it is for. S06."""

from __future__ import annotations

from typing import Any

import pytest

from txraft.core.errors import InvariantBroken
from txraft.interfaces import Snapshot
from txraft.node.receiving import Incoming
from txraft.testing.cluster import Cluster
from txraft.testing.disk import FakeDisk
from txraft.testing.network import Network
from txraft.testing.snapshot_faults import SNAPSHOTS

DATA = b"x" * 100


def offered() -> tuple[Cluster, Snapshot, Any]:
    """A cluster whose leader has a snapshot, and another server's snapshot store."""
    cluster = Cluster()
    cluster.start()
    leader = cluster.elect()
    for number in range(100):
        leader.propose(b"%d" % number)
    taken: list[Any] = []
    cluster.run(0.5)
    leader.take_snapshot().addBoth(taken.append)
    assert cluster.run_until(lambda: bool(taken))
    other = next(node for node in cluster.running() if node is not leader)
    return cluster, taken[0], other.snapshots._store


def receive(cluster: Cluster, store: Any, offer: Snapshot) -> Any:
    received: list[Any] = []
    store.receive(offer).addBoth(received.append)
    assert cluster.run_until(lambda: bool(received))
    return received[0]


def part(offer: Snapshot) -> str:
    """Where what has come of it is."""
    meta = offer.meta
    return f"{SNAPSHOTS}/{meta.last_index:020d}-{meta.last_term:020d}-{offer.size}-{offer.digest.hex()}.part"


def test_what_has_come_of_a_snapshot_is_there_the_next_time():
    cluster, offer, store = offered()
    first = receive(cluster, store, offer)
    first.append(0, DATA)
    first.close()
    assert receive(cluster, store, offer).offset == len(DATA)


def test_bytes_of_another_snapshot_are_noticed():
    cluster, offer, store = offered()
    store._disk.write_file(part(offer), DATA)
    with pytest.raises(InvariantBroken, match="more is here of a snapshot than came"):
        receive(cluster, store, offer)


def test_beginning_anew_is_noticed(monkeypatch):
    cluster, offer, store = offered()
    first = receive(cluster, store, offer)
    first.append(0, DATA)
    first.close()
    cluster.run(0.1)
    monkeypatch.setattr(FakeDisk, "size", lambda self, handle: 0)
    with pytest.raises(InvariantBroken, match="what is here of a snapshot is to come again"):
        receive(cluster, store, offer)


def test_bytes_for_one_whose_place_is_taken_are_noticed():
    cluster, offer, store = offered()
    first = receive(cluster, store, offer)
    receive(cluster, store, offer)
    with pytest.raises(InvariantBroken, match="bytes for a snapshot whose place is taken"):
        first.append(0, DATA)


def test_what_is_under_way_on_a_connection_that_is_lost_comes_after_the_next_one_has_begun(monkeypatch):
    """The receiver refuses it, and has all of the snapshot soon."""
    monkeypatch.setattr(Network, "unnoticed", lambda self: 0.3)
    cluster = Cluster()
    cluster.start()
    leader = cluster.elect()
    away = next(node for node in cluster.running() if node is not leader)
    cluster.network.partition(
        [away.settings.server_id], [other for other in cluster.ids if other != away.settings.server_id]
    )
    for number in range(1000):
        leader.propose(b"%d" % number)
    cluster.run(0.5)
    taken = leader.take_snapshot()
    assert cluster.run_until(lambda: bool(taken.called))
    cluster.run(0.1)
    seen: list[bool] = []
    require_open = Incoming._require_open

    def note(incoming: Incoming) -> None:
        seen.append(incoming._is_open)
        if len(seen) == 3:
            # The answer takes 20 ms, and then the next bytes as long.
            cluster.clock.callLater(0.035, cluster.network.reset)
        require_open(incoming)

    monkeypatch.setattr(Incoming, "_require_open", note)
    reach = cluster.network.delay
    monkeypatch.setattr(cluster.network, "delay", lambda: 0.02 + reach())
    cluster.network.heal()
    assert cluster.run_until(lambda: away.raft.applied_index == leader.raft.applied_index, 20)
    assert away.status().snapshots.received == 1
    assert False in seen
