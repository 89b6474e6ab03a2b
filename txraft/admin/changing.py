"""`raftctl add`, `remove`, `replace`, `move`, `transfer`: changes of a running cluster, and what they would lead to."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from txraft.admin import operating, tables
from txraft.admin.asking import Answer
from txraft.admin.client import AdminClient
from txraft.admin.operating import Screen, server_id
from txraft.errors import TxraftError
from txraft.net.addresses import format_address, parse_address


@attrs.frozen
class Asked:
    """A change of the membership that somebody wants: server ids as they were written."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    replace: Mapping[str, str] = attrs.field(factory=dict)
    move: Mapping[str, str] = attrs.field(factory=dict)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan", action="store_true", help="change nothing; show what it would lead to, and fail if it would fail now"
    )
    operating.add_arguments(parser)


def add_arguments_of_add(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl add`."""
    _add_servers(parser)
    parser.add_argument("--learner", action="store_true", help="replicate to them, and let them decide nothing")
    _add_common(parser)


def add_arguments_of_remove(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl remove`."""
    _add_servers(parser)
    _add_common(parser)


def add_arguments_of_replace(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl replace`."""
    parser.add_argument(
        "servers", type=server_id, nargs="+", action=_Pairs, metavar="OLD NEW", help="pairs of servers, host[:rpc-port]"
    )
    _add_common(parser)


def add_arguments_of_move(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl move`."""
    parser.add_argument(
        "servers",
        type=server_id,
        nargs="+",
        action=_Pairs,
        metavar="SERVER ADDRESS",
        help="pairs of a member and where it is now, host[:rpc-port]; the member's raft.conf says server_id=SERVER",
    )
    _add_common(parser)


def add_arguments_of_transfer(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl transfer`."""
    parser.add_argument("target", type=server_id, metavar="SERVER", help="who shall lead, host[:rpc-port]")
    _add_common(parser)


def _add_servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("servers", type=server_id, nargs="+", metavar="SERVER", help="host[:rpc-port]")


class _Pairs(argparse.Action):
    """Pairs of servers, or of a server and an address; none stands in the first place twice."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        if len(values) % 2:
            parser.error(f"expected pairs of an old and a new one; {values[-1]} has no other")
        pairs = dict(zip(values[::2], values[1::2], strict=True))
        if len(pairs) * 2 < len(values):
            parser.error("no server can be named twice")
        setattr(namespace, self.dest, pairs)


def add(options: argparse.Namespace) -> int:
    """Make servers voters or learners, and wait until they are."""
    servers = tuple(options.servers)
    asked = Asked(learners=servers) if options.learner else Asked(add=servers)
    return _run(options, asked, lambda client: client.add(servers, options.learner))


def remove(options: argparse.Namespace) -> int:
    """Make servers no members, and wait until they are none."""
    servers = tuple(options.servers)
    return _run(options, Asked(remove=servers), lambda client: client.remove(servers))


def replace(options: argparse.Namespace) -> int:
    """Put new servers in the place of old ones, and wait until they are there."""
    return _run(options, Asked(replace=options.servers), lambda client: client.replace(options.servers))


def move(options: argparse.Namespace) -> int:
    """Say where members are that have moved with their data."""
    return _run(options, Asked(move=options.servers), lambda client: client.move(options.servers))


def transfer(options: argparse.Namespace) -> int:
    """Let another voter lead, and wait until it does."""
    if options.plan:
        return operating.run(options, lambda client, screen: plan_transfer(client, screen, options.target))
    return operating.run(options, lambda client, screen: change(client, screen, client.transfer(options.target)))


def _run(options: argparse.Namespace, asked: Asked, ask: Callable[[AdminClient], Deferred[Answer]]) -> int:
    if options.plan:
        return operating.run(options, lambda client, screen: plan_change(client, screen, asked))
    return operating.run(options, lambda client, screen: change(client, screen, ask(client)))


async def change(client: AdminClient, screen: Screen, answer: Deferred[Answer]) -> int:
    """Wait for a change, and show the members after it."""
    found = await answer
    # Who made the change may be no leader any more, or no member, and know little of the others.
    try:
        members = (await client.members())["members"]
    except TxraftError:
        members = found["members"]
    screen.answer(found, ["Done.", "", *tables.members(members)])
    return 0


async def plan_change(client: AdminClient, screen: Screen, asked: Asked) -> int:
    """Show what a change would lead to. The exit status is 0 if it could be made now."""
    answer = await client.plan(asked.add, asked.remove, asked.learners, asked.replace, asked.move)
    screen.answer(answer, tables.plan(answer))
    is_reachable = all(server["is_reachable"] for server in answer["servers"])
    return 0 if is_reachable and answer["is_quorum_left"] and not answer["refusal"] else 1


async def plan_transfer(client: AdminClient, screen: Screen, target: str) -> int:
    """Show what handing over to `target` would lead to. The exit status is 0 if it could be done now."""
    members = (await client.members())["members"]
    leader_id = next((member["server_id"] for member in members if member["is_leader"]), None)
    refusal, lag, target_id = None, None, target
    if leader_id is None:
        refusal = "no leader is known"
    else:
        target_id = format_address(*parse_address(target, parse_address(leader_id, None)[1]))
        member = next((member for member in members if member["server_id"] == target_id), None)
        refusal, lag = _obstacle(member, target_id), member and member["lag"]
    answer = {"leader_id": leader_id, "target": target_id, "lag": lag, "refusal": refusal}
    screen.answer(answer, _transfer_lines(answer, members))
    return 0 if refusal is None else 1


def _obstacle(member: Answer | None, target_id: str) -> str | None:
    """Why that server cannot lead now; None if it can."""
    if member is None:
        return f"{target_id} is no member of this cluster"
    if member["role"] != "voter":
        return f"{target_id} is no voter"
    if member["lag"] is None:
        return "the leader cannot be asked"
    if member["link"] not in ("connected", "this server"):
        return f"{target_id} cannot be reached from the leader: {member['link']}"
    if member["is_silent"]:
        return f"{target_id} does not answer the leader: it was last heard from {member['silent_s']:.1f} s ago"
    return None


def _transfer_lines(answer: Answer, members: Sequence[Answer]) -> list[str]:
    voters = sum(member["role"] == "voter" for member in members)
    lines = [
        f"The leadership would go from {answer['leader_id'] or 'nobody'} to {answer['target']}.",
        f"The members stay: {voters} voters, of which {(voters - 1) // 2} may fail.",
    ]
    if answer["lag"]:
        lines.append(f"{answer['target']} lacks {answer['lag']:,} entries, and is brought level first.")
    if answer["refusal"]:
        lines.append(f"REFUSED: {answer['refusal']}.")
    return [tables.printable(line) for line in lines]
