"""One server of a simulated cluster: what lasts, and what a process brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from txraft.node import RaftNode
from txraft.testing.clock import ProcessClock
from txraft.testing.disk import FakeDisk
from txraft.testing.network import SimulatedTransport
from txraft.testing.witness import Witness
from txraft.testing.writer import FakeWriter

CLUSTER_ID = "simulated"


@attrs.define
class Server:
    """
    One server: its disk outlives the processes, everything else is the current process's.

    `disk_seconds` is called for each write and says how long it takes, `snapshot_seconds` how much longer if it is a
    snapshot's, as if those were larger; `chunk_seconds` is how long a chunk of one takes to make; `clock_rate` is how
    fast its clock runs, from the next start on; `apply_seconds` is how long the process is busy with each call of the
    machine's `apply`; `node` is None while no process runs. `is_renewed`: it has been given an empty disk for good, and
    its configuration names no founders any more. `own_disk` is None unless another disk is in the server's place; see
    `put_in`.
    """

    server_id: str
    disk: FakeDisk
    disk_seconds: Callable[[], float]
    snapshot_seconds: Callable[[], float] = lambda: 0.0
    chunk_seconds: float = 0.0
    clock_rate: float = 1.0
    apply_seconds: float = 0.0
    own_disk: FakeDisk | None = None
    cluster_id: str = CLUSTER_ID
    is_renewed: bool = False
    node: RaftNode | None = None
    machine: Any = None
    witness: Witness | None = None
    transport: SimulatedTransport | None = None
    writer: FakeWriter | None = None
    snapshot_writer: FakeWriter | None = None
    clock: ProcessClock | None = None

    def seconds_for_snapshot(self) -> float:
        """How long a write of a snapshot takes."""
        return self.disk_seconds() + self.snapshot_seconds()

    def be_busy(self, seconds: float) -> None:
        """A process that computes hears nothing, as if it were paused, and sees that time has passed."""
        if seconds and self.clock is not None:
            self.clock.be_busy(seconds)
