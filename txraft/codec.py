"""
Bytes of the wire and of the disk, to and from the core's values. The only importer of the generated module.

A run is serialised once, by whoever needs its bytes first, and the bytes stay with it: the log, every peer and the
disk share them. Decoding keeps bytes and numbers, never a protobuf message: a sub-message would keep the whole frame
that it came in alive. Every `decode_*` raises `ProtocolError` on what it cannot accept, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, TypeVar

import attrs
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage

from txraft._proto import raft_pb2
from txraft.core.log import EntryKind, EntryRun, LogSlice, is_contiguous
from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    Message,
    PreVote,
    PreVoteResponse,
    Refusal,
    RefusalReason,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from txraft.core.snapshot import SnapshotMeta
from txraft.errors import ProtocolError
from txraft.interfaces import Identity, Snapshot

PROTOCOL_VERSION = 1

Payload = bytes | memoryview
_T = TypeVar("_T", bound=ProtobufMessage)


class ConnectionRole(IntEnum):
    """What a connection between two servers is for; the numbers are those on the wire."""

    MESSAGES = 0
    SNAPSHOT = 1


@attrs.frozen
class Hello:
    """First frame in each direction of a peer connection; `raft.proto` says what each field means."""

    protocol_version: int
    cluster_id: str
    server_id: str
    receiver_id: str
    incarnation: int
    client_address: str = ""
    admin_address: str = ""
    refusal: str = ""
    lost_data: bool = False
    role: int = ConnectionRole.MESSAGES


@attrs.frozen
class SnapshotPosition:
    """From a receiver: so many bytes of the file are there."""

    offset: int


@attrs.frozen
class SnapshotData:
    """A part of the file, from `offset` on."""

    offset: int
    data: bytes


@attrs.frozen
class SnapshotEnd:
    """From a receiver: it has the snapshot, if `refusal` is empty; else it does not want it, and this is why."""

    refusal: str


SnapshotFrame = Snapshot | SnapshotPosition | SnapshotData | SnapshotEnd


def _parse(message_class: type[_T], payload: Payload) -> _T:
    """Every kind of message has a field that is always set, so an empty body is never a valid one."""
    if not payload:
        raise ProtocolError(f"empty body where {message_class.DESCRIPTOR.name} was expected")
    try:
        return message_class.FromString(payload)  # type: ignore[arg-type]  # takes any buffer
    except DecodeError as error:
        raise ProtocolError(f"not a {message_class.DESCRIPTOR.name}: {error}") from None


def encode_run(run: EntryRun) -> bytes:
    """The bytes of a run, made the first time they are asked for and kept in `run.encoded`."""
    encoded = run.encoded
    if encoded is None:
        encoded = run.encoded = _serialize_run(run)
    return encoded


def _serialize_run(run: EntryRun) -> bytes:
    """The one place where entries become bytes; a test that counts encodings wraps this."""
    return raft_pb2.EntryRun(
        first_index=run.first_index,
        term=run.term,
        kind=run.kind,  # type: ignore[arg-type]  # our IntEnum has the numbers of the generated one
        time_ms=run.time_ms,
        data=run.commands,
    ).SerializeToString()


def decode_run(data: Payload) -> EntryRun:
    """A run, with `encoded` set to the bytes that it came in."""
    parsed = _parse(raft_pb2.EntryRun, data)
    first_index, term, commands = parsed.first_index, parsed.term, list(parsed.data)
    if first_index < 1 or term < 1 or not commands:
        raise ProtocolError(f"run with first index {first_index}, term {term}, {len(commands)} entries")
    try:
        kind = EntryKind(parsed.kind)
    except ValueError:
        raise ProtocolError(f"run of unknown kind {parsed.kind}") from None
    return EntryRun(first_index, term, kind, parsed.time_ms, commands, bytes(data))


def _encode_append_entries(message: AppendEntries) -> raft_pb2.AppendEntries:
    return raft_pb2.AppendEntries(
        term=message.term,
        prev_log_index=message.prev_log_index,
        prev_log_term=message.prev_log_term,
        leader_commit=message.leader_commit,
        round=message.round,
        runs=[encode_run(run) for run in message.entries.runs],
    )


def _decode_append_entries(parsed: raft_pb2.AppendEntries) -> AppendEntries:
    term, prev_log_index, prev_log_term = parsed.term, parsed.prev_log_index, parsed.prev_log_term
    entries = LogSlice(prev_log_index + 1, [decode_run(data) for data in parsed.runs])
    if not is_contiguous(entries, prev_log_index, prev_log_term):
        raise ProtocolError(f"AppendEntries whose runs do not follow entry {prev_log_index} of term {prev_log_term}")
    last_log_term = entries.runs[-1].term if entries.runs else prev_log_term
    if last_log_term > term:
        raise ProtocolError(f"AppendEntries of term {term} with an entry of term {last_log_term}")
    return AppendEntries(term, prev_log_index, prev_log_term, parsed.leader_commit, parsed.round, entries)


def _encode_refusal(refusal: Refusal | None) -> raft_pb2.Refusal | None:
    if refusal is None:
        return None
    return raft_pb2.Refusal(
        reason=refusal.reason,  # type: ignore[arg-type]  # our IntEnum has the numbers of the generated one
        server_id=refusal.server_id,
        last_log_index=refusal.last_log_index,
        last_log_term=refusal.last_log_term,
    )


def _decode_refusal(parsed: raft_pb2.PreVoteResponse | raft_pb2.RequestVoteResponse) -> Refusal | None:
    """A reason that only later versions know is one all the same: the vote is not given."""
    if not parsed.HasField("refusal"):
        return None
    refusal = parsed.refusal
    try:
        reason = RefusalReason(refusal.reason)
    except ValueError:
        reason = RefusalReason.UNKNOWN
    return Refusal(reason, refusal.server_id, refusal.last_log_index, refusal.last_log_term)


_Encoder = Callable[[Any], Any]
_Decoder = Callable[[Any], Message]

_FIELDS: dict[type, tuple[str, _Encoder]] = {
    AppendEntries: ("append_entries", _encode_append_entries),
    AppendEntriesResponse: (
        "append_entries_response",
        lambda message: raft_pb2.AppendEntriesResponse(
            term=message.term,
            round=message.round,
            match_index=message.match_index,
            refused=message.refused,
            prev_log_index=message.prev_log_index,
            hint_index=message.hint_index,
            hint_term=message.hint_term,
        ),
    ),
    PreVote: (
        "pre_vote",
        lambda message: raft_pb2.PreVote(
            term=message.term,
            round=message.round,
            last_log_index=message.last_log_index,
            last_log_term=message.last_log_term,
        ),
    ),
    PreVoteResponse: (
        "pre_vote_response",
        lambda message: raft_pb2.PreVoteResponse(
            term=message.term,
            round=message.round,
            granted=message.granted,
            refusal=_encode_refusal(message.refusal),
        ),
    ),
    RequestVote: (
        "request_vote",
        lambda message: raft_pb2.RequestVote(
            term=message.term,
            last_log_index=message.last_log_index,
            last_log_term=message.last_log_term,
            told_by_leader=message.told_by_leader,
        ),
    ),
    RequestVoteResponse: (
        "request_vote_response",
        lambda message: raft_pb2.RequestVoteResponse(
            term=message.term, granted=message.granted, refusal=_encode_refusal(message.refusal)
        ),
    ),
    TimeoutNow: ("timeout_now", lambda message: raft_pb2.TimeoutNow(term=message.term)),
}

_DECODERS: dict[str, _Decoder] = {
    "append_entries": _decode_append_entries,
    "append_entries_response": lambda parsed: AppendEntriesResponse(
        parsed.term,
        parsed.round,
        parsed.match_index,
        parsed.refused,
        parsed.prev_log_index,
        parsed.hint_index,
        parsed.hint_term,
    ),
    "pre_vote": lambda parsed: PreVote(parsed.term, parsed.round, parsed.last_log_index, parsed.last_log_term),
    "pre_vote_response": lambda parsed: PreVoteResponse(
        parsed.term, parsed.round, parsed.granted, _decode_refusal(parsed)
    ),
    "request_vote": lambda parsed: RequestVote(
        parsed.term, parsed.last_log_index, parsed.last_log_term, parsed.told_by_leader
    ),
    "request_vote_response": lambda parsed: RequestVoteResponse(parsed.term, parsed.granted, _decode_refusal(parsed)),
    "timeout_now": lambda parsed: TimeoutNow(parsed.term),
}


def encode_message(message: Message) -> bytes:
    """An Envelope. Runs that somebody has encoded already are copied, not encoded again."""
    field, encode = _FIELDS[type(message)]
    return raft_pb2.Envelope(**{field: encode(message)}).SerializeToString()


def decode_message(payload: Payload) -> Message:
    """
    The message in an Envelope. Cost: one pass in C, then one step per run.

    Refused besides what cannot be parsed: another group than 0, no message or one that this version does not know,
    runs that do not follow the previous entry or are of a later term than the message, and term 0, which no server
    speaks in; only a server that has never heard of a term may say so when it refuses a PreVote.
    """
    envelope = _parse(raft_pb2.Envelope, payload)
    if envelope.group != 0:
        raise ProtocolError(f"message for group {envelope.group}; there is only group 0")
    field = envelope.WhichOneof("message")
    if field is None:
        raise ProtocolError("no message in the envelope, or one of a later version")
    message = _DECODERS[field](getattr(envelope, field))
    if message.term == 0 and not (type(message) is PreVoteResponse and not message.granted):
        raise ProtocolError(f"{type(message).__name__} with term 0")
    return message


_META_FIELDS = ("cluster_id", "last_index", "last_term", "time_ms", "membership", "membership_index")
_HELLO_FIELDS = tuple(attribute.name for attribute in attrs.fields(Hello))


def encode_hello(hello: Hello) -> bytes:
    """The first frame of a connection."""
    return raft_pb2.Hello(**attrs.asdict(hello)).SerializeToString()


def decode_hello(payload: Payload) -> Hello:
    """Who speaks. Whether that is acceptable, protocol version included, is for the caller to say."""
    parsed = _parse(raft_pb2.Hello, payload)
    return Hello(**{name: getattr(parsed, name) for name in _HELLO_FIELDS})


def encode_snapshot_frame(frame: SnapshotFrame) -> bytes:
    """What is said on a connection for a snapshot. A `Snapshot` is an offer of it."""
    if isinstance(frame, SnapshotData):
        return raft_pb2.SnapshotFrame(
            data=raft_pb2.SnapshotData(offset=frame.offset, data=frame.data)
        ).SerializeToString()
    if isinstance(frame, SnapshotPosition):
        return raft_pb2.SnapshotFrame(position=raft_pb2.SnapshotPosition(offset=frame.offset)).SerializeToString()
    if isinstance(frame, SnapshotEnd):
        return raft_pb2.SnapshotFrame(end=raft_pb2.SnapshotEnd(refusal=frame.refusal)).SerializeToString()
    fields = {name: getattr(frame.meta, name) for name in _META_FIELDS}
    offer = raft_pb2.SnapshotOffer(size=frame.size, digest=frame.digest, **fields)
    return raft_pb2.SnapshotFrame(offer=offer).SerializeToString()


def decode_snapshot_frame(payload: Payload) -> SnapshotFrame:
    """What `encode_snapshot_frame` was given."""
    parsed = _parse(raft_pb2.SnapshotFrame, payload)
    match parsed.WhichOneof("frame"):
        case "data" if parsed.data.data:
            return SnapshotData(parsed.data.offset, parsed.data.data)
        case "position":
            return SnapshotPosition(parsed.position.offset)
        case "end":
            return SnapshotEnd(parsed.end.refusal)
        case "offer" if parsed.offer.last_index and parsed.offer.last_term and parsed.offer.size:
            meta = SnapshotMeta(**{name: getattr(parsed.offer, name) for name in _META_FIELDS})
            return Snapshot(meta, parsed.offer.size, parsed.offer.digest)
    raise ProtocolError("no frame of a snapshot, or one of a later version")


def encode_record(runs: Sequence[EntryRun], commit_index: int = 0) -> bytes:
    """What one flush writes to the log: one or more runs."""
    return raft_pb2.LogRecord(runs=[encode_run(run) for run in runs], commit_index=commit_index).SerializeToString()


def decode_record(payload: Payload) -> tuple[list[EntryRun], int]:
    """
    The runs of a log record, at least one, and the commit index that was known then. Whether they fit behind the log
    before them is for the caller to say.
    """
    parsed = _parse(raft_pb2.LogRecord, payload)
    return [decode_run(data) for data in parsed.runs], parsed.commit_index


def encode_state(identity: Identity, hard_state: HardState) -> bytes:
    """The content of `core_map_file`."""
    return raft_pb2.State(
        term=hard_state.term,
        voted_for=hard_state.voted_for or "",
        cluster_id=identity.cluster_id,
        server_id=identity.server_id,
        incarnation=identity.incarnation,
    ).SerializeToString()


def decode_state(payload: Payload) -> tuple[Identity, HardState]:
    """What `encode_state` was given."""
    parsed = _parse(raft_pb2.State, payload)
    identity = Identity(parsed.cluster_id, parsed.server_id, parsed.incarnation)
    return identity, HardState(parsed.term, parsed.voted_for or None)
