"""`raftctl snapshot`: what a running cluster saves of its state when it is asked to."""

from __future__ import annotations

import argparse

from txraft.admin import operating, tables
from txraft.admin.client import AdminClient
from txraft.admin.operating import Screen, server_id


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "member", type=server_id, nargs="?", metavar="SERVER", help="which one, host[:rpc-port] (default: the leader)"
    )


def add_arguments_of_snapshot(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl snapshot`."""
    _add_server(parser)
    operating.add_arguments(parser)


def snapshot(options: argparse.Namespace) -> int:
    """Let a server take a snapshot, and wait until it is on its disk."""
    return operating.run(options, lambda client, screen: take_snapshot(client, screen, options.member))


async def take_snapshot(client: AdminClient, screen: Screen, member: str | None) -> int:
    """The same with a client; the leader takes it if no member is named."""
    answer = await client.snapshot(member)
    screen.answer(answer, tables.snapshot(answer))
    return 0
