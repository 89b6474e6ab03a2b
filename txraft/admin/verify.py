"""`raftctl verify`: every checksum in the data of a stopped server. Nothing is changed."""

from __future__ import annotations

import argparse
import sys

from txraft.admin import stopped_data
from txraft.admin.progress import ProgressBar
from txraft.storage.read_only import ReadOnlyFiles
from txraft.storage.stopped import StoppedServer

add_arguments = stopped_data.add_arguments


def run(options: argparse.Namespace) -> int:
    """Print a line for each file; 0 if nothing is damaged."""
    return stopped_data.run(options, ReadOnlyFiles(), _verify)


def _verify(server: StoppedServer) -> int:
    bar = ProgressBar(sys.stderr, server.size())
    status = 0
    for finding in server.verify(bar.add):
        bar.clear()
        if finding.problem:
            status = 1
            print(f"BAD  {finding.problem}")
        else:
            print(f"ok   {finding.path}: {finding.what}")
    return status
