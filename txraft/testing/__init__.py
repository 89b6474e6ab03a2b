"""Public test tools: a whole cluster in memory, on one simulated clock, for txraft itself and for your own machines."""

from txraft.testing.cluster import Cluster
from txraft.testing.disk import FakeDisk
from txraft.testing.network import NetworkFaults
from txraft.testing.recording import RecordingMachine
from txraft.testing.replicas import MachineBroken, StateDiverged
from txraft.testing.running import replay, simulate

__all__ = [
    "Cluster",
    "FakeDisk",
    "MachineBroken",
    "NetworkFaults",
    "RecordingMachine",
    "StateDiverged",
    "replay",
    "simulate",
]
