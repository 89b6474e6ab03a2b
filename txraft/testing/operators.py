"""What operators do in a simulated run: they change who is in the cluster, and who leads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from txraft.core.change import Change, ChangeRefused, begin
from txraft.core.invariants import require
from txraft.core.leader import Leader
from txraft.core.membership import Membership
from txraft.core.raft import Raft
from txraft.errors import ChangeFailed
from txraft.node import RaftNode
from txraft.testing.workload import Outcomes

KINDS = ("change", "transfer", "renew")
"""What a schedule says for each thing that an operator can do."""


class Operators:
    """
    Asks servers for changes and hand-overs, and keeps what they answered.

    :ivar outcomes: what became of it, by name, such as `change: done` or `transfer: ChangeFailed`.
    :ivar rows: those of the catalogue whose situation there was when somebody asked.
    """

    def __init__(self) -> None:
        self.outcomes = Outcomes()
        self.rows: set[str] = set()

    def request(self, node: RaftNode, kind: str, *words: str) -> Deferred[bool]:
        """
        Ask a server; fires with whether it was done. `change` is followed by the words of `parse_change`, `transfer` by
        a server's id.
        """
        if kind == "transfer":
            asked = node.transfer_leadership(words[0])
            return asked.addCallbacks(self._done(kind), self._failed(kind))
        change = parse_change(words)
        if node.raft is not None and _misleads(node.raft, change):
            return succeed(False)
        if node.raft is not None:
            self.rows.update(_rows(node.raft, change))
        asked = node.change_membership(change).addCallback(self._check_made, node, change)
        return asked.addCallbacks(self._done(kind), self._failed(kind))

    def _check_made(self, membership: Membership, node: RaftNode, change: Change) -> Membership:
        check_made(membership, node, change)
        if change.addresses:
            self.rows.add("M19")
        return membership

    def _done(self, kind: str) -> Callable[[object], bool]:
        def done(_: object) -> bool:
            self.outcomes.counts[f"{kind}: done"] += 1
            return True

        return done

    def _failed(self, kind: str) -> Callable[[Failure], bool]:
        def failed(failure: Failure) -> bool:
            self.outcomes.failed(failure, f"{kind}: ")
            if isinstance(failure.value, ChangeFailed):
                self.rows.add("M13" if kind == "change" else "E17")
            return False

        return failed


def check_made(membership: Membership, node: RaftNode, change: Change) -> None:
    """:raises InvariantBroken: it was answered that a change is made, and it is not, or may yet be undone."""
    has_come = {*change.voters} <= {*membership.voters} and {*change.learners} <= {*membership.learners}
    is_gone = not {*change.removed} & {*membership.members}
    is_moved = all(membership.address(server_id) == address for server_id, address in change.addresses.items())
    is_over = not membership.is_changing
    require(has_come and is_gone and is_moved and is_over, "a change is not what was asked for", change, membership)
    raft = node.raft
    is_committed = raft is None or raft.memberships.at(raft.commit_index) == membership
    require(is_committed, "a change is called made before it is committed", node.settings.server_id, membership)


def parse_change(words: tuple[str, ...]) -> Change:
    """
    The change that these words ask for: `+s1` a voter, `~s1` a learner, `-s1` no member, `@s1=s1/2` is reached there.

    :raises KeyError: one begins with no known sign.
    """
    named: dict[str, list[str]] = {"+": [], "~": [], "-": [], "@": []}
    for word in words:
        named[word[0]].append(word[1:])
    addresses = {server_id: address for server_id, _, address in (word.partition("=") for word in named["@"])}
    return Change(tuple(named["+"]), tuple(named["~"]), tuple(named["-"]), addresses)


def _misleads(raft: Raft, change: Change) -> bool:
    """Whether a server would be looked for where one is that is no member: nobody refuses that, and it is lost."""
    homes = {address.partition("/")[0] for address in change.addresses.values()} - change.addresses.keys()
    return not homes <= {*raft.membership.members} or bool(homes & {*change.removed})


def _rows(raft: Raft, change: Change) -> Iterator[str]:
    """The rows whose situation it is that a server is asked for this now."""
    if not isinstance(raft.role, Leader):
        return
    if raft.log.term(raft.commit_index) != raft.term:
        yield "M01"
    if raft.membership.is_changing:
        yield "M02"
        return
    try:
        if begin(raft.membership, change) is None:
            yield "M20"
    except ChangeRefused:
        if {*raft.membership.voters} <= {*change.removed}:
            yield "M08"
