"""
`log_reader FILE`: look at the log of a stopped server, and change it by hand. Commands are read from standard input:

    show           print the entries
    append WORD    add an entry that holds WORD; only where this server is the only voter
    chop INDEX     remove the entry at INDEX, and all behind it
    quit           end; so does the end of the input

`append` and `chop` ask before they change anything; the answer is the next line, and must be yes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from txraft.admin import stopped_data
from txraft.admin.log import lines, preface
from txraft.core.log import EntryKind, EntryRun
from txraft.core.membership import NOBODY, Membership
from txraft.errors import StorageError
from txraft.storage.files import FileSystem
from txraft.storage.stopped import StoppedLog, StoppedServer

CHOP_WARNING = (
    "Entries that go may have been acknowledged to clients or to the leader. In a cluster of several servers this can "
    "lose writes; then move the data directory away instead, and add the server again."
)


class Reader:
    """One session on one log. `ask` gives the next line of input, or "" at its end; `say` prints a line."""

    def __init__(self, server: StoppedServer, ask: Callable[[], str], say: Callable[[str], None]) -> None:
        self._server = server
        self._ask = ask
        self._say = say
        self._commands: dict[str, tuple[int, Callable[..., None]]] = {
            "show": (0, self._show),
            "append": (1, self._append),
            "chop": (1, self._chop),
        }

    def run(self) -> int:
        """Carry out commands until the input ends; the exit status: 0 if each did what it says."""
        status = 0
        while line := self._ask():
            words = line.split()
            if words == ["quit"]:
                break
            if not words:
                continue
            name, *arguments = words
            count, command = self._commands.get(name, (-1, self._show))
            if len(arguments) != count:
                self._say("say show, append WORD, chop INDEX, or quit")
                status = 1
                continue
            try:
                command(*arguments)
            except (StorageError, ValueError) as error:
                self._say(str(error))
                status = 1
        return status

    def _show(self) -> None:
        found = self._server.log()
        for line in preface(found):
            self._say(line)
        for run in found.log.runs:
            for line in lines(run, 1, found.last_index, as_json=False):
                self._say(line)

    def _append(self, word: str) -> None:
        found = self._server.log()
        server_id = self._server.state()[0].server_id
        voters = _membership(found).voters
        if voters != (server_id,):
            raise StorageError(
                f"nothing was appended: the voters are {', '.join(voters) or 'not known'}, and an entry that only one "
                f"of them has could contradict one that the others have. Propose it to the running cluster"
            )
        last = found.log.runs[-1] if found.log.runs else None
        term = last.term if last else found.snapshot.meta.last_term if found.snapshot else 0
        time_ms = max(last.time_ms if last else 0, time.time_ns() // 1_000_000)
        if self._confirm(f"append {word!r} as entry {found.last_index + 1} of term {term}?"):
            self._server.append([EntryRun(found.last_index + 1, term, EntryKind.COMMAND, time_ms, [word.encode()])])
            self._say("done")

    def _chop(self, word: str) -> None:
        if not word.isascii() or not word.isdigit():
            raise ValueError(f"an index is a number, not {word!r}")
        count = self._server.check_chop(int(word))
        self._say(CHOP_WARNING)
        if (commit_index := self._server.log().log.commit_index) >= int(word):
            self._say(f"this server knows that everything up to entry {commit_index} is committed")
        if self._confirm(f"remove {count} entries, from {word} on?"):
            self._server.chop(int(word))
            self._say("done")

    def _confirm(self, question: str) -> bool:
        self._say(f"{question} yes or no")
        is_meant = self._ask().strip() == "yes"
        if not is_meant:
            self._say("nothing was changed")
        return is_meant


def _membership(found: StoppedLog) -> Membership:
    """The one in force at the end of the log."""
    for run in reversed(found.log.runs):
        if run.kind is EntryKind.CONFIGURATION:
            return Membership.decode(run.commands[-1])
    return Membership.decode(found.snapshot.meta.membership) if found.snapshot else NOBODY


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script `log_reader`. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="log_reader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", help="log_file of a server that does not run, or its data_dir")
    parser.add_argument("--core-map-file", default="raft.state", metavar="PATH", help="beside it (default: raft.state)")
    parser.add_argument("--snapshot-dir", default="snapshots", metavar="PATH", help="beside it (default: snapshots)")
    options = parser.parse_args(arguments)
    is_directory = os.path.isdir(options.file)
    options.data_dir = options.file if is_directory else os.path.dirname(os.path.abspath(options.file))
    options.log_file = "raft.log" if is_directory else os.path.basename(options.file)
    return stopped_data.run(options, FileSystem(), lambda server: Reader(server, sys.stdin.readline, print).run())


if __name__ == "__main__":
    sys.exit(main())
