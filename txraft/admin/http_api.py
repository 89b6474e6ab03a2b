"""The JSON API under `/v1`: one table of routes, from which both the answers and the OpenAPI document come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.http import Request

from txraft.admin.http_answers import AnyResponse, Endpoint, FileResponse, json_problem, json_response
from txraft.admin.http_requests import read_json, read_query
from txraft.admin.operations import MAX_PAGE, Operations
from txraft.admin.problems import KINDS_BY_CODE
from txraft.admin.schema import Schema, closed_object, schema_of
from txraft.node.planning import Constitution
from txraft.node.saving import HeldSnapshot
from txraft.node.status import CatchingUp, MemberStatus, NodeStatus
from txraft.node.transfers import TransferStatus

_TEXT = {"type": "string"}
_TEXT_OR_NONE = {"type": ["string", "null"]}
_INDEX = {"type": "integer", "minimum": 0}
_SECONDS = {"type": ["number", "null"], "description": "null: it was there already"}
_TEXTS = {"type": "array", "items": _TEXT}
_SERVER = {
    "type": "string",
    "minLength": 1,
    "maxLength": 300,
    "description": "host:port of the traffic between servers; a host alone has the port that the asked server has",
}
_SERVERS = {"type": "array", "items": _SERVER, "maxItems": 100}
_SOME_SERVERS = {**_SERVERS, "minItems": 1}
_REPLACED = {
    "type": "object",
    "additionalProperties": _SERVER,
    "description": "old server -> the new one that takes its place, as a voter or learner like it",
}

_MOVED = {
    "type": "object",
    "additionalProperties": _SERVER,
    "description": "server, by its id -> host:port at which the others reach it from now on",
}

_MEMBER = schema_of(MemberStatus)
_MEMBER = closed_object({**_MEMBER["properties"], "is_leader": {"type": "boolean"}, "is_silent": {"type": "boolean"}})
_MEMBERS = {"type": "array", "items": {"$ref": "#/components/schemas/Member"}}
_STATUS = closed_object(
    {
        **schema_of(NodeStatus)["properties"],
        "members": _MEMBERS,
        "incarnation": {"type": "integer"},
        "uptime_s": {"type": "number"},
    }
)
_ENTRY = closed_object(
    {
        "index": _INDEX,
        "term": _INDEX,
        "kind": {"enum": ["command", "noop", "configuration", "session"]},
        "time_ms": _INDEX,
        "bytes": _INDEX,
    }
)
_ENTRY["properties"]["payload"] = {**_TEXT, "description": "its beginning; only if payloads=true"}
_LOG = dict.fromkeys(("first_index", "last_index", "commit_index", "applied_index"), _INDEX)
_PLANNED = closed_object({"server_id": _TEXT, "is_reachable": {"type": "boolean"}, "detail": _TEXT})
_ERROR = closed_object(
    {
        "code": {"enum": [*KINDS_BY_CODE]},
        "message": {**_TEXT, "description": "what happened"},
        "advice": {**_TEXT, "description": "what to do now"},
        "leader_id": {**_TEXT_OR_NONE, "description": "the leader, if another server is known to be it"},
        "leader_admin_address": {
            **_TEXT_OR_NONE,
            "description": "host:port of the leader's admin HTTP: ask again there",
        },
    }
)
_ERROR["properties"] |= {
    "index": {**_INDEX, "description": "outcome_unknown: the entry that may or may not be committed"},
    "bound": {**_TEXT, "description": "overloaded, command_too_large: the key of raft.conf"},
    "limit": {"type": "integer", "description": "its value"},
    "size": {"type": "integer"},
    "allowed": {**_TEXTS, "description": "method_not_allowed: the methods that there are"},
}

SCHEMAS: dict[str, Schema] = {
    "Member": _MEMBER,
    "Status": _STATUS,
    "Members": closed_object({"leader_id": _TEXT_OR_NONE, "members": _MEMBERS}),
    "Why": closed_object({"server_id": _TEXT, "waiting_for": _TEXTS}),
    "Log": closed_object({**_LOG, "entries": {"type": "array", "items": _ENTRY}}),
    "Progress": closed_object(
        {
            "leader_id": _TEXT_OR_NONE,
            "catching_up": {"type": "array", "items": schema_of(CatchingUp)},
            "snapshots": {"type": "array", "items": schema_of(TransferStatus)},
            "hand_over_to": _TEXT_OR_NONE,
        }
    ),
    "Plan": closed_object(
        {
            "before": schema_of(Constitution),
            "after": schema_of(Constitution),
            "servers": {"type": "array", "items": _PLANNED},
            "refusal": _TEXT_OR_NONE,
            "is_quorum_left": {"type": "boolean"},
            "notes": _TEXTS,
        }
    ),
    "Snapshot": closed_object({"last_index": _INDEX, "bytes": _INDEX, "seconds": _SECONDS, "stall_s": _SECONDS}),
    "ReadIndex": closed_object({"index": _INDEX}),
    "Error": closed_object({"error": _ERROR}),
    "Document": {"type": "object"},
}
"""What bodies look like, by the names under which the OpenAPI document has them."""

Handle = Callable[[Operations, dict[str, Any]], Any]


@attrs.frozen
class Route:
    """
    One method at one path. `handle` is given the parameters or the body, checked, and returns what `answer` names, or a
    Deferred of it; `respond` makes an answer of that. `answer` is None if that is a file. `body` is None for GET.
    """

    method: str
    path: str
    name: str
    summary: str
    answer: str | None
    handle: Handle
    parameters: Mapping[str, Schema] = attrs.field(factory=dict)
    body: Schema | None = None
    respond: Callable[[Any], AnyResponse] = json_response


def _members(operations: Operations, _: dict[str, Any]) -> object:
    return {"leader_id": operations.node.status().leader_id, "members": operations.members()}


def _why(operations: Operations, _: dict[str, Any]) -> object:
    return {"server_id": operations.node.settings.server_id, "waiting_for": operations.why()}


def _add(operations: Operations, body: dict[str, Any]) -> object:
    kind = "learners" if body.get("learner") else "add"
    return operations.change(**{kind: body["servers"]})


def _file(held: HeldSnapshot) -> FileResponse:
    meta, size = held.snapshot.meta, held.snapshot.size
    return FileResponse(f"{meta.last_index}-{meta.last_term}.snapshot", size, held.reader)


LOG_PAGE: dict[str, Schema] = {
    "first": {**_INDEX, "description": "index of the first entry; if absent, the last entries are shown"},
    "count": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 50},
    "payloads": {"type": "boolean", "default": False, "description": "show what is in the entries, not only its size"},
}
_CHANGE = (
    " Answers once the change is committed, or has failed. Asking for what is so already is no error. Only the leader "
    "does it; any other server answers not_leader."
)

ROUTES = (
    Route("GET", "/v1/status", "status", "What this server is doing.", "Status", lambda ops, _: ops.status()),
    Route("GET", "/v1/members", "members", "The servers of the cluster, as this one knows them.", "Members", _members),
    Route("GET", "/v1/why", "why", "What this server is waiting for, a sentence each.", "Why", _why),
    Route(
        "GET",
        "/v1/log",
        "log",
        "A page of this server's log.",
        "Log",
        lambda ops, query: ops.log(**query),
        parameters=LOG_PAGE,
    ),
    Route(
        "GET",
        "/v1/progress",
        "progress",
        "How far the change has come that this leader is making.",
        "Progress",
        lambda ops, _: ops.progress(),
    ),
    Route(
        "POST",
        "/v1/members/add",
        "add",
        "Make servers voters, or learners, which are replicated to and do not vote; also those that are the other."
        + _CHANGE,
        "Members",
        _add,
        body={
            "type": "object",
            "properties": {"servers": _SOME_SERVERS, "learner": {"type": "boolean", "default": False}},
            "required": ["servers"],
            "additionalProperties": False,
        },
    ),
    Route(
        "POST",
        "/v1/members/remove",
        "remove",
        "Make servers no members." + _CHANGE,
        "Members",
        lambda ops, body: ops.change(remove=body["servers"]),
        body=closed_object({"servers": _SOME_SERVERS}),
    ),
    Route(
        "POST",
        "/v1/members/replace",
        "replace",
        "Put new servers in the places of old ones, in one change." + _CHANGE,
        "Members",
        lambda ops, body: ops.change(replace=body["servers"]),
        body=closed_object({"servers": _REPLACED}),
    ),
    Route(
        "POST",
        "/v1/members/move",
        "move",
        "Say where members are that have moved with their data. They stay what they are." + _CHANGE,
        "Members",
        lambda ops, body: ops.move(body["servers"]),
        body=closed_object({"servers": _MOVED}),
    ),
    Route(
        "POST",
        "/v1/members/plan",
        "plan",
        "What a change would lead to, and whether the new servers can be reached from here. Changes nothing.",
        "Plan",
        lambda ops, body: ops.plan(**body),
        body={
            "type": "object",
            "properties": {
                "add": _SERVERS,
                "remove": _SERVERS,
                "learners": _SERVERS,
                "replace": _REPLACED,
                "move": _MOVED,
            },
            "additionalProperties": False,
        },
    ),
    Route(
        "POST",
        "/v1/transfer",
        "transfer",
        "Let another voter lead. Answers once it does.",
        "Members",
        lambda ops, body: ops.transfer(body["server"]),
        body=closed_object({"server": _SERVER}),
    ),
    Route(
        "POST",
        "/v1/snapshot",
        "snapshot",
        "Take a snapshot of this server's state now. Answers once it is on disk, with the last entry that it holds.",
        "Snapshot",
        lambda ops, _: ops.snapshot(),
        body=closed_object({}),
    ),
    Route(
        "POST",
        "/v1/read_index",
        "read_index",
        "Up to which entry all is that was acknowledged before this was asked. Only the leader can say that; any other "
        "server answers not_leader.",
        "ReadIndex",
        lambda ops, _: ops.read_index(),
        body=closed_object({}),
    ),
    Route(
        "POST",
        "/v1/backup",
        "backup",
        "Take a snapshot now, and send it, as it is on disk: to be kept elsewhere, and restored from. It holds "
        "everything up to the entry at_least, for which any server can be asked; without that, everything that was "
        "acknowledged before this was asked, and only the leader has that for certain.",
        None,
        lambda ops, body: ops.backup(**body),
        body={"type": "object", "properties": {"at_least": _INDEX}, "additionalProperties": False},
        respond=_file,
    ),
)
"""The API."""


def api_endpoints(operations: Operations) -> list[Endpoint]:
    """The routes of the API, for `operations`."""
    return [_endpoint(route, operations) for route in ROUTES]


def _endpoint(route: Route, operations: Operations) -> Endpoint:
    def handle(request: Request) -> Deferred[AnyResponse]:
        values = read_query(request, route.parameters)
        if route.body is not None:
            values |= read_json(request, route.body, SCHEMAS)
        return maybeDeferred(route.handle, operations, values).addCallback(route.respond)

    return Endpoint(route.method, route.path, handle, json_problem)
