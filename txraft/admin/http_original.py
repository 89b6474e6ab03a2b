"""
The paths of the original's admin HTTP, for scripts that know them: they answer `STATUS leader` in one line of text,
once it is decided.

STATUS is OK, NOT_LEADER, EMPTY_SERVER, IN_CFG, NOT_IN_CFG, INVALID_SERVER, LIMIT (another change is under way), TIMEOUT
or ERROR; `leader` is where the leader serves its admin HTTP, or its id if that is not known, and is left out if nobody
leads. The HTTP status is 200 for all of them. Unlike in the original, what changes something is asked for by POST.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.http import Request

from txraft.admin.http_answers import Endpoint, Response, text_problem, text_response
from txraft.admin.http_requests import read_form
from txraft.admin.operations import Operations
from txraft.admin.problems import BadRequest, problem_of
from txraft.errors import NotLeader

Ask = Callable[[Operations, dict[str, str]], Any]
"""Answers a word, or anything else for OK; may raise, or return a Deferred."""


def original_endpoints(operations: Operations) -> list[Endpoint]:
    """The original's paths, but for its page."""
    changes: dict[str, Ask] = {
        "/append_log_entry": _append,
        "/add_server": _add,
        "/remove_server": _remove,
        "/leader_transfer": _transfer,
    }
    listed = Endpoint("GET", "/list_server", lambda request: _list(operations), text_problem)
    return [listed, *(_endpoint(path, ask, operations) for path, ask in changes.items())]


def _list(operations: Operations) -> Response:
    """`OK leader`, then a server in each line; with NOT_LEADER the servers are those that this one knows."""
    word = "OK" if operations.node.status().role == "leader" else "NOT_LEADER"
    lines = [_line(operations, word), *(member["server_id"] for member in operations.members())]
    return text_response("\n".join(lines))


def _endpoint(path: str, ask: Ask, operations: Operations) -> Endpoint:
    async def decide(request: Request) -> Response:
        try:
            word = await maybeDeferred(ask, operations, read_form(request))
        except Exception as error:
            return _refused(operations, error)
        return text_response(_line(operations, word if isinstance(word, str) else "OK"))

    def handle(request: Request) -> Deferred[Response]:
        return Deferred.fromCoroutine(decide(request))

    return Endpoint("POST", path, handle, text_problem)


def _refused(operations: Operations, error: Exception) -> Response:
    problem = problem_of(error)
    if problem.code == "internal_error":
        raise error
    leader = error if isinstance(error, NotLeader) else None
    return text_response(_line(operations, problem.kind.original, leader))


def _line(operations: Operations, word: str, leader: NotLeader | None = None) -> str:
    status = operations.node.status()
    addresses = {member.server_id: member.admin_address for member in status.members}
    found = addresses.get(status.leader_id or "") or status.leader_id or ""
    if leader is not None:
        found = leader.admin_address or leader.leader_id or ""
    return f"{word} {found}".rstrip()


def _servers(form: dict[str, str]) -> list[str]:
    return [server for server in (text.strip() for text in form.get("server", "").split(",")) if server]


def _roles(operations: Operations) -> dict[str, str] | None:
    """What the members are, by their ids; None where the answer does not count, as another server leads."""
    status = operations.node.status()
    return {member.server_id: member.role for member in status.members} if status.role == "leader" else None


def _append(operations: Operations, form: dict[str, str]) -> Any:
    if "content" not in form:
        raise BadRequest("content: is missing")
    return operations.append(form["content"].encode())


def _add(operations: Operations, form: dict[str, str]) -> Any:
    servers, roles = _servers(form), _roles(operations)
    if not servers:
        return "EMPTY_SERVER"
    if roles is not None and all(roles.get(operations.server_id(server)) == "voter" for server in servers):
        return "IN_CFG"
    return operations.change(add=servers)


def _remove(operations: Operations, form: dict[str, str]) -> Any:
    servers, roles = _servers(form), _roles(operations)
    if not servers:
        return "EMPTY_SERVER"
    if roles is not None and not any(operations.server_id(server) in roles for server in servers):
        return "NOT_IN_CFG"
    return operations.change(remove=servers)


def _transfer(operations: Operations, form: dict[str, str]) -> Any:
    servers, roles = _servers(form), _roles(operations)
    if len(servers) != 1:
        return "INVALID_SERVER" if servers else "EMPTY_SERVER"
    if roles is not None and operations.server_id(servers[0]) not in roles:
        return "NOT_IN_CFG"
    return operations.transfer(servers[0])
