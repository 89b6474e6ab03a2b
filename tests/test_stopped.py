"""The data of a stopped server: verified, shown, changed by hand."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re

import pytest
from snapshot_cases import encoded, meta
from storage_cases import DATA_DIR, LOG, SNAPSHOTS, STATE, Server, entries, run
from storage_steps import SnapshotServer, big

from txraft.admin import log_reader
from txraft.admin.log_reader import Reader
from txraft.admin.progress import ProgressBar
from txraft.admin.raftctl import main
from txraft.core.log import EntryKind
from txraft.core.membership import Membership
from txraft.core.messages import HardState
from txraft.errors import StorageError
from txraft.storage.stopped import Paths, StoppedServer
from txraft.testing.disk import Halted

PATHS = Paths(DATA_DIR, LOG, STATE, SNAPSHOTS)


def membership(*voters):
    return Membership("c", voters).encode()


@pytest.fixture
def server():
    """Two snapshots, at 5 and 9, and a log from 4 to 12."""
    server = SnapshotServer()
    server.open()
    server.write(HardState(1, "s1"), run(1, [membership("s1")], kind=EntryKind.CONFIGURATION))
    for one in big(2, 11):
        server.write(None, one)
    for index in (5, 9):
        server.take(index)
    server.compact(12)
    server.close()
    return server


@contextlib.contextmanager
def stopped(server):
    data = StoppedServer(server.disk, PATHS)
    try:
        yield data
    finally:
        data.close()


def findings(server):
    with stopped(server) as data:
        return list(data.verify(lambda size: None))


def content(disk):
    return {path: disk.read_file(path) for path in disk.file_names() if not path.endswith("lock")}


def kept_files(server):
    """All that is read to its end."""
    return [path for path in content(server.disk) if path != STATE and not path.endswith(".tmp")]


# -- looking


def test_what_is_intact_is_said_file_by_file_and_nothing_is_changed(server):
    before = content(server.disk)
    assert [(finding.path, finding.what, finding.problem) for finding in findings(server)] == [
        (STATE, "term 1, vote for s1, server s1 of cluster c", ""),
        (f"{SNAPSHOTS}/{5:020d}-{1:020d}.snapshot", "state at entry 5 of term 1, 150 bytes", ""),
        (f"{SNAPSHOTS}/{9:020d}-{1:020d}.snapshot", "state at entry 9 of term 1, 150 bytes", ""),
        (LOG, "entries 4 to 12 in 3 segments", ""),
    ]
    assert content(server.disk) == before


def test_every_file_is_read_to_its_end(server):
    with stopped(server) as data:
        done = []
        list(data.verify(done.append))
        assert sum(done) == data.size()
        assert data.size() == sum(len(server.disk.read_file(path)) for path in kept_files(server))


def test_no_byte_can_flip_unseen(server):
    """S11, D03, D18."""
    for path in [STATE, *kept_files(server)]:
        data = server.disk.read_file(path)
        # A seal says nothing that the next segment does not say, too; and behind the end, something may have begun.
        end = len(data.rstrip(b"\0")) + 15 & ~15
        harmless = range(end - 16, end) if path in server.segments()[:-1] else range(end, len(data))
        for at in range(0, len(data), 3):
            server.disk.write_file(path, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            found = [finding for finding in findings(server) if finding.problem]
            assert found or at in harmless, (path, at)
        server.disk.write_file(path, data)


def test_an_unfinished_record_is_no_damage_and_stays(server):
    path = server.segments()[-1]
    data = server.disk.read_file(path)
    stop = len(data.rstrip(b"\0"))
    server.disk.write_file(path, data[: stop - 8] + bytes(len(data) - stop + 8))
    before = content(server.disk)
    (log,) = [finding for finding in findings(server) if finding.path == LOG]
    assert log.problem == ""
    assert "entries 4 to 11" in log.what
    assert "never completed, which the next start cuts" in log.what
    assert content(server.disk) == before


def test_a_log_that_a_snapshot_has_replaced_is_no_damage_and_is_not_changed_by_hand(server):
    """A crash after a snapshot came from elsewhere, and before the log was given up for it."""
    data, offer = encoded(meta(50, 1))
    server.disk.write_file(f"{SNAPSHOTS}/{50:020d}-{1:020d}.snapshot", data)
    (log,) = [finding for finding in findings(server) if finding.path == LOG]
    assert log.problem == ""
    assert "a snapshot has taken their place" in log.what
    with stopped(server) as data, pytest.raises(StorageError, match="start and stop the server first"):
        data.append([run(13, "x")])
    assert server.open().snapshot == offer


def test_a_log_of_a_later_term_than_the_vote_is_a_problem():
    server = Server()
    server.open()
    server.write(HardState(1, "s1"), [run(1, "a")])
    server.write(None, [run(2, "b", term=2)])
    server.close()
    assert "an entry of term 2, but /raft-data/core_map says 1" in findings(server)[-1].problem


def test_a_lost_vote_is_a_problem(server):
    server.disk.remove_file(STATE)
    (finding,) = findings(server)
    assert "core_map: missing" in finding.problem


def test_a_server_that_runs_is_left_alone(server):
    server.open()
    with pytest.raises(StorageError, match="in use"):
        StoppedServer(server.disk, PATHS)


def test_a_directory_without_a_server_is_refused_and_stays_as_it_is(server):
    before = server.disk.file_names()
    for path in ("/nowhere", "/"):
        with pytest.raises(StorageError, match="no server has its data here"):
            StoppedServer(server.disk, Paths(path + "x", LOG, STATE, SNAPSHOTS))
    assert server.disk.file_names() == before


@pytest.mark.parametrize("is_there", [STATE, SNAPSHOTS])
def test_a_log_whose_directory_is_missing_is_named_and_not_taken_for_no_server(server, is_there):
    """A volume that is not mounted."""
    places = {STATE: "/elsewhere/state", SNAPSHOTS: "/elsewhere/snapshots"} | {is_there: is_there}
    paths = Paths(DATA_DIR, "/volume/log", places[STATE], places[SNAPSHOTS])
    before = server.disk.file_names()
    with pytest.raises(
        StorageError, match=f"^/volume: no such directory, and the log .* in {DATA_DIR} should be there"
    ):
        StoppedServer(server.disk, paths)
    assert server.disk.file_names() == before


# -- changing


def test_what_is_chopped_is_gone_for_good(server):
    with stopped(server) as data:
        data.chop(11)
    server.crash(keep="none")
    recovered = server.open()
    assert recovered.runs[-1].last_index == 10
    assert recovered.snapshot.meta.last_index == 9
    server.acknowledged = (HardState(1, "s1"), 9, [entry for entry in entries(recovered.runs) if entry[0] > 9])
    server.write(None, run(11, "x"))
    server.crash()
    assert server.look() == server.acknowledged


def test_what_a_snapshot_holds_and_what_is_not_there_cannot_be_chopped(server):
    with stopped(server) as data:
        for index, why in ((9, "in the snapshot at 9"), (13, "there is no entry 13; the log has 4 to 12")):
            with pytest.raises(StorageError, match=why):
                data.chop(index)


def test_a_crash_while_it_is_chopped_leaves_the_old_log_or_the_new(server):
    for point in range(1, 80):
        for keep in ("none", "some", "all"):
            crashed = server.disk.copy()
            crashed.halt_at(point)
            with contextlib.suppress(Halted), contextlib.closing(StoppedServer(crashed, PATHS)) as data:
                data.chop(10)
            crashed.crash(keep)
            with contextlib.closing(StoppedServer(crashed, PATHS)) as data:
                assert data.log().last_index in (9, 12), (point, keep)
                assert not [finding for finding in data.verify(lambda size: None) if finding.problem]


def session(server, *lines):
    """(exit status, what was said)."""
    said, rest = [], [line + "\n" for line in lines]
    with stopped(server) as data:
        status = Reader(data, lambda: rest.pop(0) if rest else "", said.append).run()
    return status, said


def test_a_log_is_shown(server):
    status, said = session(server, "show")
    assert status == 0
    assert said[0] == "snapshot: everything up to entry 9 of term 1"
    assert said[1] == f"4 term 1 command '{'E' * 100}'"
    assert len(said) == 10


def test_an_appended_entry_is_there_at_the_next_start(server):
    server.open()
    server.write(None, run(13, [membership("s1")], kind=EntryKind.CONFIGURATION))
    server.close()
    status, said = session(server, "append hello", "yes")
    assert (status, said) == (0, ["append 'hello' as entry 14 of term 1? yes or no", "done"])
    assert entries(server.open().runs)[-1] == (14, 1, b"hello")


def test_nothing_is_appended_where_others_vote(server):
    server.open()
    server.write(None, run(13, [membership("s1", "s2")], kind=EntryKind.CONFIGURATION))
    server.close()
    status, said = session(server, "append hello", "yes")
    assert status == 1
    assert "the voters are s1, s2" in said[0]


def test_nothing_is_changed_without_a_yes(server):
    before = content(server.disk)
    for answer in (["no"], ["y"], []):
        status, said = session(server, "chop 11", *answer)
        assert (status, said[-1]) == (0, "nothing was changed")
    assert content(server.disk) == before
    assert session(server, "chop 11", "yes")[1] == [
        log_reader.CHOP_WARNING,
        "remove 2 entries, from 11 on? yes or no",
        "done",
    ]


def test_what_is_known_to_be_committed_is_said(server):
    server.open()
    server.finish(server.store.write(None, [run(13, "m")], 11))
    server.close()
    said = session(server, "show", "chop 11", "no")[1]
    assert said[1] == "known to be committed: everything up to entry 11; perhaps more"
    assert said[-3] == "this server knows that everything up to entry 11 is committed"
    assert "knows" not in str(session(server, "chop 12", "no")[1])


def test_what_makes_no_sense_is_said_and_the_session_goes_on(server):
    for line in ("chop", "chop x", "chop 99", "append", "append a b", "sing"):
        status, said = session(server, line, "quit")
        assert status == 1
        assert len(said) == 1


# -- from the command line


@pytest.fixture
def data_dir(server, tmp_path):
    for path, data in content(server.disk).items():
        target = tmp_path / os.path.relpath(path, DATA_DIR)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
    return tmp_path


WHERE = ["--log-file=log", "--core-map-file=core_map"]


def test_verify_says_ok_and_ends_with_0_or_bad_and_1(data_dir, capsys):
    assert main(["verify", str(data_dir), *WHERE]) == 0
    assert capsys.readouterr().out.count("ok   ") == 4
    newest = sorted((data_dir / "snapshots").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    before = sorted(path.name for path in data_dir.rglob("*"))
    assert main(["verify", str(data_dir), *WHERE]) == 1
    assert f"BAD  {newest}: damaged: it ends at offset" in capsys.readouterr().out
    assert sorted(path.name for path in data_dir.rglob("*")) == before


def test_verify_works_where_nothing_may_be_written(data_dir, capsys):
    """As it does from a backup: not even a lock is made."""
    assert main(["verify", str(data_dir), *WHERE]) == 0
    assert not (data_dir / "lock").exists()


def test_log_shows_a_part_of_it_as_json(data_dir, capsys):
    assert main(["log", str(data_dir), *WHERE, "--from=10", "--to=11", "--json"]) == 0
    ten, eleven = map(json.loads, capsys.readouterr().out.splitlines())
    assert ten == {"index": 10, "term": 1, "kind": "command", "time_ms": 1000, "data": ten["data"]}
    assert base64.b64decode(eleven["data"]) == b"L" * 100


def test_log_says_so_if_it_has_none_of_the_entries_that_are_asked_for(data_dir, capsys):
    assert main(["log", str(data_dir), *WHERE, "--from=1000000", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"no entry from 1000000 to \d+: the log has \d+ to \d+\n", err), err
    assert main(["log", str(data_dir), *WHERE, "--from=11", "--to=10"]) == 1


@pytest.mark.parametrize("wrong", ["0", "-3", "x", ""])
def test_log_refuses_what_is_no_index(data_dir, capsys, wrong):
    with pytest.raises(SystemExit) as ended:
        main(["log", str(data_dir), f"--from={wrong}"])
    assert ended.value.code == 2
    assert f"{wrong!r} is no index of an entry" in capsys.readouterr().err


def test_log_of_a_directory_without_a_server_is_one_line(tmp_path, capsys):
    assert main(["log", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path}: no server has its data here\n"


def test_a_directory_of_somebody_else_stays_as_it_is(tmp_path, capsys):
    (tmp_path / "letter").write_text("dear")
    assert log_reader.main([str(tmp_path / "letter")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}: no server has its data here\n"
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_log_reader_reads_its_commands_from_standard_input(data_dir, capsys, monkeypatch):
    for where in ([str(data_dir / "log")], [str(data_dir), "--log-file=log"][:1]):
        if where == [str(data_dir)]:
            for path in data_dir.glob("log.*"):
                path.rename(path.with_name("raft." + path.name))
        monkeypatch.setattr("sys.stdin", io.StringIO("show\nquit\n"))
        assert log_reader.main([*where, "--core-map-file=core_map"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 10


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_drawn_on_a_terminal_and_nowhere_else():
    now = [0.0]
    for stream, drawn in (
        (io.StringIO(), ""),
        (Terminal(), "\r[###############               ]  50% of 8.0 MiB, 4 MiB/s "),
    ):
        now[0] = 0.0
        bar = ProgressBar(stream, 8 << 20, lambda: now[0])
        now[0] = 1.0
        bar.add(4 << 20)
        assert stream.getvalue() == drawn
        bar.clear()
        assert stream.getvalue() == (drawn and drawn + "\r\x1b[K")
