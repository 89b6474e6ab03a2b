"""
`raftctl`, the command line. A group of commands is a module with `add_arguments` and what carries the command out; the
table here is all that knows of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import attrs

from txraft.admin import changing, dev, log, recover, restore, saving, show, verify
from txraft.admin.manhole import password_command as manhole_password
from txraft.testing import command as simulate


@attrs.frozen
class Command:
    """One word after `raftctl`. `run` carries it out and returns the exit status: 0 only if what was asked is so."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = (
    Command("status", "show what a server is doing", show.add_arguments, show.status),
    Command("members", "show the servers of the cluster", show.add_arguments, show.members),
    Command("why", "show what a server is waiting for", show.add_arguments, show.why),
    Command("add", "make servers members: voters, or learners", changing.add_arguments_of_add, changing.add),
    Command("remove", "make servers no members", changing.add_arguments_of_remove, changing.remove),
    Command("replace", "put new servers in the place of old ones", changing.add_arguments_of_replace, changing.replace),
    Command("move", "say where members are that have moved", changing.add_arguments_of_move, changing.move),
    Command("transfer", "let another server lead", changing.add_arguments_of_transfer, changing.transfer),
    Command("snapshot", "let a server take a snapshot", saving.add_arguments_of_snapshot, saving.snapshot),
    Command("backup", "save the cluster's state to a file", saving.add_arguments_of_backup, saving.backup),
    Command("restore", "make a new cluster of a backup", restore.add_arguments, restore.run),
    Command("recover", "go on with what one server has, when a majority is gone", recover.add_arguments, recover.run),
    Command("verify", "check every checksum in a stopped server's data", verify.add_arguments, verify.run),
    Command("log", "show the entries in a stopped server's log", log.add_arguments, log.run),
    Command("dev", "run a cluster on this machine until Ctrl-C", dev.add_arguments, dev.run),
    Command("manhole-password", "let a user log in by telnet", manhole_password.add_arguments, manhole_password.run),
    Command("simulate", "run simulated clusters under faults, and check them", simulate.add_arguments, simulate.run),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """
    Read the command line; `run` carries it out.

    @raise SystemExit: it cannot be understood (2), or asks for help (0).
    """
    parser = argparse.ArgumentParser(prog="raftctl", description="Operates txraft servers, and tries them.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script `raftctl`. Returns the exit status: 0 it is done, 1 it is not, 2 it cannot be understood."""
    options = parse(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
