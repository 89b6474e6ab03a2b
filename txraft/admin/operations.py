"""
Everything that an operator can ask of a server: the HTTP API and the manhole stand on this, and on nothing else.

Answers are made of dicts, lists, strings, numbers and None, fit for JSON. What goes wrong is an exception of the table
in `problems`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import attrs
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.python.failure import Failure

from txraft.admin.problems import BadRequest
from txraft.core.change import Change
from txraft.core.leader import Leader
from txraft.core.log import EntryKind
from txraft.core.raft import Raft
from txraft.errors import ChangeRefused, SnapshotRefused, Stopped, StorageError
from txraft.interfaces import Snapshot
from txraft.net.addresses import format_address, parse_address
from txraft.node import MemberStatus, RaftNode
from txraft.node.planning import ChangePlan, Constitution, plan_change
from txraft.node.saving import HeldSnapshot

Answer = dict[str, Any]

MAX_PAGE = 1000
"""Entries on one page of the log."""

MAX_PAYLOAD_BYTES = 4096
"""So much of one entry is shown."""


def _cannot_probe(server_id: str, address: str) -> Deferred[str]:
    return succeed("not tried: this server has no way to")


class Operations:
    """One server, as its operators see it. All methods belong to the reactor's thread."""

    def __init__(
        self,
        node: RaftNode,
        probe: Callable[[str, str], Deferred[str]] = _cannot_probe,
        read_server_id: Callable[[str], str] | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param probe: fires with "reachable" for a server id and an address if that server answers there, and can be
            talked to; else with why not, in a few words. Never fails.
        @param read_server_id: makes a server id of what an operator writes, or raises `ValueError`. If None, an id is
            host:port, and a host alone has the port of this server's id.
        """
        self.node = node
        self._probe = probe
        self._read_server_id = read_server_id or self._with_our_port
        self._seconds = seconds
        self._began = seconds()

    # -- looking

    def status(self) -> Answer:
        """What this server is doing; `members` as from `members`, `waiting_for` as from `why`."""
        status = attrs.asdict(self.node.status())
        uptime_s = self._seconds() - self._began
        return status | {
            "members": self.members(),
            "incarnation": self.node.identity.incarnation,
            "uptime_s": uptime_s,
        }

    def members(self) -> list[Answer]:
        """
        The servers of the cluster, as this one knows them; empty if it belongs to none. `is_silent`: it has not been
        heard from for an election timeout, which only a leader notices.
        """
        status = self.node.status()
        return [
            attrs.asdict(member)
            | {"is_leader": member.server_id == status.leader_id, "is_silent": self._is_silent(member)}
            for member in status.members
        ]

    def _is_silent(self, member: MemberStatus) -> bool:
        return (member.silent_s or 0) > self.node.settings.max_election_timeout / 1000

    def why(self) -> list[str]:
        """What this server is waiting for, a sentence each; empty if nothing holds it up."""
        return list(self.node.status().waiting_for)

    def progress(self) -> Answer:
        """
        How far a change has come, as its leader knows it: `catching_up`, a list of servers with `server_id`, `round`,
        `rounds`, `goal_index` and `match_index`; `snapshots`, those on their way from here, as `TransferStatus`; and
        `hand_over_to`, a server id or None. Empty elsewhere.
        """
        status = self.node.status()
        sent = [transfer for transfer in status.snapshots.transfers if transfer.direction == "to"]
        return {
            "leader_id": status.leader_id,
            "catching_up": [attrs.asdict(server) for server in status.catching_up],
            "snapshots": [attrs.asdict(transfer) for transfer in sent],
            "hand_over_to": status.hand_over_to,
        }

    def log(self, first: int | None = None, count: int = 50, payloads: bool = False) -> Answer:
        """
        Up to `count` entries from index `first` on; the last ones if that is None.

        Each has `index`, `term`, `kind`, `time_ms` and `bytes`; with `payloads` also `payload`, the beginning of it as
        text, in which what is no UTF-8 is written as backslash escapes.

        @raise BadRequest: `count` is not from 1 to 1000, or `first` is negative.
        @raise Stopped: the server has not started.
        """
        raft = self._raft()
        if not 1 <= count <= MAX_PAGE:
            raise BadRequest(f"count: expected a number from 1 to {MAX_PAGE}, not {count}")
        if first is not None and first < 0:
            raise BadRequest(f"first: expected an index, not {first}")
        log = raft.log
        begin = max(log.last_index - count + 1 if first is None else first, log.first_index)
        runs = log.runs(begin, min(begin + count, log.last_index + 1)) if begin <= log.last_index else []
        entries = [
            _entry(index, run.term, run.kind, run.time_ms, command, payloads)
            for run in runs
            for index, command in enumerate(run.commands, run.first_index)
        ]
        return {
            "first_index": log.first_index,
            "last_index": log.last_index,
            "commit_index": raft.commit_index,
            "applied_index": raft.applied_index,
            "entries": entries,
        }

    # -- changing

    def change(
        self,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        learners: Iterable[str] = (),
        replace: Mapping[str, str] | None = None,
        move: Mapping[str, str] | None = None,
    ) -> Deferred[Answer]:
        """
        Make the servers `add` voters, `learners` learners, `remove` no members; put new ones in the place of old ones;
        or `move` members, as `move` does.

        Servers are host:port, or a host alone if its port is the one of this server. Fires with `members` once it is
        committed; fails as `RaftNode.change_membership`, or with `BadRequest`.
        """
        change = maybeDeferred(self._read_change, add, remove, learners, replace or {}, move or {})
        return change.addCallback(self.node.change_membership).addCallback(self._changed)

    def move(self, servers: Mapping[str, str]) -> Deferred[Answer]:
        """
        Say where members are that have moved with their data: addresses, host:port, by server id. They stay what they
        are. Fires and fails as `change`.
        """
        return self.change(move=servers)

    def transfer(self, server_id: str) -> Deferred[Answer]:
        """Let another voter lead; fires with `members` once it does. Fails as `RaftNode.transfer_leadership`."""
        target = maybeDeferred(self.server_id, server_id)
        return target.addCallback(self.node.transfer_leadership).addCallback(self._changed)

    def snapshot(self) -> Deferred[Answer]:
        """
        Take a snapshot now, on this server; fires with its `last_index` and its size in `bytes`, once it counts; and
        with the `seconds` that it took and the longest stall, `stall_s`, which are None if it was there already.

        Fails as `RaftNode.take_snapshot`, but with `SnapshotRefused` if it cannot be kept, as that harms nothing.
        """
        before = self.node.status().snapshots.taking.taken
        return self.node.take_snapshot().addCallbacks(self._snapshot, _no_snapshot, (before,))

    def read_index(self) -> Deferred[Answer]:
        """
        Fires with an `index`: the entries up to it hold everything that was acknowledged before the call. Only the
        leader can say that; fails as `RaftNode.read`.
        """
        return self.node.read_many(()).addCallback(lambda _: {"index": self._raft().applied_index})

    def backup(self, at_least: int | None = None) -> Deferred[HeldSnapshot]:
        """
        Take a snapshot now that holds at least everything up to the entry `at_least`, and hold it to be read.

        If that is None: everything that was acknowledged before the call, which only the leader knows. Fails as
        `read_index` then, and as `snapshot`.
        """
        index = self.read_index() if at_least is None else succeed({"index": at_least})
        held: Deferred[Any] = index.addCallback(lambda found: self.node.snapshots.saving.hold(found["index"]))
        return held.addErrback(_no_snapshot)

    def append(self, content: bytes) -> Deferred[Answer]:
        """Propose `content` as a command; fires with `result`, the state machine's as text, once it is applied."""
        return maybeDeferred(self.node.propose, content).addCallback(lambda result: {"result": _text(result)})

    def plan(
        self,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        learners: Iterable[str] = (),
        replace: Mapping[str, str] | None = None,
        move: Mapping[str, str] | None = None,
    ) -> Deferred[Answer]:
        """
        What `change` would lead to; changes nothing. Fires with

        - `before` and `after`: `voters`, `learners`, `quorum`, and how many `failures_survived`;
        - `servers`: those who are no members yet, or move, with `server_id`, `is_reachable` from here, and in `detail`
          why not;
        - `refusal`: why the change would be refused now, or None;
        - `is_quorum_left`: whether enough of the voters after it answer;
        - `notes`: what to think of before doing it, a sentence each.

        Fails with `NotLeader` elsewhere than at the leader, or with `BadRequest`.
        """
        change = maybeDeferred(self._read_change, add, remove, learners, replace or {}, move or {})
        return change.addCallback(self._plan)

    # -- inside

    def _raft(self) -> Raft:
        raft = self.node.raft
        if raft is None:
            raise Stopped("this server is not running")
        return raft

    def _snapshot(self, snapshot: Snapshot, taken_before: int) -> Answer:
        taking = self.node.status().snapshots.taking
        is_new = taking.taken > taken_before
        return {
            "last_index": snapshot.meta.last_index,
            "bytes": snapshot.size,
            "seconds": taking.seconds if is_new else None,
            "stall_s": taking.stall_s if is_new else None,
        }

    def _changed(self, _: object) -> Answer:
        return {"leader_id": self.node.status().leader_id, "members": self.members()}

    def _plan(self, change: Change) -> Deferred[Any]:
        role = self.node.raft.role if self.node.raft is not None and self.node.running else None
        if not isinstance(role, Leader):
            # Does nothing there but say who leads, or that this server has stopped.
            return self.node.change_membership(change)
        plan = plan_change(role, change)

        def answer(found: list[str]) -> Answer:
            details = dict(zip(plan.unproven, found, strict=True))
            # Of who moves it counts whether it answers where it will be, not where it was.
            absent = (self._absent() - {*details}) | {who for who in details if details[who] != "reachable"}
            missing = [server_id for server_id in plan.after.voters if server_id in absent]
            return {
                "before": attrs.asdict(plan.before),
                "after": attrs.asdict(plan.after),
                "servers": [
                    {"server_id": server_id, "is_reachable": detail == "reachable", "detail": detail}
                    for server_id, detail in details.items()
                ],
                "refusal": plan.refusal or None,
                "is_quorum_left": len(plan.after.voters) - len(missing) >= plan.after.quorum,
                "notes": _notes(plan, missing),
            }

        return gatherResults([self._probe(*unproven) for unproven in plan.unproven.items()]).addCallback(answer)

    def _absent(self) -> set[str]:
        """The members with which there is no connection, or that have been silent for an election timeout."""
        links = ("connected", "this server")
        return {
            member.server_id
            for member in self.node.status().members
            if member.link not in links or self._is_silent(member)
        }

    def _read_change(
        self,
        add: Iterable[str],
        remove: Iterable[str],
        learners: Iterable[str],
        replace: Mapping[str, str],
        move: Mapping[str, str],
    ) -> Change:
        voters, removed, learning = ([self.server_id(text) for text in texts] for texts in (add, remove, learners))
        for old_text, new_text in replace.items():
            old, new = self.server_id(old_text), self.server_id(new_text)
            (learning if self._place_of(old, new) == "learner" else voters).append(new)
            removed.append(old)
        moved = {self.server_id(server): self.server_id(address) for server, address in move.items()}
        return Change(tuple(voters), tuple(learning), tuple(removed), moved)

    def _place_of(self, old: str, new: str) -> str:
        """What `new` becomes if it replaces `old`. Only the leader is sure of it, and nobody else decides."""
        raft = self.node.raft
        if raft is None or not isinstance(raft.role, Leader):
            return "voter"
        membership = raft.membership
        if old not in membership.members and new not in membership.members:
            raise ChangeRefused(f"{old} is no member of this cluster, so nothing can take its place")
        place = old if old in membership.members else new
        return "learner" if place in membership.wanted_learners else "voter"

    def server_id(self, text: str) -> str:
        """
        The id of the server that an operator writes so.

        @raise BadRequest: it can be none.
        """
        try:
            return self._read_server_id(text)
        except ValueError as error:
            raise BadRequest(str(error)) from None

    def _with_our_port(self, text: str) -> str:
        return format_address(*parse_address(text, parse_address(self.node.settings.server_id, None)[1]))


def _no_snapshot(failure: Failure) -> NoReturn:
    failure.trap(StorageError)
    raise SnapshotRefused(f"the snapshot cannot be kept: {failure.value}")


def _entry(index: int, term: int, kind: EntryKind, time_ms: int, command: bytes, payloads: bool) -> Answer:
    entry = {"index": index, "term": term, "kind": kind.name.lower(), "time_ms": time_ms, "bytes": len(command)}
    return entry | {"payload": _text(command[:MAX_PAYLOAD_BYTES])} if payloads else entry


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _notes(plan: ChangePlan, missing: list[str]) -> list[str]:
    """What to think of before that change; `missing` are the voters after it that do not answer."""
    notes = []
    before, after = plan.before, plan.after
    if after.failures_survived < before.failures_survived:
        notes.append(f"The cluster would survive {_failures(after)} instead of {before.failures_survived}.")
    if len(after.voters) % 2 == 0:
        notes.append(f"{len(after.voters)} voters survive no more failures than {len(after.voters) - 1}.")
    if len(after.voters) - len(missing) < after.quorum:
        notes.append(f"No quorum would be left: {', '.join(missing)} cannot be reached.")
    elif missing:
        notes.append(f"{', '.join(missing)} cannot be reached: that counts as failed.")
    return notes


def _failures(after: Constitution) -> str:
    return f"{after.failures_survived} failure{'' if after.failures_survived == 1 else 's'}"
