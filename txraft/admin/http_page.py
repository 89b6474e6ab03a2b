"""
The page for people, at `/` and `/stat`: what this server does, its cluster, its log, and on a leader the forms to
change them. Every value in it is text: `twisted.web.template` writes whatever could be HTML so that it is none.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.template import Tag, flattenString, tags

from txraft.admin.http_answers import STYLE, Endpoint, Response, text_problem
from txraft.admin.http_api import LOG_PAGE
from txraft.admin.http_requests import read_query
from txraft.admin.operations import Answer, Operations
from txraft.net.addresses import parse_address

PATHS = ("/", "/stat")

_COLUMNS = (
    ("server", "server_id"),
    ("role", "role"),
    ("reached at", "address"),
    ("link", "link"),
    ("clients", "client_address"),
    ("match index", "match_index"),
    ("lag", "lag"),
    ("silent for s", "silent_s"),
)

_FORMS = (
    ("/append_log_entry", "content", "Append an entry"),
    ("/add_server", "server", "Add a server (host:port)"),
    ("/remove_server", "server", "Remove a server"),
    ("/leader_transfer", "server", "Hand the leadership to"),
)


def page_endpoints(operations: Operations) -> list[Endpoint]:
    """The page, at both of its paths."""

    def handle(request: Request) -> Deferred[Response]:
        query = read_query(request, LOG_PAGE)
        page = _page(operations.status(), operations.members(), operations.log(**query), query)
        flat: Deferred[bytes] = flattenString(None, page)
        return flat.addCallback(
            lambda body: Response(200, "text/html; charset=utf-8", b"<!DOCTYPE html>\n" + body + b"\n")
        )

    return [Endpoint("GET", path, handle, text_problem) for path in PATHS]


def _page(status: Answer, members: list[Answer], log: Answer, query: dict[str, Any]) -> Tag:
    name = status["server_id"]
    return tags.html(
        tags.head(tags.meta(charset="utf-8"), tags.title(f"{name} - txraft"), tags.style(STYLE)),
        tags.body(
            tags.h1(name),
            _facts(status),
            [tags.p(sentence, class_="why") for sentence in status["waiting_for"]],
            tags.h2("Members"),
            _members(members),
            [tags.h2("Changes"), *map(_form, _FORMS)] if status["role"] == "leader" else "",
            tags.h2("Log"),
            _log(log, query),
        ),
        lang="en",
    )


def _facts(status: Answer) -> Tag:
    facts = {
        "role": status["role"],
        "term": status["term"],
        "leader": status["leader_id"] or "none is known",
        "commit index": status["commit_index"],
        "applied index": status["applied_index"],
        "last index": status["last_index"],
        "cluster": status["cluster_id"] or "none",
        "up for": f"{status['uptime_s']:.0f} s",
        "failure": status["failure"] or "none",
    }
    return tags.table([tags.tr(tags.th(name), tags.td(str(value))) for name, value in facts.items()])


def _members(members: list[Answer]) -> Tag:
    head = tags.tr([tags.th(title) for title, _ in _COLUMNS])
    return tags.table(head, [tags.tr([_cell(member, key) for _, key in _COLUMNS]) for member in members])


def _cell(member: Answer, key: str) -> Tag:
    value = member[key]
    if key == "server_id":
        return tags.td(_link(member["admin_address"], value), " (leader)" if member["is_leader"] else "")
    if isinstance(value, float):
        value = f"{value:.2f}"
    return tags.td("" if value is None else str(value))


def _link(admin_address: str, text: str) -> Tag | str:
    """To another server's page, if what it has said of itself is an address and nothing else."""
    try:
        parse_address(admin_address, None)
    except ValueError:
        return text
    return tags.a(text, href=f"http://{admin_address}/", rel="noreferrer")


def _form(form: tuple[str, str, str]) -> Tag:
    path, name, label = form
    field = tags.input(type="text", name=name, size="30", required="required")
    return tags.form(
        tags.label(label, " ", field), " ", tags.button("Do it", type="submit"), method="post", action=path
    )


def _log(log: Answer, query: dict[str, Any]) -> list[Tag]:
    columns = ["index", "term", "kind", "time_ms", "bytes", *(["payload"] if query["payloads"] else [])]
    rows = [tags.tr([_entry_cell(entry, column) for column in columns]) for entry in reversed(log["entries"])]
    first = log["entries"][0]["index"] if log["entries"] else log["first_index"]
    older = max(first - query["count"], log["first_index"])
    links = [
        ("newest", {"count": query["count"], "payloads": query["payloads"]}),
        ("older", {**query, "first": older}),
        ("newer", {**query, "first": first + query["count"]}),
        ("hide payloads" if query["payloads"] else "show payloads", {**query, "payloads": not query["payloads"]}),
    ]
    return [
        tags.p([[tags.a(text, href="/stat?" + _encoded(values)), " "] for text, values in links]),
        tags.table(tags.tr([tags.th(column) for column in columns]), rows),
    ]


def _entry_cell(entry: Answer, column: str) -> Tag:
    text = str(entry[column])
    return tags.td(tags.pre(text)) if column == "payload" else tags.td(text, class_="number")


def _encoded(values: dict[str, Any]) -> str:
    return urlencode({name: str(value).lower() for name, value in values.items() if value is not None})
