"""Watches the servers of a simulated cluster, and counts what they reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import attrs
from twisted.python.failure import Failure

from txraft.core.follower import Follower
from txraft.core.invariants import require
from txraft.core.leader import Leader
from txraft.core.messages import AppendEntries, Message
from txraft.core.progress import ReplicationState
from txraft.core.raft import Raft
from txraft.core.ready import Persist, Ready
from txraft.core.reconfiguration import PATIENCE
from txraft.core.role import Role
from txraft.core.snapshot import SnapshotMeta
from txraft.sessions import CARRY_OUT, Key, SessionCommand
from txraft.testing.cluster import Cluster
from txraft.testing.coverage import situations, snapshots
from txraft.testing.coverage.cells import cells_of
from txraft.testing.coverage.step import Step
from txraft.testing.disk import FakeDisk
from txraft.testing.server import Server


@attrs.define
class Past:
    """
    What the earlier processes of a server have done: their votes by term, and the last one's commit index.

    `incarnation` is the data directory that they had; what has another one has no past.

    `cut_index` is where the log ended when a torn tail was cut, the last time; None if that never happened.
    """

    incarnation: int
    votes: dict[int, str] = attrs.field(factory=dict)
    commit_index: int = 0
    cut_index: int | None = None
    writes: int = 0
    """Calls of the disk's `pwrite` when the last process ended."""


class Coverage:
    """
    The counters of one run.

    :ivar cluster: the cluster that is watched, from the next start of each server on.
    :ivar last_led_term: the highest term that had a leader.
    :ivar committed_index: the highest that any server knew before the message that is looked at.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.last_led_term = 0
        self.committed_index = 0
        self._cells: Counter[str] = Counter()
        self._rows: set[str] = set()
        self._candidates: dict[int, str] = {}
        self._pasts: dict[str, Past] = {}
        self._watches: dict[str, Watch] = {}
        cluster.on_start = self._started
        cluster.on_crash = self._crashes

    def reached(
        self, faults: Mapping[str, int], outcomes: Mapping[str, int], rows: Iterable[str] = ()
    ) -> dict[str, int]:
        """
        By name, see `EVERYTHING`: how often each cell was reached, and 1 for each row.

        @param faults: how often each was done in this run.
        @param outcomes: how often clients were told each.
        @param rows: whose situations somebody else has seen.
        """
        seen = self._rows.union(rows, situations.of_run(faults, outcomes))
        return dict(sorted((self._cells + Counter(seen)).items()))

    def note(self, rows: Iterator[str]) -> None:
        """The situations of these rows have happened."""
        self._rows.update(rows)

    def note_step(self, step: Step) -> None:
        """A server has dealt with a message."""
        try:
            for name in cells_of(step):
                self._cells[name] += 1
        except KeyError as error:
            require(False, "an outcome that the table calls impossible", error.args[0], step.raft.server_id)
        self._rows.update(situations.of_step(step))
        self.committed_index = max(self.committed_index, step.raft.commit_index)

    def note_candidate(self, term: int, server_id: str) -> None:
        """A server asks for votes in `term`."""
        if self._candidates.setdefault(term, server_id) != server_id:
            self._rows.add("E10")

    def note_leader(self, term: int) -> None:
        """Somebody has been elected in `term`."""
        self.last_led_term = max(self.last_led_term, term)
        for watch in self._watches.values():
            is_asleep = watch.server.clock is not None and watch.server.clock.is_paused
            watch.has_overslept |= is_asleep and isinstance(watch.raft.role, Leader) and watch.raft.term < term

    def _started(self, server: Server) -> None:
        assert server.node is not None and server.node.raft is not None, server.server_id
        incarnation, past = server.node.raft.incarnation, self._pasts.get(server.server_id)
        if past is None or past.incarnation != incarnation:
            past = self._pasts[server.server_id] = Past(incarnation)
        watch = self._watches[server.server_id] = Watch(self, server, past)
        is_cut = 0 < past.writes < server.disk.calls["pwrite"] and self._ends_with_zeros(server.disk)
        self.note(situations.of_start(watch, is_cut))
        if is_cut:
            past.cut_index = watch.raft.log.last_index

    @staticmethod
    def _ends_with_zeros(disk: FakeDisk) -> bool:
        """Whether zeros were written to the log last: only the cut of a torn tail does that."""
        path = max(path for path in disk.file_names() if path.startswith("/data/raft.log.0"))
        return not any(disk.last_write(path)[1])

    def _crashes(self, server: Server) -> None:
        watch = self._watches.pop(server.server_id)
        self.note(situations.of_crash(watch))
        past = watch.past
        past.votes.update(watch.votes)
        past.commit_index = watch.raft.commit_index
        past.writes = server.disk.calls["pwrite"]


class Watch:
    """
    One process of a server.

    :ivar led_terms: the terms in which this process has led.
    :ivar votes: whom it has voted for, by term.
    :ivar spoken_to: the following during which somebody spoke whom it did not follow, since its timer began.
    :ivar has_overslept: it was a leader, and paused, when another was elected.
    :ivar installs: how many snapshots of others have taken the place of its log.
    :ivar writing: the write that is under way; `is_replacing` if it replaces entries that were written before.
    """

    def __init__(self, coverage: Coverage, server: Server, past: Past) -> None:
        assert server.node is not None and server.node.raft is not None, server.server_id
        self.coverage = coverage
        self.server = server
        self.past = past
        self.raft: Raft = server.node.raft
        self.led_terms: set[int] = set()
        self.votes: dict[int, str] = {}
        self.spoken_to: Role | None = None
        self.has_overslept = False
        self.writing: Persist | None = None
        self.installs = 0
        self.is_replacing = False
        self._written_index = self.raft.log.durable_index
        self._hand_over_ticks = 0
        self._silent_ticks: Counter[str] = Counter()
        self._step: Step | None = None
        self._carried_out: set[tuple[Key, int]] = set()
        """Commands in sessions, in the current leadership if there is one."""
        self._hook()

    def _hook(self) -> None:
        """Put this object between the server and its core."""
        raft, log = self.raft, self.raft.log
        self._replace(raft, "step", self._on_step)
        self._replace(raft, "send", self._on_send)
        self._replace(raft, "ready", self._on_ready)
        self._replace(raft, "request_read", self._on_request_read)
        self._replace(raft, "become_pre_candidate", self._on_pre_candidacy)
        self._replace(raft, "become_candidate", self._on_candidacy)
        self._replace(raft, "become_leader", self._on_leadership)
        self._replace(raft, "become_follower", self._on_following)
        self._replace(log, "made_durable", self._on_made_durable)
        self._replace(raft.snapshots, "install", self._on_install)
        assert self.server.node is not None, self.server.server_id
        self._replace(self.server.node.sessions, "admit", self._on_admit)

    @staticmethod
    def _replace(owner: object, name: str, hook: Callable[..., Any]) -> None:
        setattr(owner, name, partial(hook, getattr(owner, name)))

    def _on_step(self, inner: Callable[[str, Message], None], sender: str, message: Message) -> None:
        outer, self._step = self._step, Step(self, sender, message)
        try:
            inner(sender, message)
            self._note_step(self._step)
        finally:
            self._step = outer

    def _note_step(self, step: Step) -> None:
        raft, role = self.raft, self.raft.role
        self.coverage.note_step(step)
        if raft.voted_for is not None and raft.voted_for != step.voted_for:
            self.votes[raft.term] = raft.voted_for
        if isinstance(role, Follower):
            if role.elapsed_ticks == 0:
                self.spoken_to = None
            elif not isinstance(step.message, AppendEntries) or step.message.term < raft.term:
                self.spoken_to = role

    def _on_send(self, inner: Callable[[str, Message], None], receiver: str, message: Message) -> None:
        if self._step is not None:
            self._step.answers.append(message)
        inner(receiver, message)

    def _on_ready(self, inner: Callable[[], Ready]) -> Ready:
        ready, coverage = inner(), self.coverage
        coverage.committed_index = max(coverage.committed_index, self.raft.commit_index)
        # Most are empty, and there are many.
        if ready.reads or ready.dropped_reads or self.server.apply_seconds:
            coverage.note(situations.of_ready(self, ready))
        if ready.persist is not None:
            self.writing, runs = ready.persist, ready.persist.runs
            self.is_replacing = bool(runs) and runs[0].first_index <= self._written_index
            self._written_index = ready.persist.last_index
        return ready

    def _on_request_read(self, inner: Callable[[int], None], read_id: int) -> None:
        inner(read_id)
        self.coverage.note(situations.of_read(self))

    def _on_made_durable(self, inner: Callable[[int, int], None], last_index: int, last_term: int) -> None:
        self.writing = None
        self.coverage.note(situations.of_written(self, last_index, last_term))
        inner(last_index, last_term)

    def _on_install(self, inner: Callable[[SnapshotMeta], bool], meta: SnapshotMeta) -> bool:
        self.coverage.note(snapshots.of_install(self, meta))
        is_installed = inner(meta)
        self.installs += is_installed
        return is_installed

    def _on_admit(self, inner: Callable[[SessionCommand], object], entry: SessionCommand) -> object:
        outcome, command = inner(entry), (entry.session, entry.sequence)
        if outcome is CARRY_OUT:
            self._carried_out.add(command)
        elif not isinstance(outcome, Failure):
            is_before = isinstance(self.raft.role, Leader) and command not in self._carried_out
            self.coverage.note(iter(("C07", "C14") if is_before else ("C07",)))
        return outcome

    def _on_pre_candidacy(self, inner: Callable[[], None]) -> None:
        self._require_may_stand()
        self.coverage.note(situations.of_pre_candidacy(self))
        inner()

    def _on_candidacy(self, inner: Callable[[bool], None], told_by_leader: bool = False) -> None:
        self._require_may_stand()
        inner(told_by_leader)
        self.votes[self.raft.term] = self.raft.server_id
        self.coverage.note_candidate(self.raft.term, self.raft.server_id)

    def _require_may_stand(self) -> None:
        """M09: a voter, as far as it knows, of what is committed or of what may be yet. Thesis §4.2.2, §4.2.3."""
        raft = self.raft
        is_voter = any(membership.is_voter(raft.server_id) for membership in raft.memberships.since(raft.commit_index))
        require(is_voter, "who is no voter stands for election", raft.server_id, raft.commit_index, raft.membership)

    def _on_leadership(self, inner: Callable[[], None]) -> None:
        self.coverage.note(situations.of_leadership(self))
        inner()
        if isinstance(self.raft.role, Leader):
            self._hand_over_ticks = 0
            self._silent_ticks.clear()
            self._replace(self.raft.role.reconfiguration, "tick", partial(self._on_leader_tick, self.raft.role))
        self.led_terms.add(self.raft.term)
        self._carried_out.clear()
        self.coverage.note_leader(self.raft.term)

    def _on_leader_tick(self, role: Leader, inner: Callable[..., None], progress: object) -> None:
        inner(progress)
        self._require_hand_over_ends(role)
        if role.reconfiguration.catching_up:
            self._require_silent_are_given_up(role)
        else:
            self._silent_ticks.clear()

    def _require_hand_over_ends(self, role: Leader) -> None:
        """E17: while a leader hands over it takes nothing, so it goes on after an election timeout. Thesis §3.10."""
        heir = role.reconfiguration.hand_over_to
        self._hand_over_ticks = 0 if heir is None else self._hand_over_ticks + 1
        is_over = self._hand_over_ticks <= self.raft.settings.max_election_ticks
        require(is_over, "a hand-over has no end", self.raft.server_id, heir, self._hand_over_ticks)

    def _require_silent_are_given_up(self, role: Leader) -> None:
        """M13: no change waits for ever for a new server that nobody hears; a snapshot may take longer."""
        raft, election_ticks = self.raft, self.raft.settings.max_election_ticks
        is_waiting = raft.commit_index >= raft.memberships.current_index
        for server_id in role.reconfiguration.catching_up:
            peer = role.progress[server_id]
            is_silent = peer.silent_ticks >= election_ticks and peer.state is not ReplicationState.SNAPSHOT
            count = self._silent_ticks[server_id] + 1 if is_waiting and is_silent else 0
            self._silent_ticks[server_id] = count
            is_patient = count <= (PATIENCE + 1) * election_ticks
            require(is_patient, "a change waits for ever for a new server", raft.server_id, server_id, count)

    def _on_following(self, inner: Callable[[int, str | None], None], term: int, leader_id: str | None) -> None:
        self.coverage.note(situations.of_following(self, term))
        inner(term, leader_id)
