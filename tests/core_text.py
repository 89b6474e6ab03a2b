"""
The core as text: build a server from a line, read its log and its messages as lines, and let several talk in a script.

A log is written `1:a 1:b 2:c`: one `term:command` for each entry; a no-op is `2:-`, a membership `1:{1,2,3}`.
"""

from __future__ import annotations

import random

from txraft.core.change import Change
from txraft.core.log import EntryKind, EntryRun, Log, LogSlice
from txraft.core.membership import Membership
from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    Message,
    PreVoteResponse,
    Refusal,
    RequestVoteResponse,
)
from txraft.core.progress import ReplicationState
from txraft.core.raft import Raft
from txraft.core.ready import Ready
from txraft.core.settings import RaftSettings

SETTINGS = RaftSettings(
    min_election_ticks=10,
    max_election_ticks=20,
    heartbeat_ticks=5,
    vote_retry_ticks=4,
    append_retry_ticks=4,
    max_append_bytes=1000,
    max_inflight_bytes=4000,
    max_uncommitted_bytes=100_000,
    catch_up_rounds=3,
)


def membership(text: str) -> Membership:
    """
    `1,2,3` or, joint, `1,2,3<1,2` (new before old), learners behind a slash: `1,2/3`; and behind `->` what the change
    under way leads to while somebody catches up: `1,2->1,2,3/4`.
    """
    text, _, wanted = text.partition("->")
    text, _, learners = text.partition("/")
    new, _, old = text.partition("<")
    next_voters, _, next_learners = wanted.partition("/")

    def ids(part: str) -> tuple[str, ...]:
        return tuple(sorted(part.split(","))) if part else ()

    return Membership("test", ids(new), ids(old), ids(learners), ids(next_voters), ids(next_learners))


def show_membership(one: Membership) -> str:
    """As `membership` reads it."""
    text = ",".join(one.voters)
    text += f"<{','.join(one.outgoing)}" if one.outgoing else ""
    text += f"/{','.join(one.learners)}" if one.learners else ""
    if one.next_voters:
        text += f"->{','.join(one.next_voters)}"
        text += f"/{','.join(one.next_learners)}" if one.next_learners else ""
    return text


def change(text: str) -> Change:
    """`+4` a voter, `~4` a learner, `-4` no member."""
    asked = {sign: tuple(word[1:] for word in text.split() if word[0] == sign) for sign in "+~-"}
    return Change(asked["+"], asked["~"], asked["-"])


def entry_runs(text: str, first_index: int = 1) -> list[EntryRun]:
    """The entries of a log's text, each a run of its own."""
    runs = []
    for index, word in enumerate(text.split(), first_index):
        term, _, data = word.partition(":")
        kind, command = EntryKind.COMMAND, data.encode()
        if data == "-":
            kind, command = EntryKind.NOOP, b""
        elif data.startswith("{"):
            kind, command = EntryKind.CONFIGURATION, membership(data.strip("{}")).encode()
        runs.append(EntryRun(index, int(term), kind, 0, [command]))
    return runs


def make_log(text: str) -> Log:
    """A log that is on disk."""
    log = Log()
    for run in entry_runs(text):
        log.extend(run)
    log.take_unwritten()
    log.made_durable(log.last_index, log.last_term)
    return log


def show(log: Log) -> str:
    words = [f"..{log.base_index}@{log.base_term}"] if log.base_index else []
    for run in log.runs(log.first_index, log.last_index + 1) if log.last_index > log.base_index else []:
        for command in run.commands:
            data = command.decode()
            if run.kind is EntryKind.NOOP:
                data = "-"
            elif run.kind is EntryKind.CONFIGURATION:
                data = "{" + show_membership(Membership.decode(command)) + "}"
            words.append(f"{run.term}:{data}")
    return " ".join(words)


def make_server(
    server_id: str = "1",
    *,
    term: int = 0,
    log: str = "",
    voters: str = "1,2,3",
    voted_for: str | None = None,
    settings: RaftSettings = SETTINGS,
    seed: int = 0,
) -> Raft:
    """A follower whose log, on disk, begins with the membership `voters` (term 1), followed by `log`."""
    full_log = make_log(f"1:{{{voters}}} {log}" if voters else log)
    state = HardState(max(term, full_log.last_term), voted_for)
    return Raft(server_id, settings, random.Random(f"{seed}/{server_id}"), state, full_log)


def append_entries(
    term: int, prev: str = "0@0", entries: str = "", leader_commit: int = 0, round: int = 0
) -> AppendEntries:
    """`prev` is index@term."""
    index, _, prev_term = prev.partition("@")
    slice_ = LogSlice(int(index) + 1, entry_runs(entries, int(index) + 1))
    return AppendEntries(term, int(index), int(prev_term), leader_commit, round, slice_)


def show_message(message: Message) -> str:
    """A message on one line, without what is zero or false."""
    words = [type(message).__name__]
    for name in message.__slots__:
        value = getattr(message, name)
        if isinstance(value, LogSlice):
            value = " ".join(f"{run.term}:{command.decode() or '-'}" for run in value.runs for command in run.commands)
            if value:
                words.append(f"entries=[{value}]")
        elif value is True:
            words.append(name)
        elif isinstance(value, Refusal):
            words.append(f"({show_refusal(value)})")
        elif value:
            words.append(f"{name}={value}")
    return " ".join(words)


def show_refusal(refusal: Refusal) -> str:
    """`leader 2`, `voted 2`, `log 7@3` or `no vote`."""
    log = f"{refusal.last_log_index}@{refusal.last_log_term}" if refusal.last_log_index else ""
    return f"{refusal.reason.name.lower().replace('_', ' ')} {refusal.server_id}{log}".strip()


def flush(server: Raft, *, persist: bool = True) -> list[tuple[str, Message]]:
    """Ask for what is ready, let the disk finish if `persist`, and apply; the messages in order."""
    messages: list[tuple[str, Message]] = []
    while True:
        ready = server.ready()
        messages += ready.messages
        apply(server, ready)
        if ready.persist is None:
            return messages
        if not persist:
            return messages
        server.persisted()


def apply(server: Raft, ready: Ready) -> None:
    if ready.apply_index > server.applied_index:
        server.applied(ready.apply_index)


def sent(server: Raft, *, persist: bool = True) -> list[str]:
    """What `server` sends now, as `receiver< message` lines."""
    return [f"{receiver}< {show_message(message)}" for receiver, message in flush(server, persist=persist)]


def tick(server: Raft, count: int = 1) -> None:
    for _ in range(count):
        server.tick()


def propose(leader: Raft, commands: list[bytes]) -> int:
    """Reserve and append, as the node does."""
    leader.leader().reserve(sum(map(len, commands)), len(commands))
    return leader.leader().propose(commands)


def make_leader(server_id: str = "1", *, log: str = "", voters: str = "1,2,3", term: int = 1, **more: object) -> Raft:
    """A leader of term `term + 1` whose peers have answered nothing yet; its no-op is on its disk."""
    server = make_server(server_id, log=log, voters=voters, term=term, **more)  # type: ignore[arg-type]
    tick(server, SETTINGS.max_election_ticks)
    others = [voter for voter in voters.split(",") if voter != server_id]
    for other in others:
        if server.role.name == "pre-candidate":
            server.step(other, PreVoteResponse(server.term + 1, server.pre_vote_round, granted=True))
    flush(server)
    for other in others:
        if server.role.name == "candidate":
            server.step(other, RequestVoteResponse(server.term, granted=True))
    assert server.role.name == "leader", server.role.name
    flush(server)
    return server


def show_progress(server: Raft) -> str:
    """A leader's peers as `2:match/next` with `!` while probing, `*` while a snapshot is to be sent."""
    marks = {ReplicationState.PROBE: "!", ReplicationState.REPLICATE: "", ReplicationState.SNAPSHOT: "*"}
    return " ".join(
        f"{server_id}:{p.match_index}/{p.next_index}{marks[p.state]}"
        for server_id, p in sorted(server.leader().progress.items())
    )


def answer(leader: Raft, sender: str, match_index: int, *, round: int = 0) -> None:
    """A peer accepts, and has everything up to `match_index`."""
    leader.step(sender, AppendEntriesResponse(leader.term, round, match_index))


def make_candidate(**more: object) -> Raft:
    server = make_server(**more)  # type: ignore[arg-type]
    tick(server, SETTINGS.max_election_ticks)
    assert server.role.name == "pre-candidate"
    flush(server)
    server.step("2", PreVoteResponse(server.term + 1, server.pre_vote_round, granted=True))
    assert server.role.name == "candidate"
    return server
