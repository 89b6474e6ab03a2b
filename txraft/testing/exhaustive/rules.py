"""The invariants of a run, asked about one step of a search: what a run would remember comes with the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from txraft.core.invariants import ClusterInvariants, _Seen, check_server, require
from txraft.core.leader import Leader
from txraft.core.log import EntryRun
from txraft.core.messages import HardState
from txraft.core.raft import Raft


class StepInvariants(ClusterInvariants):
    """
    The same rules as in a run, with a memory that is loaded instead of gathered.

    :ivar leaders: who led which term, up to now.
    :ivar committed: the terms of all that was ever committed, by index.
    """

    def __init__(self, leaders: Sequence[tuple[int, str]] = (), committed: Sequence[int] = (0,)) -> None:
        super().__init__()
        self._leaders = dict(leaders)
        self._committed = list(committed)

    @property
    def leaders(self) -> tuple[tuple[int, str], ...]:
        return tuple(sorted(self._leaders.items()))

    @property
    def committed(self) -> tuple[int, ...]:
        return tuple(self._committed)

    def check_change(self, before: Raft, after: Raft, is_restarted: bool) -> None:
        """What one server must hold on its way from `before` to `after`, whatever the others do."""
        seen = self._seen[after.server_id] = _Seen()
        for raft in (before, after):
            if raft is after and not is_restarted:
                self._continue(seen, before, after)
            check_server(raft)
            self._check_restart(seen, raft)
            self._check_votes(seen, raft)
            self._check_log(seen, raft)

    @staticmethod
    def _continue(seen: _Seen, before: Raft, after: Raft) -> None:
        """The same process, and perhaps the same leadership, although a search has new objects after every step."""
        seen.raft = after
        is_same = isinstance(before.role, Leader) and isinstance(after.role, Leader) and before.term == after.term
        seen.role = after.role if is_same else None

    def check_step(self, rafts: Mapping[str, Raft], before: Raft | None = None) -> None:
        """
        What all servers must hold together, after one of them, which has not crashed, was as in `before`.

        Adds to `leaders` and `committed`. None: this is asked only of the state as it is.
        """
        for server_id, raft in rafts.items():
            seen = self._seen[server_id] = _Seen()
            if before is not None and before.server_id == server_id:
                self._continue(seen, before, raft)
                seen.commit_index = before.commit_index
            else:
                seen.raft, seen.role = raft, raft.role
        self._term = None
        self.check(rafts)

    def _check_elected(self, raft: Raft) -> None:
        """Not asked here: a step does not know who voted in a term that some have left since."""


def check_disk(raft: Raft, hard_state: HardState, runs: Sequence[EntryRun]) -> None:
    """What a server takes to be durable is on its disk, where each of `runs` is one entry, from index 1."""
    require(raft.durable_state == hard_state, "takes a vote to be durable", raft.server_id, raft.durable_state)
    terms = [run.term for run in runs[: raft.log.durable_index]]
    believed = [raft.log.term(index) for index in range(1, raft.log.durable_index + 1)]
    require(terms == believed, "takes entries to be durable", raft.server_id, raft.log.durable_index, believed, terms)
