"""Memberships that may not follow each other in a log are found, whoever has written them."""

from __future__ import annotations

import dataclasses

import pytest
from core_text import append_entries, make_log, make_server, membership

from txraft.core.errors import InvariantBroken
from txraft.core.invariants import ClusterInvariants
from txraft.core.log import EntryKind
from txraft.core.membership import Membership
from txraft.core.membership_rules import broken_by, broken_by_leader, no_configurations


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        # Joint, then the new voters alone.
        ("1,2,3<1,4,5", "1,2,3", None),
        ("1,2,3<1,4,5", "1,2,3<1,4,5", "in force that is so already"),
        ("1,2,3<1,2,4", "1,2,3/4", "in the midst of another"),
        ("1,2<1,2,3", "1,2->1,2,4", "in the midst of another"),
        ("1,2<1,2,3", "1,2,4<1,2", "in the midst of another"),
        # Caught up, or given up.
        ("1,2,3->1,2,4", "1,2,4<1,2,3", None),
        ("1,2,3->1,2,4", "1,2,3", None),
        ("1,2,3->1,2,4", "1,2,3->1,2,5", "in the midst of another"),
        ("1,2,3->1,2,4", "1,2,5<1,2,3", "in the midst of another"),
        ("1,2,3", "1,2,3/4", None),
        ("1,2,3", "1,4,5", "decide apart"),
    ],
)
def test_a_change_is_brought_to_its_end_before_another(before, after, rule):
    """M02, M03, M20."""
    assert (rule or "") in (broken_by(membership(before), membership(after)) or "")
    assert (rule is None) is (broken_by(membership(before), membership(after)) is None)


@pytest.mark.parametrize(
    ("log", "commit_index", "rule"),
    [
        # In term 2 nothing is committed yet.
        ("1:{1,2,3} 1:a 2:- 2:{1,2<1,2,3}", 2, "before the leader has committed anything"),
        ("1:{1,2,3} 1:a 2:- 2:{1,2<1,2,3}", 3, None),
        # A learner alone takes one step, and the next must wait for it.
        ("1:{1,2,3} 2:- 2:{1,2,3/4} 2:{1,2<1,2,3/4}", 2, "before the last one is committed"),
        ("1:{1,2,3} 2:- 2:{1,2,3/4} 2:{1,2<1,2,3/4}", 3, None),
    ],
)
def test_a_leader_changes_nothing_before_what_is_behind_it_is_committed(log, commit_index, rule):
    """M01, M02."""
    entries, found = make_log(log), no_configurations()
    for index in range(1, entries.last_index + 1):
        if entries.kind(index) is EntryKind.CONFIGURATION:
            found.append((index, Membership.decode(entries.command(index))))
    broken = broken_by_leader(entries, commit_index, 2, found)
    assert (rule or "") in (broken or "")
    assert (rule is None) is (broken is None)


def test_what_is_only_written_down_of_the_members_may_be_so_at_any_time():
    before = membership("1,2,3")
    after = dataclasses.replace(before, incarnations=(("1", 7),))
    assert broken_by(before, after) is None
    assert broken_by_leader(make_log("1:{1,2,3} 2:-"), 0, 2, [(1, before), (2, after)]) is None


def test_a_server_that_goes_by_another_membership_than_its_logs_newest_would_be_found():
    """M04, M05."""
    follower = make_server(term=1, voters="1,2,3")
    follower.step("2", append_entries(1, "1@1", "1:{1,2}"))
    follower.memberships.truncate(1)
    with pytest.raises(InvariantBroken, match="goes by another membership"):
        ClusterInvariants().check({"1": follower})
