"""`raftctl restore`: the data of a new cluster, of a backup; or nothing that starts, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest
from snapshot_cases import CHUNKS, encoded, payloads_of
from storage_cases import DATA_DIR, LOG, SNAPSHOTS, STATE, count_calls, with_each_call_failing
from storage_steps import BACKUP, ME, SAVED, WHOLE, NewServer, is_as_before, judge
from test_reconfiguration import decided, outcome

from txraft.admin.raftctl import main
from txraft.admin.restore import new_server
from txraft.core.change import Change
from txraft.core.membership import Membership
from txraft.errors import DamagedSnapshot, StorageError
from txraft.interfaces import Identity
from txraft.storage import snapshot_format as layout
from txraft.storage.restored import Restoration
from txraft.storage.snapshot_file import SnapshotFileReader
from txraft.storage.stopped import Paths
from txraft.testing.cluster import Cluster
from txraft.testing.disk import Halted

# -- what is made


def test_the_new_server_has_the_state_and_nobody_else_in_its_membership():
    """M17, S05: and the time that the state machine has seen."""
    server = NewServer()
    before = server.disk.read_file(BACKUP)
    made = server.restore()
    server.crash("none")
    assert judge(server) == WHOLE
    assert Membership.decode(made.meta.membership) == Membership(ME.cluster_id, ("s1",), incarnations=(("s1", 77),))
    kept = ("last_index", "last_term", "time_ms", "membership_index")
    assert [getattr(made.meta, name) for name in kept] == [getattr(SAVED, name) for name in kept]
    assert made.meta.cluster_id == ME.cluster_id
    assert server.disk.read_file(BACKUP) == before


def test_all_records_are_as_they_were_only_the_header_is_another():
    server = NewServer()
    server.disk.write_file(BACKUP, encoded(SAVED, [bytes(layout.RECORD_BYTES * 2 + 5), b"", b"x"])[0])
    made = server.restore()
    path = f"{SNAPSHOTS}/{70:020d}-{3:020d}.snapshot"
    old, new = (payloads_of(server.disk.read_file(each)) for each in (BACKUP, path))
    assert new[1:-1] == old[1:-1]
    assert len(old) == 7
    assert made.meta.last_index == 70


# -- what is refused


@pytest.mark.parametrize("what", [STATE, f"{LOG}.{1:016d}", f"{LOG}.{9:016d}", f"{SNAPSHOTS}/x.part"])
def test_data_that_is_there_is_named_and_left_alone(what):
    server = NewServer()
    for path in (DATA_DIR, SNAPSHOTS):
        server.disk.mkdir(path)
    server.disk.write_file(what, b"precious")
    before = {path: server.disk.read_file(path) for path in server.disk.file_names()}
    with pytest.raises(StorageError, match=f"^{what}: there already; restoring makes a new server"):
        server.restore()
    assert {path: server.disk.read_file(path) for path in server.disk.file_names()} == before


def test_a_server_that_has_never_had_an_entry_is_data_all_the_same():
    server = NewServer()
    server.open()
    server.close()
    with pytest.raises(StorageError, match=f"^{STATE}: there already"):
        server.restore()


def test_a_directory_in_which_something_else_is_can_be_used():
    server = NewServer()
    server.disk.mkdir(DATA_DIR)
    server.disk.write_file(f"{DATA_DIR}/raft.conf", b"")
    server.disk.write_file(f"{STATE}.tmp", b"what a crash left")
    server.restore()
    assert judge(server) == WHOLE


def test_a_directory_that_somebody_else_uses_is_refused():
    server = NewServer()
    server.disk.mkdir(DATA_DIR)
    server.disk.lock(f"{DATA_DIR}/lock")
    with pytest.raises(StorageError, match="in use by another process"):
        server.restore()
    assert is_as_before(server)


def test_a_backup_that_is_damaged_in_the_meantime_leaves_nothing():
    """It was verified before; but it may be on any medium."""
    data, _ = encoded(SAVED, CHUNKS)
    for at in range(0, len(data), 7):
        server = NewServer()
        server.disk.write_file(BACKUP, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DamagedSnapshot):
            server.restore()
        server.crash("all")
        assert is_as_before(server), at


# -- on a disk that crashes and fails


@pytest.mark.parametrize("keep", ["none", "some", "all"])
def test_a_crash_at_any_call_leaves_nothing_that_starts_or_the_whole(keep):
    """D02, S07."""
    outcomes = []
    count = count_calls(NewServer, NewServer.restore)
    assert count > 40
    for seed in range(8 if keep == "some" else 1):
        for point in range(1, count + 1):
            server = NewServer(seed)
            server.disk.halt_at(point)
            # At the end it only lets go of the lock.
            with contextlib.suppress(Halted):
                server.restore()
            server.crash(keep)
            outcomes.append(judge(server))
    assert {*outcomes} == {"as before", "does not start", WHOLE}


@pytest.mark.parametrize("keep", ["none", "all"])
def test_once_something_of_the_backup_is_there_no_server_starts_before_all_of_it_is(keep):
    """Else one would start with nothing, where its operator expects the state of the backup."""
    outcomes = []
    for point in range(1, count_calls(NewServer, NewServer.restore) + 1):
        server = NewServer()
        server.disk.halt_at(point)
        with contextlib.suppress(Halted):
            server.restore()
        server.crash(keep)
        outcomes.append(judge(server))
    order = ["as before", "does not start", WHOLE]
    assert outcomes == sorted(outcomes, key=order.index)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failing_disk_leaves_nothing_that_starts_or_the_whole(error):
    """D01, D08: and what was made is removed, so that it can be done again."""
    failed = 0
    for server, call, is_told in with_each_call_failing(NewServer, NewServer.restore, error):
        failed += is_told
        if is_told and call != "close":
            assert is_as_before(server), call
        server.crash()
        judge(server)
    assert failed > 20


def test_what_cannot_be_removed_either_is_said():
    server = NewServer()
    server.disk.fill()
    server.disk.fail("unlink")
    server.disk.fail("pwrite")
    server.disk.fill(False)
    with pytest.raises(StorageError) as caught:
        server.restore()
    assert "What was made could not be removed: " in caught.value.__notes__[0]


# -- in clusters


def test_the_restored_server_leads_has_everything_and_others_are_added():
    """M16, M17: and who belonged to the old cluster is refused."""
    old = Cluster(seed=5, size=3)
    old.start()
    leader = old.elect()
    for number in range(5):
        outcome(leader.propose(b"%d" % number))
        old.run(0.2)
    saved = outcome(leader.take_snapshot())
    old.run(1)
    [saved] = saved
    source = old.servers[leader.settings.server_id].disk
    path = f"/data/snapshots/{saved.meta.last_index:020d}-{saved.meta.last_term:020d}.snapshot"
    data = source.read_file(path)
    old.stop()
    new = Cluster(seed=6, size=1, passive=3)
    disk = new.servers["s1"].disk
    disk.write_file(BACKUP, data)
    identity = Identity("simulated.0.0000beef", "s1", 99)
    reader = SnapshotFileReader(disk, BACKUP)
    paths = Paths("/data", "/data/raft.log", "/data/raft.state", "/data/snapshots")
    server = new_server(saved.meta, identity)
    Restoration(disk, paths, 4096).make(reader, server, lambda done, size: None)
    # What was true before the backup stays true, but for who the members are.
    new.record = old.record
    new._invariants._committed = old._invariants._committed[: saved.meta.last_index + 1]
    new._invariants._configurations.append((server.meta.membership_index, Membership.decode(server.meta.membership)))
    members = ("s1", "s3", "s4")
    new.start(*members)
    leader = new.elect()
    assert leader.identity.cluster_id == "simulated.0.0000beef"
    assert decided(new, leader, Change(voters=members[1:])).voters == members
    outcome(leader.propose(b"5"))
    new.run(2)
    assert [new.servers[each].machine.commands for each in members] == [[b"%d" % number for number in range(6)]] * 3
    for server_id in members:
        new.crash(server_id, "none")
    new.start(*members)
    assert new.elect().raft.membership.voters == members
    # What each of them says of itself is not enough for the other.
    one, two = new.servers["s1"].transport, old.servers["s2"].transport
    assert (one._accepts(two), two._accepts(one)) == (False, False)


# -- the command

CONFIG = "interface=127.0.0.1\nrpc_port=29922\ncluster_name=blue\n"


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "raft.conf"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def backup(tmp_path):
    path = tmp_path / "saved"
    path.write_bytes(encoded(SAVED, CHUNKS)[0])
    path.chmod(0o400)
    return path


def store_of(conf):
    from txraft.config_reading import load_config
    from txraft.disk import make_store
    from txraft.storage.writer import InlineWriter

    return make_store(load_config(str(conf), (), str), InlineWriter(), InlineWriter())


@pytest.mark.parametrize("founder", ["", "servers=127.0.0.1:29922\n"])
def test_the_command_makes_a_directory_from_which_that_server_starts(conf, backup, capsys, founder):
    conf.write_text(CONFIG + founder)
    assert main(["restore", str(backup), "--config", str(conf)]) == 0
    shown = capsys.readouterr()
    assert "has the state at entry 70 of cluster old.2.0000000a" in shown.out
    assert "127.0.0.1:29922 is a new cluster of its own" in shown.out
    assert shown.err == "", "no bar in a pipe"
    store = store_of(conf)
    recovered = store.open()
    store.close()
    assert recovered.identity.server_id == "127.0.0.1:29922"
    assert recovered.identity.cluster_id in shown.out
    assert Membership.decode(recovered.snapshot.meta.membership).voters == ("127.0.0.1:29922",)
    assert main(["verify", str(conf.parent / "raft-data")]) == 0


def test_without_a_configuration_directory_server_and_name_are_options(tmp_path, backup, capsys):
    options = ["--data-dir", str(tmp_path / "d"), "--server-id", "10.0.0.9", "--cluster-name", "green"]
    assert main(["restore", str(backup), *options]) == 0
    assert "10.0.0.9:29922 is a new cluster of its own" in capsys.readouterr().out
    conf = tmp_path / "raft.conf"
    conf.write_text("interface=10.0.0.9\nservers=10.0.0.9\ncluster_name=green\ndata_dir=d\n")
    store = store_of(conf)
    assert store.open().snapshot.meta.last_index == 70
    store.close()


def test_two_restorations_of_one_backup_are_two_clusters(tmp_path, backup):
    ids = set()
    for name in ("a", "b"):
        assert main(["restore", str(backup), "--data-dir", str(tmp_path / name)]) == 0
        store = store_of_directory(tmp_path / name)
        identity = store.open().identity
        store.close()
        ids |= {identity.cluster_id, identity.incarnation}
    assert len(ids) == 4


def store_of_directory(directory):
    conf = directory.parent / f"{directory.name}.conf"
    conf.write_text(f"data_dir={directory.name}\n")
    return store_of(conf)


def refused(capsys, status, *arguments):
    assert main(["restore", *map(str, arguments)]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def test_a_directory_with_data_is_refused_and_nothing_in_it_changes(conf, backup, capsys):
    assert main(["restore", str(backup), "--config", str(conf)]) == 0
    capsys.readouterr()
    directory = conf.parent / "raft-data"
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert f"{directory}/raft.state: there already" in refused(capsys, 1, backup, "--config", conf)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_every_flipped_byte_and_every_cut_is_refused_with_its_offset_and_makes_nothing(conf, tmp_path, capsys):
    """S11."""
    data, _ = encoded(SAVED, CHUNKS)
    bad = tmp_path / "bad"
    samples = [data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :] for at in range(0, len(data), 41)]
    samples += [data[:stop] for stop in range(0, len(data), 401)] + [data + b"\0", data + data, b"PK\3\4" * 100]
    for sample in samples:
        bad.write_bytes(sample)
        said = refused(capsys, 1, bad, "--config", conf)
        assert f"{bad}: damaged: " in said and "offset" in said, said
    assert not (tmp_path / "raft-data").exists()


def test_another_format_is_refused(conf, tmp_path, capsys, monkeypatch):
    """D20."""
    monkeypatch.setattr(layout, "FORMAT_VERSION", 2)
    data, _ = encoded(SAVED)
    monkeypatch.undo()
    (tmp_path / "newer").write_bytes(data)
    said = refused(capsys, 1, tmp_path / "newer", "--config", conf)
    assert "format 2, but this version of txraft reads format 1" in said
    assert not (tmp_path / "raft-data").exists()


def test_a_file_that_is_none_or_not_there_is_named(conf, tmp_path, capsys):
    assert f"{tmp_path}/none: there is no such file" in refused(capsys, 1, tmp_path / "none", "--config", conf)
    assert f"{tmp_path}: pread failed: Is a directory" in refused(capsys, 1, tmp_path, "--config", conf)


def test_others_must_not_found_a_cluster_of_the_same_name(conf, backup, capsys):
    """They would be a cluster without the state, and clients might be sent there."""
    conf.write_text(CONFIG + "servers=127.0.0.1,127.0.0.2\n")
    said = refused(capsys, 2, backup, "--config", conf)
    assert f"{conf}:4: servers: the new cluster begins with 127.0.0.1:29922 alone" in said
    assert os.listdir(conf.parent) == [conf.name, backup.name] or not (conf.parent / "raft-data").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "say with --config or with --data-dir"),
        (("--data-dir", "d", "--server-id", "a b:1"), "'a b:1'"),
        (("--data-dir", "d", "--cluster-name", "\n"), "cluster_name"),
        (("--config", "none.conf"), "none.conf"),
    ],
)
def test_what_cannot_be_understood_is_status_2(backup, capsys, arguments, why):
    assert why in refused(capsys, 2, backup, *arguments)
