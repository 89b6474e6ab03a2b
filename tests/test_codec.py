"""The codec: what goes in comes out, and what must not come in is refused with `ProtocolError`."""

from __future__ import annotations

import contextlib
import random

import pytest

from txraft import codec
from txraft._proto import raft_pb2
from txraft.core.log import EntryKind, EntryRun, LogSlice
from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    PreVote,
    PreVoteResponse,
    Refusal,
    RefusalReason,
    RequestVote,
    RequestVoteResponse,
)
from txraft.errors import ProtocolError
from txraft.interfaces import Identity

RUN_A = EntryRun(5, 2, EntryKind.COMMAND, 900, [b"a", b"", b"\x00\xff" * 9])
RUN_B = EntryRun(8, 3, EntryKind.NOOP, 901, [b""])

MESSAGES = [
    PreVote(term=4, round=2, last_log_index=7, last_log_term=3),
    PreVoteResponse(term=4, round=2, granted=True),
    PreVoteResponse(term=0, round=2, granted=False),
    PreVoteResponse(term=4, round=2, granted=False, refusal=Refusal(RefusalReason.LOG, "", 9, 3)),
    RequestVoteResponse(term=4, granted=False, refusal=Refusal(RefusalReason.VOTED, "10.0.0.1:29922")),
    RequestVote(term=4, last_log_index=2**64 - 1, last_log_term=3),
    RequestVoteResponse(term=4, granted=False),
    AppendEntries(3, 4, 2, 4, 17, LogSlice(5, [RUN_A, RUN_B])),
    AppendEntries(3, 4, 2, 4, 17, LogSlice(5)),
    AppendEntriesResponse(3, 17, 8),
    AppendEntriesResponse(3, 17, 0, True, 12, 11, 2),
]


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
@pytest.mark.parametrize("buffer", [bytes, memoryview])
def test_every_message_comes_back_as_it_was(message, buffer):
    assert codec.decode_message(buffer(codec.encode_message(message))) == message


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_a_message_without_any_one_field_is_a_message_or_a_protocol_error(message):
    """N14."""
    whole = raft_pb2.Envelope.FromString(codec.encode_message(message))
    for field, _ in getattr(whole, whole.WhichOneof("message")).ListFields():
        part = raft_pb2.Envelope.FromString(whole.SerializeToString())
        getattr(part, part.WhichOneof("message")).ClearField(field.name)
        try:
            decoded = codec.decode_message(part.SerializeToString())
        except ProtocolError:
            continue
        assert type(decoded) is type(message) and decoded != message


def envelope(**fields):
    return raft_pb2.Envelope(**fields).SerializeToString()


def run_bytes(first_index=5, term=2, kind=0, time_ms=9, data=(b"x",)):
    return raft_pb2.EntryRun(
        first_index=first_index, term=term, kind=kind, time_ms=time_ms, data=data
    ).SerializeToString()


def test_a_reason_of_a_later_version_is_a_refusal_all_the_same():
    """A newer voter may refuse for what this version has no name for: its answer still counts as a refusal."""
    for parsed in (
        {"pre_vote_response": raft_pb2.PreVoteResponse(term=2, refusal=raft_pb2.Refusal(reason=99))},
        {"request_vote_response": raft_pb2.RequestVoteResponse(term=2, refusal=raft_pb2.Refusal(reason=99))},
    ):
        message = codec.decode_message(envelope(**parsed))
        assert (message.granted, message.refusal) == (False, Refusal(RefusalReason.UNKNOWN))


def append(*runs, term=2, prev_log_index=4, prev_log_term=2):
    return envelope(
        append_entries=raft_pb2.AppendEntries(
            term=term, prev_log_index=prev_log_index, prev_log_term=prev_log_term, runs=runs
        )
    )


def test_a_well_made_append_is_accepted():
    """The base from which each refused append below differs in one thing."""
    assert len(codec.decode_message(append(run_bytes())).entries) == 1


REFUSED_MESSAGES = {
    "empty body": b"",
    "not parseable": b"\xff\xff\xff",
    "no message": envelope(group=0) + b"\x08\x00",
    "unknown message": b"\x7a\x02\x08\x01",
    "other group": envelope(group=1, pre_vote=raft_pb2.PreVote(term=1)),
    "term 0": envelope(request_vote=raft_pb2.RequestVote(term=0, last_log_index=1)),
    "term 0 append": append(term=0, prev_log_index=0, prev_log_term=0),
    "term 0 pre-vote granted": envelope(pre_vote_response=raft_pb2.PreVoteResponse(granted=True)),
    "gap behind the previous entry": append(run_bytes(first_index=6)),
    "overlap with the previous entry": append(run_bytes(first_index=4)),
    "gap between runs": append(run_bytes(), run_bytes(first_index=7)),
    "term goes back": append(run_bytes(), run_bytes(first_index=6, term=1)),
    "time goes back": append(run_bytes(), run_bytes(first_index=6, time_ms=8)),
    "term before the previous entry's": append(run_bytes(term=1)),
    "entry of a later term than the message": append(run_bytes(term=3)),
    "previous entry of a later term than the message": append(prev_log_term=3),
    "run without entries": append(run_bytes(data=())),
    "run of unknown kind": append(run_bytes(kind=4)),
    "run of term 0": append(run_bytes(term=0), prev_log_term=0),
    "run is garbage": append(b"\xff"),
    "run is empty": append(b""),
}


@pytest.mark.parametrize("payload", REFUSED_MESSAGES.values(), ids=list(REFUSED_MESSAGES))
def test_a_message_that_must_not_come_in_is_a_protocol_error(payload):
    """R11, N13."""
    with pytest.raises(ProtocolError):
        codec.decode_message(payload)


@pytest.mark.parametrize(
    "payload", [b"", run_bytes(first_index=0), run_bytes(term=0), run_bytes(data=()), run_bytes(kind=7), b"\x01"]
)
def test_a_run_that_must_not_come_in_is_a_protocol_error(payload):
    with pytest.raises(ProtocolError):
        codec.decode_run(payload)


def test_damaged_messages_decode_or_are_protocol_errors_and_nothing_else():
    rng = random.Random(1)
    for _ in range(3000):
        data = bytearray(codec.encode_message(rng.choice(MESSAGES)))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        del data[rng.randrange(len(data) + 1) :]
        for decode in (codec.decode_message, codec.decode_hello, codec.decode_run, codec.decode_record):
            with contextlib.suppress(ProtocolError):
                decode(memoryview(data))


def test_a_run_is_serialised_once_for_all_messages_and_the_disk(monkeypatch):
    serialised = []
    serialize = codec._serialize_run
    monkeypatch.setattr(codec, "_serialize_run", lambda run: serialised.append(run) or serialize(run))
    run = EntryRun(1, 1, EntryKind.COMMAND, 0, [b"x"])
    for round_number in range(3):
        codec.encode_message(AppendEntries(1, 0, 0, 0, round_number, LogSlice(1, [run])))
    codec.encode_record([run])
    assert serialised == [run]


def test_a_received_run_is_passed_on_as_the_bytes_it_came_in():
    """A later version's fields survive on their way to our disk."""
    data = run_bytes() + b"\x7a\x01z"
    run = codec.decode_message(append(data)).entries.runs[0]
    assert run.encoded == data
    assert codec.decode_record(codec.encode_record([run]))[0][0].encoded == data


def test_a_split_run_is_encoded_anew():
    codec.encode_run(RUN_A)
    assert codec.decode_run(codec.encode_run(RUN_A.starting_at(6))) == RUN_A.starting_at(6)


def test_hello_comes_back_as_it_was():
    hello = codec.Hello(codec.PROTOCOL_VERSION, "c", "s1", "s2", 2**64 - 1, "h:1", "h:2", "no")
    assert codec.decode_hello(codec.encode_hello(hello)) == hello
    with pytest.raises(ProtocolError):
        codec.decode_hello(b"")


def test_record_comes_back_as_it_was():
    assert codec.decode_record(codec.encode_record([RUN_A, RUN_B], 7)) == ([RUN_A, RUN_B], 7)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x0a\x01\x00"])
def test_a_record_that_cannot_be_read_is_a_protocol_error(payload):
    with pytest.raises(ProtocolError):
        codec.decode_record(payload)


@pytest.mark.parametrize("voted_for", [None, "s2"])
@pytest.mark.parametrize("cluster_id", ["", "c"])
def test_state_comes_back_as_it_was(voted_for, cluster_id):
    state = (Identity(cluster_id, "s1", 77), HardState(3, voted_for))
    assert codec.decode_state(codec.encode_state(*state)) == state
