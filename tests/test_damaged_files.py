"""
Whatever a disk or an operator does to the files of a stopped server: all that was promised is found, or the start is
refused and nothing has been changed.

What nobody can tell: a last segment of which the end was never written, from one of which the end was lost.
TXRAFT_TEST_STATES=5000 takes every bit and every length.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from storage_cases import DATA_DIR, LOG, SNAPSHOTS, STATE
from storage_steps import STRIDE, SnapshotServer, big

from txraft.core.messages import HardState
from txraft.errors import StorageError
from txraft.storage.recovery import segment_path

LAST, TAKEN = 130, (60, 90)


class Written:
    """A server with three segments, two snapshots, and entries behind them. `older`: its files a few writes before."""

    def __init__(self):
        server = SnapshotServer()
        server.segment_bytes = 8192
        server.open()
        server.write(HardState(2, "s2"))
        for one in big(1, LAST - 4, term=2):
            server.write(None, one)
        for index in TAKEN:
            server.take(index)
        server.compact(TAKEN[0])
        self.older = contents(server)
        for one in big(LAST - 3, 4, term=2):
            server.write(None, one)
        server.close()
        self.files = contents(server)
        self.state, _, behind = server.acknowledged
        self.entries = {entry[0]: entry for entry in behind} | {
            each.first_index: (each.first_index, 2, each.commands[0]) for each in big(1, LAST, term=2)
        }
        self.segments = [path for path in self.files if path.startswith(LOG + ".0")]
        self.snapshots = [path for path in self.files if path.startswith(SNAPSHOTS)]


def contents(server):
    return {path: server.disk.read_file(path) for path in server.disk.file_names()}


WRITTEN = Written()
PATHS = sorted(WRITTEN.files)


def judge(files, may_lack_the_end=False):
    """What a start finds in these files."""
    server = SnapshotServer()
    for path, data in files.items():
        server.disk.write_file(path, data)
    try:
        state, index, log = server.look()
    except StorageError as error:
        assert DATA_DIR in str(error)
        kept = {path for path in files if not path.endswith((".tmp", ".part", "lock"))}
        assert {path: server.disk.read_file(path) for path in kept} == {path: files[path] for path in kept}
        assert server.disk.open_paths() == []
        return "refused"
    assert state == WRITTEN.state
    assert index in TAKEN
    wanted = [WRITTEN.entries[each] for each in range(index + 1, LAST + 1)]
    if index != TAKEN[-1]:
        assert server.store.snapshots.problem or WRITTEN.snapshots[-1] not in files
    if log != wanted:
        assert may_lack_the_end
        assert log == wanted[: len(log)]
        return "without its end"
    return "whole" if index == TAKEN[-1] else "whole, from an older snapshot"


def test_the_files_are_what_the_cases_need():
    assert len(WRITTEN.segments) >= 2
    assert len(WRITTEN.snapshots) == 2
    assert any(WRITTEN.older[path] != WRITTEN.files[path] for path in WRITTEN.segments)
    assert judge(WRITTEN.files) == "whole"


def is_end(path):
    return path == WRITTEN.segments[-1]


@pytest.mark.parametrize("size", [512, 4096])
@pytest.mark.parametrize("path", PATHS)
def test_a_sector_with_other_content_is_noticed_or_harmless(path, size):
    """D03, D05, D07: zeros, ones, anything, what was there before, what is beside it."""
    data, rng, seen = WRITTEN.files[path], random.Random(size), Counter()
    for start in range(0, len(data), size):
        old, length = WRITTEN.older.get(path, b""), len(data[start : start + size])
        beside = data[start + size :][:length] or data[:length]
        for name, filling in {
            "zeros": bytes(length),
            "ones": b"\xff" * length,
            "random": rng.randbytes(length),
            "older": old[start : start + length],
            "neighbour": beside,
        }.items():
            changed = data[:start] + filling.ljust(length, b"\0") + data[start + length :]
            may_lack = is_end(path) and (name in ("zeros", "older") or not any(filling))
            seen[judge({**WRITTEN.files, path: changed}, may_lack)] += 1
    assert len(seen) > 1 or path not in (*WRITTEN.segments, STATE, WRITTEN.snapshots[-1])


@pytest.mark.parametrize("path", PATHS)
def test_a_flipped_bit_is_noticed_or_harmless(path):
    """D03, D05, S11: the server does not start, or does so from the snapshot before."""
    data, seen = WRITTEN.files[path], Counter()
    full = STRIDE == 1
    for at in range(0, len(data), 1 if full or len(data) < 500 else 23):
        for bit in range(8) if full else [at % 8]:
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            seen[judge({**WRITTEN.files, path: changed})] += 1
    expected = {STATE: {"refused"}, WRITTEN.snapshots[-1]: {"whole, from an older snapshot"}}
    assert {*seen} == expected.get(path, {*seen})
    assert "without its end" not in seen


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_is_cut_is_noticed_or_harmless(path):
    """D04, D11."""
    data = WRITTEN.files[path]
    for stop in range(0, len(data), 1 if STRIDE == 1 or len(data) < 500 else 61):
        judge({**WRITTEN.files, path: data[:stop]}, may_lack_the_end=is_end(path))


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_is_gone_doubled_or_another_is_noticed_or_harmless(path):
    """D07, D11, D13."""
    without = {other: data for other, data in WRITTEN.files.items() if other != path}
    if path in WRITTEN.segments or path == STATE:
        assert judge(without) == judge({**without, path: b""}) == "refused"
    judge(without)
    judge({**without, path: b""})
    for other in PATHS:
        swapped = {**WRITTEN.files, path: WRITTEN.files[other], other: WRITTEN.files[path]}
        assert other == path or judge(swapped) == "refused" or {path, other} & {f"{DATA_DIR}/lock", *WRITTEN.snapshots}
        judge({**WRITTEN.files, path: WRITTEN.files[other]})
    last = int(WRITTEN.segments[-1][-16:])
    for name in (segment_path(LOG, last + 1), segment_path(LOG, last + 2), segment_path(LOG, 0)):
        assert judge({**WRITTEN.files, name: WRITTEN.files[path]}) == "refused"
    for name in (f"{SNAPSHOTS}/{125:020d}-{2:020d}.snapshot", f"{SNAPSHOTS}/{10:020d}-{1:020d}.snapshot"):
        assert judge({**WRITTEN.files, name: WRITTEN.files[path]}) == "whole"


@pytest.mark.parametrize("left", [b"", b"garbage" * 99, *WRITTEN.files.values()], ids=["empty", "garbage", *PATHS])
def test_what_a_crash_left_beside_them_changes_nothing(left):
    """S14."""
    names = [
        f"{STATE}.tmp",
        f"{LOG}.next.tmp",
        f"{SNAPSHOTS}/{125:020d}-{2:020d}.tmp",
        f"{SNAPSHOTS}/{125:020d}-{2:020d}-{len(left)}-{'ab' * 32}.part",
        f"{SNAPSHOTS}/{5:020d}-{2:020d}-{len(left)}-{'ab' * 32}.part",
    ]
    for name in names:
        assert judge({**WRITTEN.files, name: left}) == "whole"
    assert judge({**WRITTEN.files, **dict.fromkeys(names, left)}) == "whole"
