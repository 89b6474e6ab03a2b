"""
JSON Schema, as much of it as the admin API says of itself: what a value may be, as data, and whether one is so.

A schema has `type` (a name or a list of them), `enum`, `properties`, `required`, `additionalProperties` (False or a
schema), `items`, `minItems`, `maxItems`, `minLength`, `maxLength`, `minimum`, `maximum`, or `$ref` to one of the
definitions. `description` and `default` say nothing of the value.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

import attrs

Schema = Mapping[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = {
    "type", "enum", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "minLength",
    "maxLength", "minimum", "maximum", "$ref", "description", "default",
}  # fmt: skip


def problem_with(value: object, schema: Schema, definitions: Mapping[str, Schema] | None = None, at: str = "") -> str:
    """
    Why `value` is not as `schema` says, with the place in it; empty if it is.

    @param definitions: what `$ref` names, by the last part of the reference.
    @param at: what the value is called; empty: it is the whole body.
    """
    unknown = sorted(schema.keys() - _KNOWN)
    assert not unknown, f"not understood in a schema: {unknown}"
    if "$ref" in schema:
        return problem_with(value, (definitions or {})[schema["$ref"].rpartition("/")[2]], definitions, at)
    here = at or "the body"
    names = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", ())
    if names and not any(_is(value, name) for name in names):
        return f"{here}: expected {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{here}: expected one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, dict):
        return _object_problem(value, schema, definitions, at)
    if isinstance(value, list | tuple):
        return _array_problem(value, schema, definitions, at)
    if isinstance(value, str):
        return _range_problem(len(value), schema, "minLength", "maxLength", f"{here}: expected a text of length")
    if isinstance(value, int | float):
        return _range_problem(value, schema, "minimum", "maximum", f"{here}: expected a number")
    return ""


def _is(value: object, name: str) -> bool:
    # To Python, True is a number.
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _range_problem(value: float, schema: Schema, least: str, most: str, expected: str) -> str:
    minimum, maximum = schema.get(least), schema.get(most)
    if (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
        return ""
    return expected + ("" if minimum is None else f" from {minimum}") + ("" if maximum is None else f" to {maximum}")


def _object_problem(value: dict[str, Any], schema: Schema, definitions: Mapping[str, Schema] | None, at: str) -> str:
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties", {})
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"{_inside(at, missing[0])}: is missing"
    for name, part in value.items():
        if name not in properties and rest is False:
            return f"{_inside(at, name)}: is not known"
        problem = problem_with(part, properties.get(name, rest), definitions, _inside(at, name))
        if problem:
            return problem
    return ""


def _array_problem(
    value: list[Any] | tuple[Any, ...], schema: Schema, definitions: Mapping[str, Schema] | None, at: str
) -> str:
    problem = _range_problem(len(value), schema, "minItems", "maxItems", f"{at or 'the body'}: expected items")
    for number, part in enumerate(value):
        problem = problem or problem_with(part, schema.get("items", {}), definitions, f"{at}[{number}]")
    return problem


def _inside(at: str, name: str) -> str:
    shown = name if len(name) <= 40 else name[:37] + "..."
    return f"{at}.{shown}" if at else shown


def schema_of(cls: type) -> dict[str, Any]:
    """The schema of what `attrs.asdict` makes of `cls`."""
    hints = typing.get_type_hints(cls)
    properties = {field.name: _schema_of_type(hints[field.name]) for field in attrs.fields(cls)}
    return closed_object(properties)


def closed_object(properties: Mapping[str, Schema]) -> dict[str, Any]:
    """An object that has all of these, and nothing else."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _schema_of_type(hint: Any) -> dict[str, Any]:
    if isinstance(hint, types.UnionType):
        [inner] = [part for part in typing.get_args(hint) if part is not type(None)]
        return {"type": [_schema_of_type(inner)["type"], "null"]}
    if typing.get_origin(hint) is tuple:
        return {"type": "array", "items": _schema_of_type(typing.get_args(hint)[0])}
    if attrs.has(hint):
        return schema_of(hint)
    # The first that fits: to Python, a boolean is an integer, and an integer is a number.
    return {"type": next(name for name, of in _TYPES.items() if hint is of[-1])}
