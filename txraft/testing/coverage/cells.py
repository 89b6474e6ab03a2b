"""
Role × message × outcome: which combinations there are, why the others cannot be, and which ones a message had.

A message is counted with the role that dealt with it. One of a higher term makes any server a follower first: that is
an outcome of the role before, and what the new follower does with a request is a follower's.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from txraft.core.follower import Follower
from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from txraft.core.progress import ReplicationState
from txraft.testing.coverage.step import Step

ROLES = ("follower", "pre-candidate", "candidate", "leader")

_COUNTED = ("counted", "repeated", "won", "lost")
_LEADER_IS_ALIVE = "refused: a leader is alive"
_TOLD = "term raised: the leader that is alive has told it to"
_LOG_IS_BEHIND = "refused: its log is behind"

OUTCOMES = {
    "PreVote": ("granted", "refused: its term is not new", _LEADER_IS_ALIVE, _LOG_IS_BEHIND),
    "PreVoteResponse": ("term raised", "ignored", "of another round", *_COUNTED),
    "RequestVote": (
        "outdated",
        "ignored: a leader is alive",
        "term raised",
        _TOLD,
        "granted",
        "granted again",
        "refused: the vote is given",
        "refused: the term has a leader",
        _LOG_IS_BEHIND,
    ),
    "RequestVoteResponse": ("outdated", "term raised", "ignored", *_COUNTED),
    "AppendEntries": (
        "outdated",
        "term raised",
        "from the one elected",
        "refused: a gap",
        "refused: another term there",
        "appended",
        "replaced",
        "had it already",
        "heartbeat",
    ),
    "AppendEntriesResponse": (
        "outdated",
        "term raised",
        "ignored",
        "backed up",
        "old refusal",
        "committed",
        "matched",
        "confirmed a round",
        "nothing new",
    ),
    "TimeoutNow": ("outdated", "ignored", "stands"),
}
"""By message: all that can become of it at any server."""

_NOT_ASKED = "it has asked for no such vote"
_LEADS = "a leader hears a leader: itself, and it was elected by a newer log"
_OWN_VOTE = "its vote of this term is its own, which is looked at first"
_ONE_LEADER = "a term has one leader"
_NO_LEADER = "it knows of no leader"
_FOLLOWS = "it is a follower before it looks at the log"
_LED_BY_NOBODY = "it has sent no entries that this could answer"
_HAS_ANSWERED = "who is told has answered that leader, as its follower, in that term"

IMPOSSIBLE: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("follower", "PreVoteResponse"): {_NOT_ASKED: ("of another round", *_COUNTED)},
    ("follower", "RequestVoteResponse"): {_NOT_ASKED: _COUNTED},
    ("follower", "AppendEntries"): {"it follows, elected or not": ("from the one elected",)},
    ("follower", "AppendEntriesResponse"): {_LED_BY_NOBODY: OUTCOMES["AppendEntriesResponse"][3:]},
    ("pre-candidate", "PreVote"): {_NO_LEADER: (_LEADER_IS_ALIVE,)},
    ("pre-candidate", "PreVoteResponse"): {"it waits for them": ("ignored",)},
    ("pre-candidate", "RequestVote"): {
        _NO_LEADER: ("ignored: a leader is alive", _TOLD, "refused: the term has a leader"),
    },
    ("pre-candidate", "RequestVoteResponse"): {_NOT_ASKED: _COUNTED},
    ("pre-candidate", "AppendEntries"): {_FOLLOWS: OUTCOMES["AppendEntries"][3:]},
    ("pre-candidate", "AppendEntriesResponse"): {_LED_BY_NOBODY: OUTCOMES["AppendEntriesResponse"][3:]},
    ("candidate", "PreVote"): {_NO_LEADER: (_LEADER_IS_ALIVE,)},
    ("candidate", "PreVoteResponse"): {_NOT_ASKED: ("of another round", *_COUNTED)},
    ("candidate", "RequestVote"): {
        _NO_LEADER: ("ignored: a leader is alive", _TOLD, "refused: the term has a leader"),
        _OWN_VOTE: ("granted", "granted again", _LOG_IS_BEHIND),
    },
    ("candidate", "RequestVoteResponse"): {"it waits for them": ("ignored",)},
    ("candidate", "AppendEntries"): {_FOLLOWS: OUTCOMES["AppendEntries"][3:]},
    ("candidate", "AppendEntriesResponse"): {_LED_BY_NOBODY: OUTCOMES["AppendEntriesResponse"][3:]},
    ("leader", "PreVote"): {_LEADS: ("granted", _LOG_IS_BEHIND)},
    ("leader", "PreVoteResponse"): {_NOT_ASKED: ("of another round", *_COUNTED)},
    ("leader", "RequestVote"): {
        _LEADS: ("term raised",),
        _OWN_VOTE: ("granted", "granted again", "refused: the term has a leader", _LOG_IS_BEHIND),
    },
    ("leader", "RequestVoteResponse"): {_NOT_ASKED: _COUNTED},
    ("leader", "AppendEntries"): {_ONE_LEADER: OUTCOMES["AppendEntries"][2:]},
    ("pre-candidate", "TimeoutNow"): {"it stands already": ("stands",)},
    ("candidate", "TimeoutNow"): {_HAS_ANSWERED: ("ignored", "stands")},
    ("leader", "TimeoutNow"): {_HAS_ANSWERED: ("ignored", "stands")},
}
"""By role and message: what is left out of the table, under the reason for it."""


@attrs.frozen
class Cell:
    """One combination."""

    role: str
    message: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.role} {self.message}: {self.outcome}"


def _cells() -> Iterator[Cell]:
    for role in ROLES:
        for message, outcomes in OUTCOMES.items():
            impossible = {name for names in IMPOSSIBLE.get((role, message), {}).values() for name in names}
            yield from (Cell(role, message, outcome) for outcome in outcomes if outcome not in impossible)


CELLS = tuple(_cells())

_BY_NAMES = {(cell.role, cell.message, cell.outcome): str(cell) for cell in CELLS}


def cells_of(step: Step) -> list[str]:
    """
    What a message that has been dealt with counts as: one cell, or two if it has made the server a follower.

    :raises KeyError: a combination that the table calls impossible.
    """
    message = type(step.message).__name__
    if step.has_raised_term:
        is_told = isinstance(step.message, RequestVote) and step.message.told_by_leader and step.heard_leader
        names = [_BY_NAMES[step.role.name, message, _TOLD if is_told else "term raised"]]
        if message in ("RequestVote", "AppendEntries"):
            names.append(_BY_NAMES["follower", message, _OUTCOME_OF[message](step)])
        return names
    return [_BY_NAMES[step.role.name, message, _outcome(step, message)]]


def _outcome(step: Step, message: str) -> str:
    is_vote_ahead = message.startswith("PreVote")
    if step.message.term < step.term and not is_vote_ahead:
        # Paper, Figure 2, AppendEntries receiver, step 1: a leader of the past must learn that it is one.
        is_told = message != "AppendEntries" or bool(step.answers)
        return "outdated" if is_told else "outdated, and not told"
    if step.message.term > step.term and not is_vote_ahead:
        return "ignored: a leader is alive"
    return _OUTCOME_OF[message](step)


def _of_pre_vote(step: Step) -> str:
    message = step.message
    assert isinstance(message, PreVote)
    if any(isinstance(answer, PreVoteResponse) and answer.granted for answer in step.answers):
        return "granted"
    if message.term <= step.term:
        return "refused: its term is not new"
    return _LEADER_IS_ALIVE if step.heard_leader else _of_refused_log(step, message)


def _of_refused_log(step: Step, message: PreVote | RequestVote) -> str:
    """
    Nothing else speaks against a vote: who the voter takes for a member, itself among them, does not matter, as it may
    lack the newest entries. Paper, Figure 2, RequestVote receiver; thesis §4.1.
    """
    is_behind = (message.last_log_term, message.last_log_index) < (step.last_term, step.last_index)
    # What the data directory that has the server's name has promised, this one does not know.
    return _LOG_IS_BEHIND if is_behind or step.raft.is_disowned else "refused without a reason"


def _of_pre_vote_response(step: Step) -> str:
    message = step.message
    assert isinstance(message, PreVoteResponse)
    if step.role.name != "pre-candidate":
        return "ignored"
    return _of_vote(step) if message.round == step.raft.pre_vote_round else "of another round"


def _of_request_vote_response(step: Step) -> str:
    return _of_vote(step) if step.role.name == "candidate" else "ignored"


def _of_vote(step: Step) -> str:
    if step.raft.role is not step.role:
        return "lost" if isinstance(step.raft.role, Follower) else "won"
    return "repeated" if step.has_voted else "counted"


def _of_request_vote(step: Step) -> str:
    assert isinstance(step.message, RequestVote)
    voted_for, leader_id = (None, None) if step.has_raised_term else (step.voted_for, step.leader_id)
    if any(isinstance(answer, RequestVoteResponse) and answer.granted for answer in step.answers):
        return "granted again" if voted_for == step.sender else "granted"
    if voted_for not in (None, step.sender):
        return "refused: the vote is given"
    if voted_for is None and leader_id is not None:
        return "refused: the term has a leader"
    return _of_refused_log(step, step.message)


def _of_append_entries(step: Step) -> str:
    message, log = step.message, step.raft.log
    assert isinstance(message, AppendEntries)
    if step.role.name != "follower" and not step.has_raised_term:
        return "from the one elected"
    if step.has_refused:
        return "refused: a gap" if message.prev_log_index > step.last_index else "refused: another term there"
    # Two logs that have the same entry at one index are the same before it.
    if log.term(step.last_index) != step.last_term:
        return "replaced"
    if log.last_index > step.last_index:
        return "appended"
    return "had it already" if message.entries else "heartbeat"


def _of_append_entries_response(step: Step) -> str:
    message, before = step.message, step.progress
    assert isinstance(message, AppendEntriesResponse)
    if before is None:
        return "ignored"
    now = before.now
    if message.refused:
        has_begun_probing = now.state is ReplicationState.PROBE and not before.is_probing
        return "backed up" if has_begun_probing or now.next_index < before.next_index else "old refusal"
    if step.raft.commit_index > step.commit_index:
        return "committed"
    if now.match_index > before.match_index:
        return "matched"
    return "confirmed a round" if now.confirmed_round > before.confirmed_round else "nothing new"


def _of_timeout_now(step: Step) -> str:
    assert isinstance(step.message, TimeoutNow)
    if step.raft.role is step.role:
        return "ignored"
    return "stands" if step.leader_id == step.sender else "stands, told by somebody that it does not follow"


_OUTCOME_OF = {
    "PreVote": _of_pre_vote,
    "PreVoteResponse": _of_pre_vote_response,
    "RequestVote": _of_request_vote,
    "RequestVoteResponse": _of_request_vote_response,
    "AppendEntries": _of_append_entries,
    "AppendEntriesResponse": _of_append_entries_response,
    "TimeoutNow": _of_timeout_now,
}
