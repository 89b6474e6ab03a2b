"""What the admin HTTP answers with: values of a status, a type and bytes; and what every answer has."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.web.http import Request

from txraft.admin.problems import Problem
from txraft.interfaces import ISnapshotReader

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border-bottom: 1px solid #ccc; padding: .2em .8em; text-align: left }
td.number { text-align: right }
form { margin: .4em 0 }
.why { color: #a30 }
pre { margin: 0; white-space: pre-wrap; word-break: break-all }
"""
"""Of the one page there is. Part of the headers: only this style, and no script at all, is carried out."""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Not no-referrer: browsers would then name no origin for our own forms either.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "txraft",
}

FILE_TYPE = "application/octet-stream"


@attrs.frozen
class Response:
    """One answer. `headers` are those that not every answer has."""

    code: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class FileResponse:
    """An answer that is a file of `size` bytes, to be saved as `name`. Whoever gets one of these closes the reader."""

    name: str
    size: int
    reader: ISnapshotReader


AnyResponse = Response | FileResponse


@attrs.frozen
class Endpoint:
    """
    What is done for one method at one path. `handle` may raise, or fail with, any exception of the table in `problems`;
    `render_problem` makes an answer of it.
    """

    method: str
    path: str
    handle: Callable[[Request], AnyResponse | Deferred[Any]]
    render_problem: Callable[[Problem], Response]


def json_response(value: object, code: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """`value` as JSON."""
    return Response(code, "application/json", json.dumps(value, indent=1).encode() + b"\n", headers)


def text_response(text: str, code: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """One or more lines for people and simple programs."""
    return Response(code, "text/plain; charset=utf-8", text.encode() + b"\n", headers)


def json_problem(problem: Problem) -> Response:
    """A problem as `/v1` tells it."""
    return json_response(problem.as_json(), problem.kind.http_status, problem_headers(problem))


def text_problem(problem: Problem) -> Response:
    """A problem as all other paths tell it."""
    return text_response(problem.sentence, problem.kind.http_status, problem_headers(problem))


def problem_headers(problem: Problem) -> tuple[tuple[str, str], ...]:
    """What HTTP wants to stand in the head of such an answer."""
    if problem.code == "method_not_allowed":
        return (("Allow", ", ".join(problem.facts["allowed"])),)  # type: ignore[arg-type]
    if problem.code == "unauthorized":
        return (("WWW-Authenticate", 'Bearer realm="txraft"'), ("WWW-Authenticate", 'Basic realm="txraft"'))
    if problem.kind.http_status == 503:
        return (("Retry-After", "1"),)
    return ()


def write(request: Request, response: Response) -> None:
    """Send `response` and end `request`. The body of an answer to HEAD is left out by Twisted."""
    write_head(request, response.code, response.content_type, len(response.body), response.headers)
    request.write(response.body)
    request.finish()


def write_head(
    request: Request, code: int, content_type: str, size: int, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    """Say what comes: `size` bytes."""
    reason = {421: b"Misdirected Request"}.get(code)
    request.setResponseCode(code, reason)
    for name, value in SECURITY_HEADERS.items():
        request.setHeader(name, value)
    for name, value in headers:
        request.responseHeaders.addRawHeader(name, value)
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(size))
