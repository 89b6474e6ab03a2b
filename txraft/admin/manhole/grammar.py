"""
What may be typed at the prompt of `manhole_mode=admin`: a verb and literal arguments, `verb(1, "x")` or `verb 1 x`.

Nothing here evaluates anything. Python's parser turns a line into a tree; a tree that is not one call of a name with
strings and numbers is refused.
"""

from __future__ import annotations

import ast
import re
import warnings

import attrs

from txraft.admin.problems import BadRequest

MAX_LINE_CHARACTERS = 1000

Literal = str | int

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@attrs.frozen
class Call:
    """A verb and its arguments. Whether there is such a verb, and what it takes, is not known here."""

    verb: str
    positional: tuple[Literal, ...] = ()
    named: dict[str, Literal] = attrs.field(factory=dict)

    def __str__(self) -> str:
        named = [f"{name}={value!r}" for name, value in self.named.items()]
        return f"{self.verb}({', '.join([*map(repr, self.positional), *named])})"


def parse(line: str) -> Call | None:
    """
    What a line asks for; None if it is blank.

    @raise BadRequest: it is something else than a verb with literal arguments. Does not repeat the line.
    """
    if len(line) > MAX_LINE_CHARACTERS:
        raise BadRequest(f"a line has {MAX_LINE_CHARACTERS} characters at most")
    if not line.isprintable():
        raise BadRequest("a line has printable characters only")
    words = line.split()
    if not words:
        return None
    if "(" in line:
        return _parse_call(line.strip())
    if not _NAME.fullmatch(words[0]):
        raise _not_understood()
    return Call(words[0], tuple(map(_literal, words[1:])))


def _literal(word: str) -> Literal:
    return int(word) if re.fullmatch(r"\d{1,18}", word, re.ASCII) else word.strip("\"'")


def _parse_call(text: str) -> Call:
    try:
        with warnings.catch_warnings():
            # Of a strange escape in a string; it would be written to the log.
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _not_understood() from None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise _not_understood()
    named = {keyword.arg or "": _value(keyword.value) for keyword in tree.keywords}
    if "" in named:
        raise _not_understood()
    return Call(tree.func.id, tuple(map(_value, tree.args)), named)


def _value(tree: ast.expr) -> Literal:
    # True is an int, too.
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str | int) and not isinstance(tree.value, bool):
        value = tree.value
        if isinstance(value, int) and value >= 1 << 63:
            raise BadRequest("a number is less than 2 ** 63")
        if isinstance(value, str) and not value.isprintable():
            raise BadRequest("a line has printable characters only")
        return value
    raise _not_understood()


def _not_understood() -> BadRequest:
    return BadRequest('expected a verb and its arguments, such as add_server("host:port") or add_server host:port')
