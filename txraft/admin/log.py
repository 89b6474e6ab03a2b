"""`raftctl log`: the entries in the log of a stopped server. Nothing is changed."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator

from txraft.admin import stopped_data
from txraft.core.log import EntryKind, EntryRun
from txraft.storage.read_only import ReadOnlyFiles
from txraft.storage.stopped import StoppedLog, StoppedServer

_SHOWN_BYTES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DATA_DIR, which entries, and how they are to be shown."""
    stopped_data.add_arguments(parser)
    parser.add_argument("--from", type=_index, default=1, dest="first", metavar="INDEX", help="begin with this entry")
    parser.add_argument("--to", type=_index, dest="last", metavar="INDEX", help="end with this entry")
    parser.add_argument("--json", action="store_true", help="one JSON object a line; the data in base64")


def _index(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no index of an entry: expected 1 or more")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Print the entries that are there; 0 unless the log is damaged, or has none of those that are asked for."""
    return stopped_data.run(options, ReadOnlyFiles(), lambda server: _show(options, server))


def _show(options: argparse.Namespace, server: StoppedServer) -> int:
    found = server.log()
    if not options.json:
        for line in preface(found):
            print(line)
    runs = found.log.runs
    last = found.last_index if options.last is None else options.last
    for run in runs:
        for line in lines(run, options.first, last, options.json):
            print(line)
    if not runs or max(options.first, runs[0].first_index) <= min(last, found.last_index):
        return 0
    print(
        f"no entry from {options.first} to {last}: the log has {runs[0].first_index} to {found.last_index}",
        file=sys.stderr,
    )
    return 1


def preface(found: StoppedLog) -> Iterator[str]:
    """What is not an entry and belongs to the log all the same."""
    if found.snapshot is not None:
        meta = found.snapshot.meta
        yield f"snapshot: everything up to entry {meta.last_index} of term {meta.last_term}"
    if found.log.commit_index:
        yield f"known to be committed: everything up to entry {found.log.commit_index}; perhaps more"
    if found.is_void:
        yield "the snapshot has taken the place of these entries; the next start gives them up"
    if found.torn_bytes:
        yield f"behind these entries, {found.torn_bytes} bytes of a record that was never completed"


def lines(run: EntryRun, first: int, last: int, as_json: bool) -> Iterator[str]:
    """A line for each entry of `run` from `first` to `last`."""
    kind = EntryKind(run.kind).name.lower()
    stop = min(run.last_index, last) + 1
    for index in range(max(run.first_index, first), stop):
        data = run.commands[index - run.first_index]
        if as_json:
            entry = {"index": index, "term": run.term, "kind": kind, "time_ms": run.time_ms}
            yield json.dumps({**entry, "data": base64.b64encode(data).decode()})
        else:
            more = f"... ({len(data)} bytes)" if len(data) > _SHOWN_BYTES else ""
            yield f"{index} term {run.term} {kind} {repr(data[:_SHOWN_BYTES])[1:]}{more}"
