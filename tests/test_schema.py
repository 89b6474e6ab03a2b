"""The schemas of the admin API: what they take, what they refuse, and with which words."""

from __future__ import annotations

import attrs
import pytest

from txraft.admin.schema import closed_object, problem_with, schema_of

TEXT = {"type": "string", "minLength": 1, "maxLength": 3}


@pytest.mark.parametrize(
    ("value", "schema", "problem"),
    [
        ("abc", TEXT, ""),
        ("", TEXT, "the body: expected a text of length from 1 to 3"),
        ("abcd", TEXT, "the body: expected a text of length from 1 to 3"),
        (1, TEXT, "the body: expected string"),
        (True, {"type": "integer"}, "the body: expected integer"),
        (1, {"type": "boolean"}, "the body: expected boolean"),
        (1, {"type": "number"}, ""),
        (1.5, {"type": "integer"}, "the body: expected integer"),
        (None, {"type": ["string", "null"]}, ""),
        (1, {"type": ["string", "null"]}, "the body: expected string or null"),
        (0, {"type": "integer", "minimum": 1}, "the body: expected a number from 1"),
        (2, {"type": "integer", "maximum": 1}, "the body: expected a number to 1"),
        ("c", {"enum": ["a", "b"]}, "the body: expected one of a, b"),
        ([1, "x"], {"type": "array", "items": {"type": "integer"}}, "[1]: expected integer"),
        ([], {"type": "array", "minItems": 1}, "the body: expected items from 1"),
        ({"a": 1}, closed_object({"a": {"type": "integer"}}), ""),
        ({}, closed_object({"a": {}}), "a: is missing"),
        ({"a": 1, "b": 2}, closed_object({"a": {}}), "b: is not known"),
        ({"a": {"b": [0]}}, {"properties": {"a": {"properties": {"b": {"items": TEXT}}}}}, "a.b[0]: expected string"),
        ({"x": 1}, {"type": "object", "additionalProperties": TEXT}, "x: expected string"),
        ({"x" * 50: 1}, closed_object({}), "x" * 37 + "...: is not known"),
        ("abcd", {"$ref": "#/components/schemas/Text"}, "the body: expected a text of length from 1 to 3"),
        (object(), {}, ""),
    ],
)
def test_a_value_is_as_its_schema_says_or_the_place_is_named(value, schema, problem):
    assert problem_with(value, schema, {"Text": TEXT}) == problem


def test_a_word_that_is_no_part_of_a_schema_is_a_mistake_of_ours():
    with pytest.raises(AssertionError, match="minimun"):
        problem_with(1, {"minimun": 2})


@attrs.frozen
class Inner:
    flag: bool


@attrs.frozen
class Outer:
    text: str
    count: int | None
    part: float
    inners: tuple[Inner, ...]


def test_the_schema_of_a_class_is_that_of_its_values():
    value = attrs.asdict(Outer("a", None, 0.5, (Inner(True),)))
    assert problem_with(value, schema_of(Outer)) == ""
    assert problem_with(value | {"count": "x"}, schema_of(Outer)) == "count: expected integer or null"
    assert problem_with(value | {"inners": [{"flag": 1}]}, schema_of(Outer)) == "inners[0].flag: expected boolean"
    assert problem_with({}, schema_of(Outer)) == "text: is missing"
