"""What commands on the data of a stopped server have in common: where it is, and how they fail."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from txraft.config import KEYS
from txraft.errors import StorageError
from txraft.storage.files import IFileSystem
from txraft.storage.stopped import Paths, StoppedServer

_KEYS = ("log_file", "core_map_file", "snapshot_dir")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DATA_DIR, and an option for each file that may be elsewhere."""
    parser.add_argument("data_dir", metavar="DATA_DIR", help="data_dir of a server that does not run")
    for key in _KEYS:
        default = KEYS[key].default
        parser.add_argument(
            f"--{key.replace('_', '-')}",
            default=default,
            metavar="PATH",
            help=f"{key} in its raft.conf (default: {default})",
        )


def run(options: argparse.Namespace, files: IFileSystem, command: Callable[[StoppedServer], int]) -> int:
    """Carry out `command` on the data while it is locked; the exit status."""
    try:
        server = StoppedServer(files, paths(options))
        try:
            return command(server)
        finally:
            server.close()
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1


def paths(options: argparse.Namespace) -> Paths:
    """Where the server has its data, according to the command line."""
    data_dir = os.path.abspath(options.data_dir)
    return Paths(data_dir, *(os.path.normpath(os.path.join(data_dir, getattr(options, key))) for key in _KEYS))
