"""`raftctl recover`: one server goes on with what it has; nothing is lost by asking, a crash, or a failing disk."""

from __future__ import annotations

import contextlib
import errno
import io
import random

import attrs
import pytest
from core_text import membership
from storage_cases import Server, count_calls, entries, run, with_each_call_failing
from test_reconfiguration import decided, outcome
from twisted.internet.defer import fail

from txraft.admin.raftctl import main
from txraft.admin.recovery_plan import CannotRecover, carry_out, plan_recovery, remains_of
from txraft.core import cluster_id as ids
from txraft.core.change import Change
from txraft.core.log import EntryKind
from txraft.core.membership import Membership
from txraft.core.messages import HardState
from txraft.core.snapshot import SnapshotMeta
from txraft.errors import StorageError
from txraft.interfaces import Identity, Recovered, Snapshot
from txraft.storage.writer import InlineWriter
from txraft.testing.cluster import Cluster
from txraft.testing.disk import FakeDisk, Halted

EPOCH = "c.0.0000000e"
ME = Identity(EPOCH, "s1", 77)
OLD = Membership(
    EPOCH, ("s1", "s2", "s3"), incarnations=(("s1", 77), ("s2", 2)), addresses=(("s1", "h:1"), ("s2", "h:2"))
)


def configuration(index, one, term=1):
    return run(index, [one.encode()], term=term, kind=EntryKind.CONFIGURATION)


def found(*runs, snapshot=None, identity=ME, term=3):
    return Recovered(identity, HardState(term, "s2"), list(runs), snapshot)


def plan(*runs, voters=(), **facts):
    return plan_recovery(remains_of(found(*runs, **facts)), voters, random_bits=5)


# -- what is there, and what becomes of it


@pytest.mark.parametrize(
    ("memberships", "committed"),
    [
        (["s1,s2"], 0),
        # What is joint is left only when it is committed, and begun only when all have caught up, by a committed entry.
        (["s1,s2", "s1<s1,s2"], 0),
        (["s1,s2", "s1<s1,s2", "s1"], 2),
        (["s1,s2", "s1<s1,s2", "s1", "s1/s4"], 2),
    ],
)
def test_what_the_log_itself_proves_to_be_committed(memberships, committed):
    runs = [configuration(index, membership(text)) for index, text in enumerate(memberships, 1)]
    remains = remains_of(found(*runs, run(len(runs) + 1, "ab")))
    assert (remains.committed_index, remains.last_index) == (committed, len(runs) + 2)


def test_what_the_server_knew_to_be_committed_counts_as_far_as_it_is_there():
    log = [configuration(1, OLD), run(2, "abc")]
    for known, expected in ((0, 0), (3, 3), (9, 4)):
        assert remains_of(attrs.evolve(found(*log), commit_index=known)).committed_index == expected


def test_what_a_snapshot_holds_is_committed_and_its_membership_counts():
    meta = SnapshotMeta(EPOCH, 40, 2, 5000, OLD.encode(), 7)
    remains = remains_of(found(snapshot=Snapshot(meta, 1, b"")))
    assert (remains.committed_index, remains.last_index, remains.last_term, remains.last_time_ms) == (40, 40, 2, 5000)
    assert (remains.membership, remains.membership_index) == (OLD, 7)
    remains = remains_of(found(configuration(41, membership("s1"), term=3), snapshot=Snapshot(meta, 1, b"")))
    assert (remains.membership_index, remains.last_term, remains.last_index) == (41, 3, 41)


def test_the_new_cluster_begins_behind_all_that_is_there_in_a_term_and_an_epoch_of_its_own():
    made = plan(configuration(1, OLD), run(2, "ab", term=2, time_ms=9000))
    assert (made.entry.first_index, made.entry.term, made.entry.time_ms) == (4, 4, 9000)
    assert made.hard_state == HardState(4, "s1")
    assert Membership.decode(made.entry.commands[0]) == made.membership
    assert made.membership == Membership(
        "c.1.00000005", ("s1",), incarnations=(("s1", 77),), addresses=(("s1", "h:1"),)
    )


def test_others_are_asked_in_and_count_for_nothing_before_they_have_caught_up():
    made = plan(configuration(1, OLD), voters=("s5", "s1", "s4")).membership
    assert (made.voters, made.next_voters) == (("s1",), ("s1", "s4", "s5"))


@pytest.mark.parametrize(
    ("identity", "old", "expected"),
    [("c", "c", "c.1."), ("c", EPOCH, "c.1."), (EPOCH, EPOCH, "c.1."), ("c.3.0000000e", EPOCH, "c.4.")],
)
def test_each_recovery_is_another_epoch(identity, old, expected):
    one = Membership(old, ("s1", "s2"))
    assert (
        plan(configuration(1, one), identity=Identity(identity, "s1", 77)).membership.cluster_id
        == expected + "00000005"
    )


def test_a_recovery_that_was_cut_short_is_done_again_in_yet_another_epoch():
    first = plan(configuration(1, OLD))
    again = plan(configuration(1, OLD), first.entry, term=4)
    assert not again.is_done
    assert ids.recoveries(again.membership.cluster_id) == 2


@pytest.mark.parametrize(
    ("runs", "voters", "why"),
    [
        ([], (), "s1 has never been a member"),
        ([configuration(1, OLD)], ("s2", "s4"), "s1 must be one of the members"),
    ],
)
def test_what_cannot_be_recovered_is_refused(runs, voters, why):
    with pytest.raises(CannotRecover, match=why):
        plan(*runs, voters=voters)


def test_a_server_that_is_alone_already_needs_no_recovery():
    alone = configuration(1, Membership(EPOCH, ("s1",)))
    assert plan(alone).is_done
    assert not plan(alone, voters=("s1", "s4")).is_done


# -- on a disk that crashes and fails


LOG_RUNS = [configuration(1, Membership("c", ("s1", "s2"))), run(2, "abc"), run(5, [b"d" * 900], term=2)]


class Survivor(Server):
    """A server with a log, whose writer writes at once."""

    def __init__(self, seed=0):
        super().__init__(seed, segment_bytes=4096)
        self.open()
        self.write(HardState(2, "s2"), LOG_RUNS)
        self.close()

    def recover(self):
        store = self.make_store()
        store._writer = InlineWriter()
        store.snapshots._writer = InlineWriter()
        made = plan_recovery(remains_of(store.open(must_exist=True)), (), random_bits=5)
        carry_out(made, store)
        store.close().addErrback(lambda failure: failure.trap(Halted))


def judge(server):
    """On the disk afterwards: the old server or the new cluster, with all entries; whether it is the new one."""
    after = server.open()
    before = entries(LOG_RUNS)
    assert entries(after.runs)[: len(before)] == before
    assert after.hard_state in (HardState(2, "s2"), HardState(3, "s1"))
    remains = remains_of(after)
    is_new = len(entries(after.runs)) > len(before)
    assert ids.recoveries(remains.membership.cluster_id) == is_new
    assert is_new or after.identity.cluster_id == "c"
    assert after.hard_state.term >= remains.last_term, "else it would not start"
    return is_new, after.identity.cluster_id


def test_a_recovery_is_durable():
    server = Survivor()
    server.recover()
    server.crash("none")
    assert judge(server) == (True, "c.1.00000005")


@pytest.mark.parametrize("keep", ["none", "some", "all"])
def test_a_crash_at_any_call_leaves_the_old_server_or_the_new_cluster(keep):
    """D02, D10."""
    outcomes = set()
    for seed in range(6 if keep == "some" else 1):
        for point in range(1, count_calls(Survivor, Survivor.recover) + 1):
            server = Survivor(seed)
            server.disk.halt_at(point)
            # At the end it only lets go of the files.
            with contextlib.suppress(Halted, StorageError):
                server.recover()
            server.crash(keep)
            outcomes.add(judge(server))
    assert outcomes >= {(False, "c"), (True, "c")}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failing_disk_leaves_the_old_server_or_the_new_cluster(error):
    """D01, D08."""
    failed = 0
    for server, _, is_told in with_each_call_failing(Survivor, Survivor.recover, error):
        failed += is_told
        server.crash()
        judge(server)
    assert failed > 10


# -- in clusters


def recover_disk(cluster, server_id):
    """What the command does, on a simulated disk."""
    server = cluster.servers[server_id]
    store = cluster._store(server, server.disk, InlineWriter(), InlineWriter())
    carry_out(plan_recovery(remains_of(store.open(must_exist=True)), (), random_bits=5), store)
    store.close()


def after_a_disaster(seed):
    """
    A cluster of three of which s1 was recovered, with two servers that are to join; s2 has its old disk. Nobody runs.

    It is another `Cluster`: for the invariants of the old one, what the majority had promised is lost.
    """
    old = Cluster(seed=seed)
    old.start()
    leader = old.elect()
    for number in range(5):
        outcome(leader.propose(b"%d" % number))
        old.run(0.2)
    old.stop()
    new = Cluster(seed=seed, passive=2)
    for server_id in ("s1", "s2"):
        new.servers[server_id].disk = old.servers[server_id].disk.copy()
    recover_disk(new, "s1")
    return new


def test_a_recovered_server_leads_and_has_everything_and_old_members_are_refused():
    """M16, M17."""
    cluster = after_a_disaster(1)
    cluster.start("s1", "s2", "s4", "s5")
    leader = cluster.elect()
    assert leader.settings.server_id == "s1"
    assert decided(cluster, leader, Change(voters=("s4", "s5"))).voters == ("s1", "s4", "s5")
    cluster.run(5)
    assert [len(cluster.servers[server_id].machine.commands) for server_id in ("s1", "s4", "s5")] == [5, 5, 5]
    assert {cluster.node(server_id).identity.cluster_id for server_id in ("s1", "s4", "s5")} == {"simulated.1.00000005"}
    assert cluster.node("s2").raft.leader_id is None
    one, two = (cluster.servers[server_id].transport for server_id in ("s1", "s2"))
    assert not one.shakes_hands_with(two)


def test_an_old_member_that_is_wiped_and_added_is_a_member_of_the_recovered_cluster():
    cluster = after_a_disaster(2)
    cluster.start("s1", "s4", "s5")
    leader = cluster.elect()
    decided(cluster, leader, Change(voters=("s4", "s5")))
    cluster.servers["s2"].disk = FakeDisk(random.Random(1))
    cluster.start("s2")
    cluster.run(2)
    assert decided(cluster, leader, Change(voters=("s2",))).voters == ("s1", "s2", "s4", "s5")
    assert cluster.run_until(lambda: len(cluster.servers["s2"].machine.commands) == 5, 5)
    for server_id in ("s1", "s2", "s4", "s5"):
        cluster.crash(server_id, "none")
    cluster.start("s2", "s4", "s5")
    assert cluster.elect().identity.cluster_id == "simulated.1.00000005"


def test_a_server_whose_recovery_was_cut_short_behind_its_entry_starts_as_the_new_cluster(monkeypatch):
    cluster = after_a_disaster(3)
    server = cluster.servers["s1"]
    store = cluster._store(server, server.disk, InlineWriter(), InlineWriter())
    made = plan_recovery(remains_of(store.open(must_exist=True)), ("s1", "s4"), random_bits=6)
    monkeypatch.setattr(store, "join", lambda _: store.close().addCallback(lambda _: fail(StorageError("cut short"))))
    with pytest.raises(StorageError):
        carry_out(made, store)
    cluster.start("s1", "s2")
    assert cluster.elect().identity.cluster_id == "simulated.2.00000006"
    assert cluster.node("s1").raft.membership.next_voters == ("s1", "s4")


# -- the command


CONFIG = "interface=127.0.0.1\nrpc_port=29922\nservers=127.0.0.1:29922,127.0.0.1:29923\ncluster_name=blue\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "raft.conf"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def typed(monkeypatch):
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def real_store(config):
    from txraft.config_reading import load_config
    from txraft.disk import make_store

    return make_store(load_config(str(config), (), str), InlineWriter(), InlineWriter())


@pytest.fixture
def data(config):
    """The files of a server that has run, by path, as a function."""
    store = real_store(config)
    store.open()
    cluster_id = load_cluster_id(config)
    store.write(HardState(1, None), [configuration(1, Membership(cluster_id, ("127.0.0.1:29922", "127.0.0.1:29923")))])
    store.write(None, [run(2, "abc")])
    store.close()
    directory = config.parent / "raft-data"
    return lambda: {
        path: path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "lock" and path.suffix != ".tmp"
    }


def load_cluster_id(config):
    from txraft.config_reading import load_config

    return load_config(str(config), (), str).cluster_id


def test_the_command_shows_what_is_there_and_asks_for_the_name(config, data, typed, capsys):
    typed("blue\n")
    assert main(["recover", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "of server 127.0.0.1:29922; its raft.conf calls the cluster blue.",
        "term 1, last entry 4 of term 1",
        "voters 127.0.0.1:29922, 127.0.0.1:29923",
        "known to be committed: nothing; not known: entries 1 to 4",
        "entry 5 of term 2 says so",
        "Type the cluster's name, blue, to go on: ",
        "Start it.",
    ):
        assert part in shown
    recovered = real_store(config).open()
    assert ids.recoveries(recovered.identity.cluster_id) == 1
    assert remains_of(recovered).membership.voters == ("127.0.0.1:29922",)


def test_asking_again_is_no_error_and_changes_nothing(config, data, typed, capsys):
    typed("blue\n")
    assert main(["recover", "--config", str(config)]) == 0
    before = data()
    assert main(["recover", "--config", str(config)]) == 0
    assert "already" in capsys.readouterr().out
    assert data() == before


@pytest.mark.parametrize("answer", ["", "\n", "yes\n", "Blue\n", "blue2\n"])
def test_whatever_else_is_typed_changes_nothing(config, data, typed, capsys, answer):
    before = data()
    typed(answer)
    assert main(["recover", "--config", str(config)]) == 1
    assert "not confirmed; nothing was changed" in capsys.readouterr().err
    assert data() == before


def test_a_server_that_runs_is_left_alone(config, data, typed, capsys):
    store = real_store(config)
    store.open()
    before = data()
    typed("blue\n")
    assert main(["recover", "--config", str(config)]) == 1
    assert "in use by another process" in capsys.readouterr().err
    assert data() == before
    store.close()


def test_a_directory_without_a_server_is_not_made(config, typed, capsys):
    typed("blue\n")
    assert main(["recover", "--config", str(config)]) == 1
    assert "no server has ever started" in capsys.readouterr().err
    assert not (config.parent / "raft-data").exists()


@pytest.mark.parametrize(
    ("members", "status", "why"),
    [("127.0.0.2", 1, "127.0.0.1:29922 must be one of the members"), ("a b", 2, "'a b'")],
)
def test_members_that_cannot_be_are_refused_before_anything_is_asked(config, data, capsys, members, status, why):
    before = data()
    assert main(["recover", "--config", str(config), "--members", members]) == status
    assert why in capsys.readouterr().err
    assert data() == before


def test_a_configuration_that_cannot_be_read_is_named(tmp_path, capsys):
    assert main(["recover", "--config", str(tmp_path / "none.conf")]) == 2
    assert "none.conf" in capsys.readouterr().err
