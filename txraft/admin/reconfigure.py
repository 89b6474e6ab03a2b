"""
The console script `reconfigure`: the original's `reconfigure.py`, with its options and its order of work.

It shows the servers, hands the leadership over, adds servers and removes servers, in this order, one after the other.
What fails ends it, with exit status 1: what was to come after it is not tried.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import attrs
from twisted.internet.defer import Deferred

from txraft.admin import operating
from txraft.admin.asking import Answer, problem_in
from txraft.admin.changing import Asked, plan_change, plan_transfer
from txraft.admin.client import AdminClient
from txraft.admin.operating import Screen, admin_address, server_id
from txraft.errors import TxraftError


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """
    Read the command line.

    @raise SystemExit: it cannot be understood (2), or asks for help (0).
    """
    parser = argparse.ArgumentParser(
        prog="reconfigure", description="Shows and changes the servers of a cluster, and who leads it."
    )
    parser.add_argument(
        "-l",
        "--leader_address",
        dest="server",
        type=lambda text: [admin_address(text)],
        default=[admin_address("localhost")],
        metavar="HOST[:PORT]",
        help="a server's admin port (default: localhost); if it does not lead, it says who does",
    )
    parser.add_argument("-s", "--show_servers", action="store_true", help="show the servers of the cluster")
    parser.add_argument(
        "-t", "--target_server", type=server_id, metavar="SERVER", help="hand the leadership over to this server"
    )
    parser.add_argument(
        "-a", "--add_servers", type=_server_ids, default=[], metavar="SERVERS", help="add them: host[:rpc-port],..."
    )
    parser.add_argument(
        "-d", "--del_servers", type=_server_ids, default=[], metavar="SERVERS", help="remove them: host[:rpc-port],..."
    )
    parser.add_argument(
        "--plan", action="store_true", help="change nothing; show what all of it would lead to, and fail if it would"
    )
    operating.add_asking_arguments(parser)
    parser.set_defaults(config=None, json=False)
    options = parser.parse_args(arguments)
    if not (options.show_servers or options.target_server or options.add_servers or options.del_servers):
        parser.error("nothing to do: give -s, -t, -a or -d")
    return options


def _server_ids(text: str) -> list[str]:
    return [server_id(part.strip()) for part in text.split(",")]


async def reconfigure(client: AdminClient, screen: Screen, options: argparse.Namespace) -> int:
    """Do what was asked, in the original's order. Returns the exit status."""
    if options.show_servers:
        members = (await client.members())["members"]
        screen.line(f"server address list: {','.join(member['server_id'] for member in members)}")
    if options.plan:
        return await _plan(client, screen, options)
    for step in steps(client, options):
        screen.line(f"request the leader[{client.asked}] to {step.what}")
        try:
            await step.ask()
        except TxraftError as error:
            problem = problem_in(error)
            screen.line(f"failed to {step.what}: {problem.kind.original}")
            screen.failed(error)
            return 1
        screen.line("succeed")
    return 0


async def _plan(client: AdminClient, screen: Screen, options: argparse.Namespace) -> int:
    """Show what the hand-over, and then all changes of the members together, would lead to."""
    status = 0
    if options.target_server:
        status |= await plan_transfer(client, screen, options.target_server)
    if options.add_servers or options.del_servers:
        asked = Asked(add=tuple(options.add_servers), remove=tuple(options.del_servers))
        status |= await plan_change(client, screen, asked)
    return status


@attrs.frozen
class Step:
    """One change: what it is in the original's words, and how to ask for it."""

    what: str
    ask: Callable[[], Deferred[Answer]]


def steps(client: AdminClient, options: argparse.Namespace) -> list[Step]:
    """The changes that `options` ask for, in order."""
    targets = [options.target_server] if options.target_server else []
    transfers = [Step(f"transfer leadership to server {each}", partial(client.transfer, each)) for each in targets]
    adds = [Step(f"add server {each}", partial(client.add, [each])) for each in options.add_servers]
    removes = [Step(f"delete server {each}", partial(client.remove, [each])) for each in options.del_servers]
    return transfers + adds + removes


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script `reconfigure`. Returns the exit status: 0 done, 1 not done, 2 not understood."""
    options = parse(arguments)
    return operating.run(options, lambda client, screen: reconfigure(client, screen, options))


if __name__ == "__main__":
    sys.exit(main())
