"""A server's first moment: the core as its disk left it, or the first entry of a new cluster."""

from __future__ import annotations

import random

from txraft.core.log import Log
from txraft.core.membership import Membership
from txraft.core.raft import Raft
from txraft.core.settings import RaftSettings
from txraft.errors import StorageError
from txraft.interfaces import Recovered
from txraft.node.settings import NodeSettings


def raft_from_disk(settings: NodeSettings, core: RaftSettings, rng: random.Random, recovered: Recovered) -> Raft:
    """
    The core with the recovered log, all of it durable. An empty log gets the first entry, if there is a `bootstrap`.

    :raises StorageError: log, term and vote do not belong together.
    """
    snapshot = recovered.snapshot.meta if recovered.snapshot is not None else None
    is_at_base = snapshot is not None and snapshot.last_index == recovered.base_index
    log = Log(recovered.base_index, recovered.base_term, snapshot.time_ms if snapshot and is_at_base else 0)
    for run in recovered.runs:
        log.extend(run)
    log.take_unwritten()
    log.made_durable(log.last_index, log.last_term)
    term = recovered.hard_state.term
    if term < log.last_term:
        raise StorageError(
            f"the log has entries of term {log.last_term}, but the stored term is {term}: the file with both is "
            f"older than the log. Restore it, or move the data directory away and add this server to the cluster again"
        )
    if settings.bootstrap and log.last_index == 0 and term > 1:
        # The first entry is on disk before any term but its own.
        raise StorageError(
            f"the log is empty, but the stored term is {term}: entries are lost that others may rely on. Restore the "
            f"log, or move the data directory away and add this server to the cluster again"
        )
    raft = Raft(settings.server_id, core, rng, recovered.hard_state, log, snapshot)
    raft.incarnation, raft.is_founder = recovered.identity.incarnation, bool(settings.bootstrap)
    if settings.bootstrap and log.last_index == 0:
        raft.bootstrap(Membership(settings.cluster_id, tuple(sorted(settings.bootstrap))))
    return raft
