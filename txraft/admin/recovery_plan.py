"""
What is left of a cluster that has lost its quorum, on one server's disk, and how that becomes a cluster of its own.

The new cluster begins with a membership behind everything that the disk holds, in a term of its own, which also names
a new epoch of the cluster: whoever belongs to the old one is refused from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.core.cluster_id import next_epoch, recoveries
from txraft.core.log import EntryKind, EntryRun
from txraft.core.membership import NOBODY, Membership, MembershipHistory
from txraft.core.messages import HardState
from txraft.interfaces import Identity, Recovered
from txraft.storage.store import LogStore


class CannotRecover(Exception):
    """There is nothing to recover here, or not like this; the text says why. Nothing was changed."""


@attrs.frozen
class Remains:
    """
    What a server's disk holds. `committed_index` is known to be committed, whatever else is.

    A server writes down what it knows of that with the next entries, so it says nothing of the last ones. Of a change
    of the membership, a second entry proves that the first one was committed; and of what a snapshot holds, all is.
    """

    identity: Identity
    hard_state: HardState
    last_index: int
    last_term: int
    last_time_ms: int
    membership: Membership
    membership_index: int
    committed_index: int


def remains_of(recovered: Recovered) -> Remains:
    """
    What was found on a disk.

    @raise ValueError: an entry that should be a membership is none.
    """
    history, first_index = MembershipHistory(), 1
    meta = recovered.snapshot.meta if recovered.snapshot is not None else None
    last_index = meta.last_index if meta is not None else 0
    committed_index = max(last_index, recovered.commit_index)
    last_term, last_time_ms = (meta.last_term, meta.time_ms) if meta is not None else (0, 0)
    if meta is not None and meta.membership_index:
        history.append(meta.membership_index, Membership.decode(meta.membership))
        first_index = meta.membership_index + 1
    for run in recovered.runs:
        if run.last_index >= last_index:
            last_index, last_term, last_time_ms = run.last_index, run.term, run.time_ms
        for index, data in enumerate(run.commands, run.first_index):
            if run.kind is EntryKind.CONFIGURATION and index >= first_index:
                before, before_index = history.current, history.current_index
                history.append(index, Membership.decode(data))
                if before.is_changing and before.roles != history.current.roles:
                    committed_index = max(committed_index, before_index)
    return Remains(
        recovered.identity,
        recovered.hard_state,
        last_index,
        last_term,
        last_time_ms,
        history.current,
        history.current_index,
        min(committed_index, last_index),
    )


@attrs.frozen
class RecoveryPlan:
    """What is written: `entry` behind all else on the disk, and the term and the cluster id that go with it."""

    remains: Remains
    membership: Membership
    entry: EntryRun
    hard_state: HardState

    @property
    def is_done(self) -> bool:
        """There is nothing to be written: what is on the disk is such a cluster already."""
        old, me = self.remains.membership, self.remains.identity
        is_alone = old.voters == (me.server_id,)
        is_recovered = recoveries(me.cluster_id) > 0 and old.is_voter(me.server_id)
        is_cut_short = recoveries(me.cluster_id) < recoveries(old.cluster_id)
        is_wanted = old.wanted_voters == self.membership.wanted_voters
        return is_wanted and not is_cut_short and (is_alone or is_recovered)


def plan_recovery(remains: Remains, voters: Sequence[str], random_bits: int) -> RecoveryPlan:
    """
    A cluster of this server, which asks the other `voters` in as soon as it leads; of this server alone if there are
    none. So nobody counts before it has all that is here.

    @param random_bits: 32 of them make the new epoch one that nobody else chooses.
    @raise CannotRecover: this server has never been part of a cluster, or is not to be part of the new one.
    """
    identity, old = remains.identity, remains.membership
    if old == NOBODY:
        raise CannotRecover(f"{identity.server_id} has never been a member of a cluster: nothing of one is left here")
    wanted = tuple(sorted({*voters})) or (identity.server_id,)
    if identity.server_id not in wanted:
        raise CannotRecover(f"{identity.server_id} must be one of the members: nobody else has what is on its disk")
    new = Membership(
        next_epoch(max(identity.cluster_id, old.cluster_id, key=recoveries), random_bits),
        (identity.server_id,),
        next_voters=wanted if len(wanted) > 1 else (),
        incarnations=((identity.server_id, identity.incarnation),),
        addresses=tuple((server_id, address) for server_id, address in old.addresses if server_id in wanted),
    )
    term = max(remains.hard_state.term, remains.last_term) + 1
    kind = EntryKind.CONFIGURATION
    entry = EntryRun(remains.last_index + 1, term, kind, remains.last_time_ms, [new.encode()])
    return RecoveryPlan(remains, new, entry, HardState(term, identity.server_id))


def carry_out(plan: RecoveryPlan, store: LogStore) -> None:
    """
    Write it to the store, which is open and whose writer writes at once.

    The entry is what counts. A crash before it leaves the server as it was, with a higher term; one behind it leaves a
    server that has become the new cluster, and will write down which one that is when it starts.

    @raise StorageError: the disk fails; what was there is there.
    """
    _wait(store.write(plan.hard_state, []))
    _wait(store.write(None, [plan.entry]))
    _wait(store.join(plan.membership.cluster_id))


def _wait(done: Deferred[None]) -> None:
    failures: list[Failure] = []
    done.addErrback(failures.append)
    if failures:
        failures[0].raiseException()
