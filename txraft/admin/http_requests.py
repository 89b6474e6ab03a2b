"""What the admin HTTP reads of a request: parameters and bodies, checked before anybody looks at them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from twisted.web.http import Request

from txraft.admin.problems import BadRequest, TooLarge
from txraft.admin.schema import Schema, problem_with

MAX_BODY_BYTES = 64 * 1024
"""The longest body that any request needs; what is longer is refused."""

MAX_DISCARDED_BYTES = 1024 * 1024
"""So much more of a body that is too long is read and thrown away, for the sake of an answer; then the line is cut."""


def read_query(request: Request, parameters: Mapping[str, Schema]) -> dict[str, Any]:
    """
    The parameters of a request's address, and defaults for those that are not there.

    @param parameters: by name; the schema of a number or truth value makes one of the text.
    @raise BadRequest: one is not known, is there twice, or is not as its schema says.
    """
    found = {}
    for name, value in _texts(request.args or {}).items():
        if name not in parameters:
            raise BadRequest(f"{name[:40]}: is not known; there is {', '.join(parameters) or 'nothing'}")
        found[name] = _converted(value, parameters[name])
        problem = problem_with(found[name], parameters[name], at=name)
        if problem:
            raise BadRequest(f"{problem}, not {value[:80]!r}")
    defaults = {name: schema["default"] for name, schema in parameters.items() if "default" in schema}
    return defaults | found


def _converted(text: str, schema: Schema) -> object:
    if schema["type"] == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if schema["type"] == "boolean":
        return {"true": True, "1": True, "false": False, "0": False}.get(text, text)
    return text


def read_json(request: Request, schema: Schema, definitions: Mapping[str, Schema]) -> Any:
    """
    The body of a request.

    @raise BadRequest: it says that it is something else than JSON, or is not as `schema` says.
    @raise TooLarge: it was longer than `MAX_BODY_BYTES`.
    """
    body = _body(request)
    # A page of another origin can make a browser send a form, but not JSON, without asking us first.
    if media_type(request) != "application/json":
        raise BadRequest("the body must be application/json, and the header Content-Type must say so")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    problem = problem_with(value, schema, definitions)
    if problem:
        raise BadRequest(problem)
    return value


def read_form(request: Request) -> dict[str, str]:
    """
    The parameters of a request's address, and those of the form in its body if that is one.

    @raise BadRequest: one is there twice, or is not UTF-8.
    @raise TooLarge: the body was longer than `MAX_BODY_BYTES`.
    """
    body = _body(request)
    found = {name: list(values) for name, values in (request.args or {}).items()}
    if media_type(request) == "application/x-www-form-urlencoded":
        try:
            posted = parse_qs(body, keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise BadRequest("the form has too many fields") from None
        for name, values in posted.items():
            found.setdefault(name, []).extend(values)
    return _texts(found)


def media_type(request: Request) -> str:
    """What the request says that its body is, without parameters; empty if it says nothing."""
    header = request.getHeader(b"content-type") or b""
    return header.partition(b";")[0].strip().lower().decode("latin-1")


def _body(request: Request) -> bytes:
    body: bytes = request.content.read(MAX_BODY_BYTES + 1)  # type: ignore[union-attr]
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"the body is longer than {MAX_BODY_BYTES} bytes")
    return body


def _texts(values: Mapping[bytes, list[bytes]]) -> dict[str, str]:
    found = {}
    for name, all_of_it in values.items():
        try:
            if len(all_of_it) != 1:
                raise BadRequest(f"{name.decode()[:40]}: is there {len(all_of_it)} times")
            found[name.decode()] = all_of_it[0].decode()
        except UnicodeDecodeError:
            raise BadRequest("a parameter is not UTF-8") from None
    return found
