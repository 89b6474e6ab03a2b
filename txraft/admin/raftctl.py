"""
`raftctl`, the command line. A group of commands is a module with `add_arguments` and what carries the command out; the
table here is all that knows of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import attrs

from txraft.admin import dev
from txraft.testing import command as simulate


@attrs.frozen
class Command:
    """One word after `raftctl`. `run` carries it out and returns the exit status: 0 only if what was asked is so."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = (
    Command("dev", "run a cluster on this machine until Ctrl-C", dev.add_arguments, dev.run),
    Command("simulate", "run simulated clusters under faults, and check them", simulate.add_arguments, simulate.run),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script `raftctl`. Returns the exit status: 0 it is done, 1 it is not, 2 it cannot be understood."""
    parser = argparse.ArgumentParser(prog="raftctl", description="Operates txraft servers, and tries them.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
