"""What may be typed at the admin prompt: verbs and literals, and nothing that could be code."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txraft.admin.manhole.grammar import MAX_LINE_CHARACTERS, Call, parse
from txraft.admin.problems import BadRequest

UNDERSTOOD = {
    "status": Call("status"),
    "  status ": Call("status"),
    "status()": Call("status"),
    "add_server h:1": Call("add_server", ("h:1",)),
    'add_server "h:1"': Call("add_server", ("h:1",)),
    'add_server("h:1")': Call("add_server", ("h:1",)),
    "add_server('h:1', '[::1]:2')": Call("add_server", ("h:1", "[::1]:2")),
    "add_server [::1]:2": Call("add_server", ("[::1]:2",)),
    "log 1 20": Call("log", (1, 20)),
    "log(1, count=20)": Call("log", (1,), {"count": 20}),
    "replace_server a b": Call("replace_server", ("a", "b")),
}

REFUSED = [
    "__import__('os').system('true')",
    "status().__class__",
    "status.__class__()",
    "(status)()()",
    "add_server(status())",
    "add_server(x for x in 'ab')",
    "add_server([x for x in (1, 2)])",
    "add_server(*['a'])",
    "add_server(**{'a': 1})",
    "add_server(**'a')",
    "add_server(f'{1}')",
    "add_server('a' + 'b')",
    "add_server(x)",
    "add_server(-1)",
    "add_server(1.5)",
    "add_server(b'h:1')",
    "add_server(None)",
    "add_server(True)",
    "add_server(['h:1'])",
    "add_server(lambda: 1)",
    "add_server(x := 1)",
    "add_server('h:1'",
    "add_server('h:1",
    "add_server('h:1') add_server('h:2')",
    "add_server('h:1'); status()",
    "status(); import os",
    "x = status()",
    "await status()",
    "lambda: status()",
    "1 + (2)",
    "()",
    "\x00status",
    "status\x1b[2J",
    "add_server \x1b[2J",
    "add_server('\\x1b[2J')",
    "add_server('\\ud800')",
    "(" * 500,
    "add_server(" + "-" * 900 + "1)",
    f"log({'9' * 900})",
    f"log({1 << 63})",
    "s" * (MAX_LINE_CHARACTERS + 1),
    "add_server('" + "h" * 100_000 + "')",
    "'status'",
    "2 status",
]


@pytest.mark.parametrize("line", UNDERSTOOD)
def test_a_verb_and_its_literals_are_understood(line):
    assert parse(line) == UNDERSTOOD[line]


@pytest.mark.parametrize("line", ["", "   "])
def test_a_blank_line_asks_for_nothing(line):
    assert parse(line) is None


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_more_than_a_verb_and_literals_is_refused(line):
    """T09"""
    with pytest.raises(BadRequest):
        parse(line)


def test_python_that_looks_like_a_verb_is_but_a_word():
    """There is no such verb; see the tests of the prompt."""
    assert parse("import os") == Call("import", ("os",))
    assert parse("__import__('os')") == Call("__import__", ("os",))


def test_a_refusal_does_not_repeat_what_was_typed():
    """It may be a password, typed at the wrong prompt."""
    for line in REFUSED:
        try:
            parse(line)
        except BadRequest as error:
            assert line not in str(error) and "h:1')" not in str(error)


@given(st.text(alphabet=string.printable, max_size=80))
def test_no_line_raises_anything_else(line):
    try:
        call = parse(line)
    except BadRequest:
        return
    if call is not None:
        assert call.verb.isidentifier()
        assert {type(value) for value in [*call.positional, *call.named.values()]} <= {str, int}


@given(st.text(alphabet="add_server()[]{}'\"\\,.:*=@~ \t0123456789fbrx", max_size=60))
def test_no_line_that_is_nearly_a_verb_raises_anything_else(line):
    test_no_line_raises_anything_else.hypothesis.inner_test(line)
