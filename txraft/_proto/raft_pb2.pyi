from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EntryKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMMAND: _ClassVar[EntryKind]
    NOOP: _ClassVar[EntryKind]
    CONFIGURATION: _ClassVar[EntryKind]
    SESSION: _ClassVar[EntryKind]

class ConnectionRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MESSAGES: _ClassVar[ConnectionRole]
    SNAPSHOT: _ClassVar[ConnectionRole]

class RefusalReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN: _ClassVar[RefusalReason]
    LEADER: _ClassVar[RefusalReason]
    VOTED: _ClassVar[RefusalReason]
    LOG: _ClassVar[RefusalReason]
    NO_VOTE: _ClassVar[RefusalReason]
COMMAND: EntryKind
NOOP: EntryKind
CONFIGURATION: EntryKind
SESSION: EntryKind
MESSAGES: ConnectionRole
SNAPSHOT: ConnectionRole
UNKNOWN: RefusalReason
LEADER: RefusalReason
VOTED: RefusalReason
LOG: RefusalReason
NO_VOTE: RefusalReason

class EntryRun(_message.Message):
    __slots__ = ("first_index", "term", "kind", "time_ms", "data")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    term: int
    kind: EntryKind
    time_ms: int
    data: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, first_index: _Optional[int] = ..., term: _Optional[int] = ..., kind: _Optional[_Union[EntryKind, str]] = ..., time_ms: _Optional[int] = ..., data: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "cluster_id", "server_id", "receiver_id", "incarnation", "client_address", "admin_address", "refusal", "role", "lost_data")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    LOST_DATA_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    cluster_id: str
    server_id: str
    receiver_id: str
    incarnation: int
    client_address: str
    admin_address: str
    refusal: str
    role: ConnectionRole
    lost_data: bool
    def __init__(self, protocol_version: _Optional[int] = ..., cluster_id: _Optional[str] = ..., server_id: _Optional[str] = ..., receiver_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., client_address: _Optional[str] = ..., admin_address: _Optional[str] = ..., refusal: _Optional[str] = ..., role: _Optional[_Union[ConnectionRole, str]] = ..., lost_data: bool = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("group", "pre_vote", "pre_vote_response", "request_vote", "request_vote_response", "append_entries", "append_entries_response", "timeout_now")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_VOTE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_VOTE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NOW_FIELD_NUMBER: _ClassVar[int]
    group: int
    pre_vote: PreVote
    pre_vote_response: PreVoteResponse
    request_vote: RequestVote
    request_vote_response: RequestVoteResponse
    append_entries: AppendEntries
    append_entries_response: AppendEntriesResponse
    timeout_now: TimeoutNow
    def __init__(self, group: _Optional[int] = ..., pre_vote: _Optional[_Union[PreVote, _Mapping]] = ..., pre_vote_response: _Optional[_Union[PreVoteResponse, _Mapping]] = ..., request_vote: _Optional[_Union[RequestVote, _Mapping]] = ..., request_vote_response: _Optional[_Union[RequestVoteResponse, _Mapping]] = ..., append_entries: _Optional[_Union[AppendEntries, _Mapping]] = ..., append_entries_response: _Optional[_Union[AppendEntriesResponse, _Mapping]] = ..., timeout_now: _Optional[_Union[TimeoutNow, _Mapping]] = ...) -> None: ...

class PreVote(_message.Message):
    __slots__ = ("term", "round", "last_log_index", "last_log_term")
    TERM_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    round: int
    last_log_index: int
    last_log_term: int
    def __init__(self, term: _Optional[int] = ..., round: _Optional[int] = ..., last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ...) -> None: ...

class PreVoteResponse(_message.Message):
    __slots__ = ("term", "round", "granted", "refusal")
    TERM_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    term: int
    round: int
    granted: bool
    refusal: Refusal
    def __init__(self, term: _Optional[int] = ..., round: _Optional[int] = ..., granted: bool = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "server_id", "last_log_index", "last_log_term")
    REASON_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    reason: RefusalReason
    server_id: str
    last_log_index: int
    last_log_term: int
    def __init__(self, reason: _Optional[_Union[RefusalReason, str]] = ..., server_id: _Optional[str] = ..., last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ...) -> None: ...

class RequestVote(_message.Message):
    __slots__ = ("term", "last_log_index", "last_log_term", "told_by_leader")
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    TOLD_BY_LEADER_FIELD_NUMBER: _ClassVar[int]
    term: int
    last_log_index: int
    last_log_term: int
    told_by_leader: bool
    def __init__(self, term: _Optional[int] = ..., last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ..., told_by_leader: bool = ...) -> None: ...

class RequestVoteResponse(_message.Message):
    __slots__ = ("term", "granted", "refusal")
    TERM_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    term: int
    granted: bool
    refusal: Refusal
    def __init__(self, term: _Optional[int] = ..., granted: bool = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class AppendEntries(_message.Message):
    __slots__ = ("term", "prev_log_index", "prev_log_term", "leader_commit", "round", "runs")
    TERM_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_COMMIT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    term: int
    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    round: int
    runs: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, term: _Optional[int] = ..., prev_log_index: _Optional[int] = ..., prev_log_term: _Optional[int] = ..., leader_commit: _Optional[int] = ..., round: _Optional[int] = ..., runs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AppendEntriesResponse(_message.Message):
    __slots__ = ("term", "round", "match_index", "refused", "prev_log_index", "hint_index", "hint_term")
    TERM_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    round: int
    match_index: int
    refused: bool
    prev_log_index: int
    hint_index: int
    hint_term: int
    def __init__(self, term: _Optional[int] = ..., round: _Optional[int] = ..., match_index: _Optional[int] = ..., refused: bool = ..., prev_log_index: _Optional[int] = ..., hint_index: _Optional[int] = ..., hint_term: _Optional[int] = ...) -> None: ...

class TimeoutNow(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class SnapshotFrame(_message.Message):
    __slots__ = ("offer", "position", "data", "end")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    offer: SnapshotOffer
    position: SnapshotPosition
    data: SnapshotData
    end: SnapshotEnd
    def __init__(self, offer: _Optional[_Union[SnapshotOffer, _Mapping]] = ..., position: _Optional[_Union[SnapshotPosition, _Mapping]] = ..., data: _Optional[_Union[SnapshotData, _Mapping]] = ..., end: _Optional[_Union[SnapshotEnd, _Mapping]] = ...) -> None: ...

class SnapshotOffer(_message.Message):
    __slots__ = ("cluster_id", "last_index", "last_term", "time_ms", "membership", "membership_index", "size", "digest")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_INDEX_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    last_index: int
    last_term: int
    time_ms: int
    membership: bytes
    membership_index: int
    size: int
    digest: bytes
    def __init__(self, cluster_id: _Optional[str] = ..., last_index: _Optional[int] = ..., last_term: _Optional[int] = ..., time_ms: _Optional[int] = ..., membership: _Optional[bytes] = ..., membership_index: _Optional[int] = ..., size: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class SnapshotPosition(_message.Message):
    __slots__ = ("offset",)
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: int
    def __init__(self, offset: _Optional[int] = ...) -> None: ...

class SnapshotData(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class SnapshotEnd(_message.Message):
    __slots__ = ("refusal",)
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    refusal: str
    def __init__(self, refusal: _Optional[str] = ...) -> None: ...

class LogRecord(_message.Message):
    __slots__ = ("runs", "commit_index")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedScalarFieldContainer[bytes]
    commit_index: int
    def __init__(self, runs: _Optional[_Iterable[bytes]] = ..., commit_index: _Optional[int] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("term", "voted_for", "cluster_id", "server_id", "incarnation")
    TERM_FIELD_NUMBER: _ClassVar[int]
    VOTED_FOR_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    term: int
    voted_for: str
    cluster_id: str
    server_id: str
    incarnation: int
    def __init__(self, term: _Optional[int] = ..., voted_for: _Optional[str] = ..., cluster_id: _Optional[str] = ..., server_id: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...
