"""`raftctl backup`: what is at FILE afterwards is whole, verified and durable, or as it was before."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import random
import tempfile
from typing import Any

import attrs
import pytest
from snapshot_cases import CHUNKS, encoded, meta
from test_operating import Terminal
from test_reconfiguration import outcome
from test_saving import SimulatedTestCase
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers

from txraft.admin import raftctl, saving
from txraft.admin.operating import Screen, Target, carry_out
from txraft.storage.files import FileSystem
from txraft.storage.snapshot_file import SnapshotFileReader, verify
from txraft.testing.disk import FakeDisk, Halted

FILE = "/backups/monday"
SAVED = meta(70, 3)
DATA, SNAPSHOT = encoded(SAVED, CHUNKS)


@attrs.define
class Response:
    """A file that comes in pieces, and may end too soon."""

    data: bytes
    stop: int
    length: Any
    reason: Failure
    code: int = 200
    headers: Headers = attrs.field(factory=lambda: Headers({"content-type": ["application/octet-stream"]}))
    is_ended: bool = False

    def stopProducing(self) -> None:
        self.is_ended = True

    def deliverBody(self, body: Any) -> None:
        body.makeConnection(self)
        for at in range(0, self.stop, 1000):
            body.dataReceived(self.data[at : min(at + 1000, self.stop)])
        if self.stop < len(self.data) or self.reason.check(ResponseDone):
            body.connectionLost(self.reason)


class OneServer:
    """Answers every request with a file; `stop` is where the connection breaks."""

    def __init__(self, data: bytes = DATA, stop: int | None = None, **facts: Any) -> None:
        self.asked: list[str] = []
        is_whole = stop is None or stop >= len(data)
        lost = ResponseDone() if is_whole else ResponseFailed([Failure(ConnectionLost())])
        facts = {"length": len(data), "reason": Failure(lost), **facts}
        self.response = Response(data, len(data) if stop is None else stop, **facts)

    def request(self, method: str, url: str, **_: Any) -> Deferred[Any]:
        self.asked.append(f"{method} {url}")
        return succeed(self.response) if url.endswith("/backup") else Deferred()


def saved(server, files, path=FILE, is_forced=False, is_json=False, err=None, seconds=0.0):
    """Save a backup; (exit status, what is printed, what is said)."""
    out, err, clock = io.StringIO(), err or io.StringIO(), Clock()
    screen = Screen(out, err, is_json)

    async def work(client: Any, screen: Screen) -> int:
        return await saving.save(client, screen, path, None, is_forced, files)

    ended: list[Any] = []
    done = carry_out(work, Target(("a:29998",)), screen, server, clock, 10.0)
    done.addCallbacks(ended.append, lambda failure: ended.append(failure.value))
    clock.pump([0.1] * round(seconds * 10))
    assert ended, "it is not decided"
    if isinstance(ended[0], Exception):
        raise ended[0]
    return ended[0], out.getvalue(), err.getvalue()


def disk(seed=0):
    found = FakeDisk(random.Random(seed))
    found.mkdir("/backups")
    found.fsync_directory("/")
    return found


# -- when all goes well


def test_the_file_is_what_the_server_sent_and_durable():
    files = disk()
    status, out, err = saved(OneServer(), files)
    assert (status, err) == (0, "")
    assert out == f"{FILE} has everything up to entry 70 of cluster c: {len(DATA):,} bytes, verified.\n"
    files.crash("none")
    assert (files.file_names(), files.read_file(FILE)) == ([FILE], DATA)


def test_programs_are_told_what_it_is():
    _, out, _ = saved(OneServer(), disk(), is_json=True)
    told = {"file": FILE, "bytes": len(DATA), "last_index": 70, "last_term": 3, "cluster_id": "c"}
    assert json.loads(out) == told | {"digest": SNAPSHOT.digest.hex()}


def test_a_bar_is_drawn_on_a_terminal_and_taken_away():
    err = Terminal()
    saved(OneServer(), disk(), err=err)
    assert "MiB/s" in err.getvalue()
    assert err.getvalue().endswith("\r\x1b[K")


def test_a_file_that_is_there_is_replaced_only_by_force():
    files, server = disk(), OneServer()
    files.write_file(FILE, b"last monday")
    status, _, err = saved(server, files)
    assert (status, err) == (1, f"{FILE}: there already; --force replaces it. Nothing was saved.\n")
    assert server.asked == [], "no snapshot was taken for nothing"
    assert files.read_file(FILE) == b"last monday"
    assert saved(OneServer(), files, is_forced=True)[0] == 0
    assert files.read_file(FILE) == DATA


def test_what_an_earlier_one_has_left_behind_is_no_obstacle():
    files = disk()
    files.write_file(f"{FILE}.tmp", b"a longer file than this one is" * 1000)
    assert saved(OneServer(), files)[0] == 0
    assert (files.file_names(), files.read_file(FILE)) == ([FILE], DATA)


# -- when it does not


@pytest.mark.parametrize("stop", [0, 1, 2500, len(DATA) - 1])
def test_a_connection_that_breaks_leaves_nothing_and_says_at_which_byte(stop):
    files = disk()
    status, out, err = saved(OneServer(stop=stop), files)
    assert (status, out, files.file_names()) == (1, "", [])
    said = f"The file from a:29998 ends at byte {stop} of {len(DATA)}: the connection broke."
    assert err == f"{said} Nothing was saved; do it again.\n"


def test_a_connection_that_breaks_leaves_what_was_there():
    files = disk()
    files.write_file(FILE, b"last monday")
    assert saved(OneServer(stop=2000), files, is_forced=True)[0] == 1
    assert (files.file_names(), files.read_file(FILE)) == ([FILE], b"last monday")


def test_a_server_that_falls_silent_in_the_midst_is_given_up():
    files = disk()
    server = OneServer(DATA[:1500], length=2 * len(DATA), reason=Failure(ConnectionLost()))
    status, _, err = saved(server, files, seconds=15)
    assert (status, files.file_names()) == (1, [])
    assert f"ends at byte 1500 of {2 * len(DATA)}: nothing was heard for too long" in err
    assert server.response.is_ended, "the connection is closed"


def test_every_byte_that_has_flipped_is_noticed():
    """S11: every k-th is tried."""
    for at in range(0, len(DATA), 29):
        files = disk()
        status, out, err = saved(OneServer(DATA[:at] + bytes([DATA[at] ^ 4]) + DATA[at + 1 :]), files)
        assert (status, out, files.file_names()) == (1, "", []), at
        assert "damaged" in err and "offset" in err and err.endswith("Nothing was saved.\n"), err


def test_a_file_that_is_too_short_or_too_long_is_noticed():
    for data in (DATA[:-1], DATA + b"x", b""):
        files = disk()
        assert saved(OneServer(data), files)[0] == 1
        assert files.file_names() == []


@pytest.mark.parametrize(
    "facts", [{"length": "unknown"}, {"headers": Headers({"content-type": ["text/html"]})}, {"headers": Headers()}]
)
def test_what_is_no_file_of_ours_is_said_to_be_none(facts):
    files = disk()
    status, _, err = saved(OneServer(**facts), files)
    assert (status, files.file_names()) == (1, [])
    assert "No answer of a txraft server from a:29998" in err


def test_a_place_that_is_none_is_named_before_anybody_is_asked(tmp_path):
    server = OneServer()
    for path, why in ((f"{tmp_path}/no/where", "there is no such directory"), (str(tmp_path), "there already")):
        status, _, err = saved(server, FileSystem(), path)
        assert (status, err.startswith(f"{path}: {why}"), server.asked) == (1, True, [])


def test_a_disk_that_fails_at_any_call_leaves_nothing_or_the_whole():
    """D08."""
    sample = disk()
    before = sample.calls.copy()
    saved(OneServer(), sample)
    failed = 0
    for call, count in sorted((sample.calls - before).items()):
        for number in range(1, count + 1):
            files = disk()
            files.fail(call, number, errno.ENOSPC)
            status, _, err = saved(OneServer(), files)
            files.crash("all")
            content = [files.read_file(path) for path in files.file_names() if path == FILE]
            assert content in ([], [DATA])
            assert (status == 0) <= (content == [DATA])
            if status:
                failed += 1
                assert "No space left on device" in err
    assert failed > 10


@pytest.mark.parametrize("keep", ["none", "some", "all"])
def test_a_crash_at_any_call_leaves_what_was_there_or_the_whole(keep):
    """D02."""
    sample = disk()
    before = sample.calls.total()
    saved(OneServer(), sample)
    outcomes = set()
    for seed in range(6 if keep == "some" else 1):
        for point in range(1, sample.calls.total() - before + 1):
            files = disk(seed)
            files.write_file(FILE, b"last monday")
            files.halt_at(point)
            with contextlib.suppress(Halted):
                saved(OneServer(), files, is_forced=True)
            files.crash(keep)
            outcomes.add(files.read_file(FILE))
    assert outcomes == {b"last monday", DATA}


# -- of servers


class SimulatedBackupTests(SimulatedTestCase):
    def save(self, member: str | None = None) -> tuple[int, str, str]:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "backup")
        return self.end(lambda client, screen: saving.save(client, screen, self.path, member, False, FileSystem()))

    def content(self) -> list[bytes]:
        """The commands that the machine had been given."""
        reader = SnapshotFileReader(FileSystem(), self.path)
        chunks = []
        while (chunk := reader.next_chunk()) is not None:
            chunks.append(chunk)
        reader.close()
        return chunks[2:]

    def test_the_leader_gives_it_whoever_is_asked(self) -> None:
        status, out, err = self.save()
        self.assertEqual(status, 0, err)
        found = verify(FileSystem(), self.path)
        self.assertEqual(self.content(), [b"one", b"two"])
        self.assertIn(f"everything up to entry {found.meta.last_index} of cluster simulated.0.", out)
        self.assertEqual(self.leader.status().snapshots.index, found.meta.last_index)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["backup"])

    def test_another_server_gives_it_with_all_that_the_leader_has_acknowledged(self) -> None:
        """C01: although it is behind, and cannot know by itself."""
        slow = self.others[1]
        self.cluster.servers[slow].disk_seconds = lambda: 0.5
        self.cluster.run(1)
        outcome(self.leader.propose(b"three"))
        acknowledged = self.leader.propose(b"four")
        self.assertTrue(self.cluster.run_until(lambda: acknowledged.called))
        self.assertNotIn(b"four", self.cluster.servers[slow].machine.commands)
        status, _, err = self.save(slow)
        self.assertEqual(status, 0, err)
        self.assertEqual(self.content(), [b"one", b"two", b"three", b"four"])
        self.assertIn(f"{slow}:29998 makes the backup", err)
        self.assertEqual(self.leader.status().snapshots.index, 0)


def test_the_command_line_is_understood():
    options = raftctl.parse(["backup", "file", "b:1", "--force", "--json"])
    assert (options.file, options.member, options.force, options.json) == ("file", "b:1", True, True)
    assert raftctl.parse(["backup", "file"]).member is None
