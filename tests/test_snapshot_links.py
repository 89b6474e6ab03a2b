"""Snapshots between servers over connections of their own, on links in memory."""

from __future__ import annotations

from typing import Any

import pytest
from memory_links import Caller, Network, Server, hello_frame, log_lines, pair, vote
from snapshot_cases import DIRECTORY, encoded, meta
from snapshot_cases import Server as Disk
from twisted.internet.defer import Deferred, succeed

from txraft.codec import ConnectionRole, SnapshotData, SnapshotPosition, decode_snapshot_frame, encode_snapshot_frame
from txraft.core.contact import Contact
from txraft.errors import ProtocolError, StorageError, TransferFailed
from txraft.framing import Splitter, frame
from txraft.net.sending import CHUNK_BYTES, STALL_S, WINDOW_BYTES
from txraft.storage.snapshots import SnapshotStore
from txraft.testing.writer import FakeWriter

CHUNKS = [bytes([number % 251]) * 100_000 for number in range(30)]


class Reader:
    """A file in memory; `reads` are the offsets that were asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[int] = []

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        self.reads.append(offset)
        return succeed(self.data[offset : offset + length])


class SlowDisk(Disk):
    """Each of its jobs takes 10 ms."""

    def start(self) -> Any:
        self.writer = FakeWriter(self.clock, lambda: 0.01)
        self.store = SnapshotStore(self.disk, DIRECTORY, self.keep, True, self.writer)
        return self.store.recover()


class Receiver:
    """Takes snapshots into a simulated disk."""

    def __init__(self, network: Network, server: Server) -> None:
        self.disk = SlowDisk()
        self.network = network
        self.offers: list[str] = []
        server.accept = self.accept

    def accept(self, sender: str, offer: Any) -> Deferred[Any]:
        self.offers.append(sender)
        return self.disk.store.receive(offer)

    def work(self, jobs: int = 1000) -> None:
        """The disk does so much of what is asked of it, and everything moves."""
        while jobs and self.disk.clock.getDelayedCalls():
            self.disk.clock.advance(0.01)
            self.network.run()
            jobs -= 1


class Setting:
    """s1 sends to s2 what it has."""

    def __init__(self, bandwidth: int = 0) -> None:
        self.network = Network()
        self.one, self.two = pair(self.network)
        self.one.transport._snapshot_bandwidth = bandwidth
        self.receiver = Receiver(self.network, self.two)
        data, self.snapshot = encoded(chunks=CHUNKS)
        self.reader = Reader(data)
        self.outcome: list[Any] = []

    def send(self) -> Any:
        transfer = self.one.transport.send_snapshot("s2", self.snapshot, self.reader)
        transfer.done.addBoth(self.outcome.append)
        self.network.run()
        return transfer

    def finish(self) -> None:
        for _ in range(1000):
            if self.outcome:
                break
            self.receiver.work()
            self.network.advance(0.05)


def test_a_snapshot_arrives_whole_and_is_verified_there() -> None:
    setting = Setting()
    transfer = setting.send()
    setting.finish()
    assert setting.outcome == [None]
    assert transfer.offset == setting.snapshot.size
    assert setting.receiver.offers == ["s1"]
    assert setting.receiver.disk.chunks(setting.snapshot) == CHUNKS
    assert setting.receiver.disk.store.kept() == (setting.snapshot,)


def test_the_end_of_a_connection_is_news_unless_the_snapshot_has_come() -> None:
    setting = Setting()
    with log_lines() as lines:
        setting.send().cancel()
        setting.network.advance(2)
    assert [line for line in lines if "link snapshot from" in line] != []
    setting = Setting()
    with log_lines() as lines:
        setting.send()
        setting.finish()
        setting.network.advance(2)
    assert setting.outcome == [None]
    assert [line for line in lines if "link snapshot from" in line] == []


def test_messages_go_on_meanwhile_on_their_own_connection() -> None:
    """S12."""
    setting = Setting()
    setting.send()
    setting.one.send("s2", vote(7))
    setting.network.run()
    assert setting.two.terms() == [7]
    assert not setting.outcome


def test_no_more_than_a_window_is_sent_ahead_of_the_disk_there() -> None:
    setting = Setting()
    transfer = setting.send()
    setting.receiver.work(jobs=2)
    assert len(setting.reader.reads) == WINDOW_BYTES // CHUNK_BYTES
    assert transfer.offset == 0
    setting.network.advance(10)
    assert len(setting.reader.reads) == WINDOW_BYTES // CHUNK_BYTES


def test_it_goes_on_where_it_was_after_a_lost_connection() -> None:
    """S06."""
    setting = Setting()
    transfer = setting.send()
    setting.receiver.work(jobs=12)
    assert 0 < transfer.offset < setting.snapshot.size
    reached = transfer.offset
    setting.network.link("s1", "s2").cut()
    setting.reader.reads.clear()
    setting.finish()
    assert setting.outcome == [None]
    assert min(setting.reader.reads) >= reached
    assert setting.receiver.offers == ["s1", "s1"]


def test_a_receiver_that_was_restarted_goes_on_from_its_disk() -> None:
    """S06, S14."""
    setting = Setting()
    setting.send()
    setting.receiver.work(jobs=12)
    setting.receiver.disk.crash("all")
    setting.receiver.disk.start()
    setting.network.link("s1", "s2").cut()
    setting.reader.reads.clear()
    setting.finish()
    assert setting.outcome == [None]
    assert min(setting.reader.reads) > 0


def test_a_bandwidth_is_kept_to() -> None:
    setting = Setting(bandwidth=1_000_000)
    began = setting.network.clock.seconds()
    setting.send()
    setting.finish()
    seconds = setting.network.clock.seconds() - began
    assert setting.outcome == [None]
    assert 2.5 < seconds < 4.0


def test_what_is_damaged_on_the_way_is_refused_and_thrown_away() -> None:
    """S11: then it can be fetched again."""
    setting = Setting()
    damaged = bytearray(setting.reader.data)
    damaged[1_000_000] ^= 1
    setting.reader.data, intact = bytes(damaged), setting.reader.data
    setting.send()
    setting.finish()
    assert isinstance(setting.outcome[0].value, TransferFailed)
    assert setting.receiver.disk.store.kept() == ()
    setting.reader.data, setting.outcome = intact, []
    setting.send()
    setting.finish()
    assert setting.outcome == [None]


def test_who_does_not_want_it_says_why() -> None:
    setting = Setting()

    def refuse(sender: str, offer: Any) -> Deferred[Any]:
        raise ProtocolError(f"{sender} does not lead this server")

    setting.two.accept = refuse
    setting.send()
    assert "s1 does not lead this server" in str(setting.outcome[0].value)


def test_a_disk_that_fails_there_ends_it() -> None:
    setting = Setting()
    setting.send()
    setting.receiver.disk.disk.fail("pwrite")
    setting.finish()
    assert isinstance(setting.outcome[0].value, TransferFailed)
    assert "pwrite" in str(setting.outcome[0].value)


def test_a_file_that_cannot_be_read_ends_it() -> None:
    setting = Setting()

    def cannot(offset: int, length: int) -> Deferred[bytes]:
        raised: Deferred[bytes] = Deferred()
        raised.errback(StorageError("no such sector"))
        return raised

    setting.reader.read = cannot  # type: ignore[method-assign]
    setting.send()
    setting.finish()
    assert "no such sector" in str(setting.outcome[0].value)


def test_a_receiver_that_gets_nowhere_is_given_up() -> None:
    """S10."""
    setting = Setting()
    setting.network.silent.add("s2")
    setting.send()
    setting.network.advance(STALL_S + 1, step=0.5)
    assert "no progress" in str(setting.outcome[0].value)


def test_a_member_that_has_moved_is_sent_it_where_it_is() -> None:
    setting = Setting()
    setting.network.listening["elsewhere:1"] = setting.network.listening["s2"]
    setting.one.transport.set_peers([Contact("s2", "elsewhere:1")])
    setting.network.advance(2)
    setting.network.attempts.clear()
    setting.send()
    setting.finish()
    assert (setting.outcome, setting.network.attempts) == ([None], ["elsewhere:1"])


def test_what_is_cancelled_stops_and_never_fires() -> None:
    setting = Setting()
    transfer = setting.send()
    transfer.cancel()
    setting.finish()
    assert setting.outcome == []
    assert setting.one.transport._transfers == {}
    assert not setting.network.clock.getDelayedCalls()


def test_a_stopping_server_ends_what_it_sends() -> None:
    setting = Setting()
    setting.send()
    stopped: list[Any] = []
    setting.one.transport.stop().addCallback(stopped.append)
    setting.network.advance(2)
    assert stopped == [None] and setting.outcome == []


def test_a_connection_of_unknown_role_is_refused() -> None:
    setting = Setting()
    caller = Caller(setting.network, "s2")
    caller.say(hello_frame("s1", "s2", role=7))
    setting.network.run()
    assert b"unknown role" in caller.heard


@pytest.mark.parametrize("said", [SnapshotPosition(1), SnapshotData(0, b"x")])
def test_who_does_not_keep_to_the_protocol_is_cut_off(said: Any) -> None:
    """An answer from a sender; data without an offer."""
    setting = Setting()
    caller = Caller(setting.network, "s2")
    caller.say(hello_frame("s1", "s2", role=int(ConnectionRole.SNAPSHOT)))
    caller.say(frame(encode_snapshot_frame(said)))
    setting.network.advance(2)
    assert caller.lost


def test_data_at_another_place_than_where_it_belongs_is_refused() -> None:
    """S06: chunks of two transfers never mix."""
    setting = Setting()
    caller = Caller(setting.network, "s2")
    caller.say(hello_frame("s1", "s2", role=int(ConnectionRole.SNAPSHOT)))
    caller.say(frame(encode_snapshot_frame(setting.snapshot)))
    setting.receiver.work()
    caller.say(frame(encode_snapshot_frame(SnapshotData(5, b"x"))))
    setting.network.advance(2)
    frames = [decode_snapshot_frame(payload) for payload in Splitter(1 << 20).feed(caller.heard)[1:]]
    assert frames[0] == SnapshotPosition(0)
    assert "bytes [5, 6)" in frames[1].refusal  # type: ignore[union-attr]
    assert caller.lost


def test_frames_survive_the_codec() -> None:
    for said in (encoded()[1], SnapshotPosition(0), SnapshotData(3, b"abc")):
        assert decode_snapshot_frame(encode_snapshot_frame(said)) == said
    assert decode_snapshot_frame(encode_snapshot_frame(encoded(meta(9, 3))[1])).meta == meta(9, 3)  # type: ignore[union-attr]
    with pytest.raises(ProtocolError):
        decode_snapshot_frame(b"\x1a\x00")
