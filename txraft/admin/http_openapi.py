"""The OpenAPI document of the admin HTTP's `/v1`, made of its table of routes."""

from __future__ import annotations

from typing import Any

from txraft.admin.http_answers import FILE_TYPE, Endpoint, json_problem, json_response
from txraft.admin.http_api import ROUTES, SCHEMAS, Route
from txraft.admin.problems import KINDS_BY_CODE

PATH = "/v1/openapi.json"

_DESCRIPTION = """\
Operates one server of a txraft cluster. Every refusal is an `Error`; its `code` says which, its `advice` what to do.

A change is made by the leader only. Another server answers 421 `not_leader`, has done nothing, and names the leader:
send the same request to `leader_admin_address`, if that is not null.

If the server has an `admin_token_file`, each request must have its token: `Authorization: Bearer TOKEN`, or in a
browser any name with the token as password. A POST that a browser sends for another site's page is refused, and so is
every request for a host's name that is not this server's."""


def document() -> dict[str, Any]:
    """The document, as JSON would have it."""
    routes = [*ROUTES, _OF_ITSELF]
    return {
        "openapi": "3.1.0",
        "info": {"title": "txraft admin", "version": "1.0", "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"basic": []}],
        "paths": {route.path: {route.method.lower(): _operation(route)} for route in routes},
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


_OF_ITSELF = Route("GET", PATH, "openapi", "This document.", "Document", lambda ops, query: document())


def document_endpoint() -> Endpoint:
    """Serves the document."""
    return Endpoint("GET", PATH, lambda request: json_response(document()), json_problem)


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {"200": _answer(route)} | _errors(),
    }
    if route.parameters:
        operation["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": dict(schema)}
            for name, schema in route.parameters.items()
        ]
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": route.body}}}
    return operation


def _answer(route: Route) -> dict[str, Any]:
    if route.answer is None:
        return {"description": "a file", "content": {FILE_TYPE: {}}}
    return _body("done" if route.method == "POST" else "as asked", route.answer)


def _body(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _errors() -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for kind in KINDS_BY_CODE.values():
        by_status.setdefault(kind.http_status, []).append(kind.code)
    return {str(status): _body(", ".join(codes), "Error") for status, codes in sorted(by_status.items())}
