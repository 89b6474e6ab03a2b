"""
A leader's part in changing who is in the cluster, and who leads it.

How far a change has come is read from the membership in force, which is in the log; what is remembered here, rounds of
catching up and a hand-over, may be lost with the leadership: the next leader begins them again.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING

from txraft.core import change as changes
from txraft.core import cluster_id
from txraft.core.change import Change, ChangeRefused, ChangeUnderWay, TooEarly
from txraft.core.membership import Membership
from txraft.core.messages import TimeoutNow
from txraft.core.progress import Progress, ReplicationState
from txraft.core.sending import ATTEMPTS

if TYPE_CHECKING:
    from txraft.core.leader import Leader
    from txraft.core.raft import Raft

PATIENCE = 10
"""A new server that gets nowhere for this many election timeouts is given up."""

NO_ROOM = 10
"""Each time that a leader has refused commands for this many election timeouts, it asks another to lead."""

FAREWELL = 4
"""For this many election timeouts those who are no members any more are told so."""


class CatchUp:
    """
    One new server on its way, in rounds: each brings it to where the log ended when the round began. Thesis §4.2.1.

    It has caught up after a round that took less than an election timeout.
    """

    def __init__(self, last_index: int) -> None:
        self.round = 1
        self.goal_index = last_index
        self.is_done = False
        self._ticks = 0
        self._idle_ticks = 0
        self._match_index = 0

    def tick(self, is_idle: bool) -> None:
        self._ticks += 1
        self._idle_ticks = self._idle_ticks + 1 if is_idle else 0

    def advance(self, match_index: int, last_index: int, election_ticks: int) -> None:
        """The server has everything up to `match_index`; the leader's log ends at `last_index`."""
        if match_index > self._match_index:
            self._match_index, self._idle_ticks = match_index, 0
        # Heard from at all: an empty log is no proof that somebody is there.
        if match_index >= self.goal_index and match_index > 0:
            self.is_done |= self._ticks < election_ticks
            # Who waits for others keeps up, and begins no round that could be one too many.
            self.round += not self.is_done
            self.goal_index, self._ticks = last_index, 0

    def problem(self, rounds: int, election_ticks: int, lost_snapshots: int) -> str | None:
        """Why this leads nowhere; None as long as it may."""
        if lost_snapshots >= ATTEMPTS:
            return "no snapshot reaches it"
        if self._idle_ticks >= PATIENCE * election_ticks:
            return (
                f"it has nothing new for {PATIENCE} election timeouts: entry {self._match_index} of {self.goal_index}"
            )
        if self.round > rounds:
            return f"it is too slow: after {rounds} rounds it is still behind"
        return None


class Reconfiguration:
    """
    :ivar failure: why the last change that this leader gave up was given up; it waited for `given_up` then.
    :ivar catching_up: by server id.
    :ivar has_room: whether commands are taken; the owner says so.
    :ivar departing: ticks for which each server that is no member any more is still told of it.
    """

    def __init__(self, raft: Raft) -> None:
        self.failure: str | None = None
        self.given_up = ""
        self.catching_up: dict[str, CatchUp] = {}
        self.departing: dict[str, int] = {}
        self.hand_over_to: str | None = None
        self.has_room = True
        self._raft = raft
        self._full_ticks = 0
        self._hand_over_ticks = 0
        self._is_told = False

    # -- changes

    def begin(self, change: Change) -> None:
        """
        Begin to change the membership, unless it is so already.

        :raises ChangeRefused: says why; nothing was done.
        """
        membership = self.first_step(change)
        if membership is not None:
            self.failure = None
            self._append(membership)

    def first_step(self, change: Change) -> Membership | None:
        """
        The membership with which that change would begin now; None if all is so already. Nothing is done.

        :raises ChangeRefused: says why.
        """
        raft = self._raft
        if raft.log.term(raft.commit_index) != raft.term:
            # Two changes of two leaders might have no server in common: Ongaro, "bug in single-server membership
            # changes", 2015. What is committed of this term is behind every change that was made before it.
            raise TooEarly("this leader has not committed anything yet; ask again")
        if self.hand_over_to is not None:
            raise ChangeUnderWay(f"the leadership is being handed over to {self.hand_over_to}")
        if raft.memberships.at(raft.commit_index).roles != raft.membership.roles and not raft.membership.is_changing:
            raise TooEarly("the last change of the membership is not committed yet")
        return changes.begin(raft.membership, change)

    def _append(self, membership: Membership) -> None:
        self._raft.leader().append_configuration(changes.identified(membership, self._raft.incarnations))

    def identify(self) -> None:
        """
        Write down what has become known of who the members are; and in a new cluster, which one it is.

        Nobody's role changes by this, so it may be done in the midst of a change.
        """
        raft = self._raft
        if not raft.incarnation:
            return
        membership = changes.identified(raft.membership, raft.incarnations)
        if not cluster_id.has_epoch(membership.cluster_id):
            epoch = cluster_id.first_epoch(membership.cluster_id, raft.rng.getrandbits(32))
            membership = dataclasses.replace(membership, cluster_id=epoch)
        if membership != raft.membership:
            self._append(membership)

    def take_over(self, progress: dict[str, Progress]) -> None:
        """A leadership begins: go on with what the last one had begun."""
        memberships = self._raft.memberships
        for server_id in memberships.at(memberships.current_index - 1).members:
            if server_id != self._raft.server_id:
                progress.setdefault(server_id, Progress(self._raft.log.last_index + 1))
        self.membership_changed(progress)
        self.identify()

    def membership_changed(self, progress: dict[str, Progress]) -> None:
        """Bring `progress` into line with the membership in force."""
        raft = self._raft
        membership = raft.membership
        members = {*membership.members} - {raft.server_id}
        for server_id in members & self.departing.keys():
            # Added again it may come with an empty disk: what is known of the one that left says nothing of it.
            del self.departing[server_id], progress[server_id]
        for server_id in sorted(members - progress.keys()):
            progress[server_id] = Progress(raft.log.last_index + 1)
        for server_id in progress.keys() - members - self.departing.keys():
            self.departing[server_id] = FAREWELL * raft.settings.max_election_ticks
        newcomers = {*changes.newcomers(membership)} - {raft.server_id}
        self.catching_up = {
            server_id: self.catching_up.get(server_id) or CatchUp(raft.log.last_index)
            for server_id in sorted(newcomers)
        }

    def remind(self, server_id: str, progress: dict[str, Progress]) -> None:
        """A server that is no member asks for votes: it has not heard that it was removed."""
        progress[server_id] = Progress(self._raft.log.last_index + 1)
        self.departing[server_id] = FAREWELL * self._raft.settings.max_election_ticks

    def tick(self, progress: dict[str, Progress]) -> None:
        """One tick has passed."""
        for server_id, catch_up in self.catching_up.items():
            # A snapshot may take longer than entries; whether anything comes of it, its sender sees.
            catch_up.tick(is_idle=progress[server_id].state is not ReplicationState.SNAPSHOT)
        for server_id in list(self.departing):
            self.departing[server_id] -= 1
            if self.departing[server_id] <= 0:
                del self.departing[server_id], progress[server_id]
        self._tick_hand_over()
        self._full_ticks = 0 if self.has_room else self._full_ticks + 1
        if self._full_ticks >= NO_ROOM * self._raft.settings.max_election_ticks:
            self._full_ticks = 0
            self._yield(progress)

    def advance(self, leader: Leader) -> None:
        """Take the next step of a change, if the one before it is committed."""
        raft = self._raft
        membership = raft.membership
        if raft.commit_index < raft.memberships.current_index or raft.log.term(raft.commit_index) != raft.term:
            return
        if membership.outgoing:
            self._append(changes.settled(membership))
        elif membership.next_voters:
            self._advance_catching_up(leader.progress)
        elif not membership.is_voter(raft.server_id):
            self._resign(leader)

    def _advance_catching_up(self, progress: dict[str, Progress]) -> None:
        raft = self._raft
        election_ticks = raft.settings.max_election_ticks
        for server_id, catch_up in self.catching_up.items():
            catch_up.advance(progress[server_id].match_index, raft.log.last_index, election_ticks)
        slow = [server_id for server_id, catch_up in self.catching_up.items() if not catch_up.is_done]
        for server_id in slow:
            lost_snapshots = progress[server_id].lost_snapshots
            problem = self.catching_up[server_id].problem(raft.settings.catch_up_rounds, election_ticks, lost_snapshots)
            if problem is not None:
                self.failure, self.given_up = f"{server_id} could not catch up: {problem}", server_id
                self._append(changes.abandoned(raft.membership))
                return
        if not slow:
            self._append(changes.joint(raft.membership))

    # -- handing over

    def hand_over(self, server_id: str) -> None:
        """
        Let a voter lead: bring it level, then tell it. Thesis §3.10.

        :raises ChangeRefused: it cannot lead, or another hand-over or change is under way; says why.
        """
        raft = self._raft
        membership = raft.membership
        if server_id not in membership.members:
            raise ChangeRefused(f"{server_id} is no member of this cluster")
        if server_id not in membership.voters or (membership.outgoing and server_id not in membership.outgoing):
            raise ChangeRefused(f"{server_id} is no voter")
        if self.hand_over_to not in (None, server_id):
            raise ChangeUnderWay(f"the leadership is being handed over to {self.hand_over_to}")
        if self.hand_over_to is None and server_id != raft.server_id:
            self.hand_over_to, self._hand_over_ticks, self._is_told = server_id, 0, False

    def _tick_hand_over(self) -> None:
        if self.hand_over_to is not None:
            self._hand_over_ticks += 1
            if self._hand_over_ticks >= self._raft.settings.max_election_ticks:
                self.hand_over_to = None
                self._raft.has_news = True

    def tell_when_level(self, progress: dict[str, Progress]) -> None:
        """Tell the one that is to lead, once it has everything."""
        raft, server_id = self._raft, self.hand_over_to
        if server_id is None or self._is_told:
            return
        if server_id not in progress or not raft.membership.is_voter(server_id):
            self.hand_over_to = None
        elif progress[server_id].match_index == raft.log.last_index:
            self._is_told = True
            raft.send(server_id, TimeoutNow(raft.term))

    def _yield(self, progress: dict[str, Progress]) -> None:
        """What keeps this server from having room may keep no other."""
        election_ticks = self._raft.settings.max_election_ticks
        heir = self._heir({each: it for each, it in progress.items() if it.silent_ticks < election_ticks})
        if heir is not None:
            with suppress(ChangeRefused):
                self.hand_over(heir)

    def _resign(self, leader: Leader) -> None:
        """The change that removed this server is committed: another goes on at once."""
        heir = self._heir(leader.progress)
        assert heir is not None, self._raft.membership
        self._raft.send(heir, TimeoutNow(self._raft.term))
        leader.step_down()

    def _heir(self, progress: dict[str, Progress]) -> str | None:
        """Of the other voters the one that has most."""
        voters = [server_id for server_id in self._raft.membership.voters if server_id in progress]
        return max(voters, key=lambda server_id: progress[server_id].match_index, default=None)
