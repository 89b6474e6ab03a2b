"""`raftctl status`, `members` and `why`: what a running cluster says of itself."""

from __future__ import annotations

import argparse

from txraft.admin import operating, tables
from txraft.admin.client import AdminClient
from txraft.admin.operating import Screen

add_arguments = operating.add_arguments


def status(options: argparse.Namespace) -> int:
    """Show what one server is doing."""

    async def show(client: AdminClient, screen: Screen) -> int:
        answer = await client.status()
        screen.answer(answer, tables.status(answer))
        return 0

    return operating.run(options, show)


def members(options: argparse.Namespace) -> int:
    """Show the servers of the cluster."""

    async def show(client: AdminClient, screen: Screen) -> int:
        answer = await client.members()
        screen.answer(answer, tables.members(answer["members"]))
        return 0

    return operating.run(options, show)


def why(options: argparse.Namespace) -> int:
    """Show what one server waits for."""

    async def show(client: AdminClient, screen: Screen) -> int:
        answer = await client.why()
        screen.answer(answer, tables.why(answer["waiting_for"]))
        return 0

    return operating.run(options, show)
