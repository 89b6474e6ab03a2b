"""The admin HTTP given anything: it answers as its document says, or closes the connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
from http_support import CHANGES, ORIGINAL_CHANGES, started
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from txraft.admin.http_api import ROUTES, SCHEMAS
from txraft.admin.http_requests import MAX_BODY_BYTES
from txraft.admin.schema import problem_with

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SERVERS = st.sampled_from(["s1", "s2", "s3", "s9", "a b", "", "é", "x" * 301]) | st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | SERVERS,
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=8), part, max_size=4),
    max_leaves=12,
)
BODIES = JSON | st.fixed_dictionaries(
    {},
    optional={
        "servers": st.lists(SERVERS, max_size=3) | st.dictionaries(SERVERS, SERVERS, max_size=2) | JSON,
        "learner": st.booleans() | JSON,
        "server": SERVERS | JSON,
        "add": st.lists(SERVERS, max_size=3),
        "remove": st.lists(SERVERS, max_size=3) | JSON,
        "replace": st.dictionaries(SERVERS, SERVERS, max_size=2),
    },
)


@pytest.mark.parametrize("path", CHANGES)
def test_any_body_is_answered_as_the_document_says(path):
    """`ask` checks each answer against it. What is not as the route's schema says is refused, and what is, is not."""
    _, admin = started(size=2, passive=1)
    schema: Any = next(route.body for route in ROUTES if route.path == path)

    @FEW
    @given(BODIES)
    def run(value: Any) -> None:
        answer = admin.post(path, value)
        assert answer.code != 500
        is_understood = problem_with(json.loads(json.dumps(value)), schema, SCHEMAS) == ""
        assert is_understood or answer.code == 400

    run()


@pytest.mark.parametrize("path", ["/", "/v1/log", "/v1/status", *ORIGINAL_CHANGES])
def test_any_parameters_are_answered(path):
    _, admin = started(size=1)
    method = "POST" if path in ORIGINAL_CHANGES else "GET"
    query = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)
    known = st.sampled_from(["first=", "count=", "payloads=", "server=", "content="])

    @FEW
    @given(known.flatmap(lambda name: query.map(lambda rest: name + rest)) | query)
    def run(text: str) -> None:
        assert admin.ask(method, f"{path}?{text}").code in (200, 400)

    run()


@FEW
@given(
    st.lists(
        st.binary(max_size=200) | st.sampled_from([b"GET / HTTP/1.1\r\n", b"\r\n\r\n", b"Host: x\r\n"]), max_size=20
    )
)
def test_any_bytes_are_answered_or_refused(parts):
    _, admin = ANY_BYTES
    exchange = admin.send(b"")
    for part in parts:
        # A transport that is closing reads no more.
        if not exchange.transport.disconnecting:
            exchange.channel.dataReceived(part)
    said = exchange.transport.value()
    assert b"HTTP/1.1 5" not in said.replace(b"HTTP/1.1 501", b""), said
    assert len(said) < 20 * MAX_BODY_BYTES


ANY_BYTES = started(size=1)
