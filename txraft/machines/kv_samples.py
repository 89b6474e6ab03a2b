"""Commands and requests that try the kv machine in simulated clusters: few keys, so that they meet."""

from __future__ import annotations

import random

from txraft.machines import kv_encoding as encoding
from txraft.machines.kv import KeyValueMachine
from txraft.machines.kv_encoding import Ask, Op, SetFlag

LONGEST_VALUE_BYTES = 40
"""APPEND reaches it."""


def draw_command(rng: random.Random) -> bytes:
    """One of every kind there is, and now and then bytes that are no command."""
    key, value = _key(rng), _value(rng)
    match rng.choices([*Op, None], (20, 20, 10, 10, 10, 15, 15, 1, 1))[0]:
        case Op.SET_WITH:
            return encoding.pack_set_with(key, value, SetFlag(rng.randrange(8)))
        case Op.SET_MANY:
            return encoding.pack_fields(Op.SET_MANY, [key, value, _key(rng), _value(rng)])
        case Op.DELETE:
            return encoding.pack_fields(Op.DELETE, [key, _key(rng)])
        case Op.INCREMENT:
            return encoding.pack_increment(key, rng.choice((1, -7, encoding.MAX_INTEGER)))
        case Op.APPEND:
            return encoding.pack_append(key, value, LONGEST_VALUE_BYTES)
        case Op.FLUSH:
            return bytes([Op.FLUSH])
        case None:
            return rng.randbytes(rng.randrange(9))
        case op:
            return encoding.pack_keyed(op, key, value)


def draw_query(rng: random.Random) -> bytes:
    """One of every kind there is. A SCAN only begins: where a cursor goes on may differ from server to server."""
    match rng.choice([*Ask]):
        case Ask.GET_MANY | Ask.EXISTS as kind:
            return encoding.pack_fields(kind, [_key(rng), _key(rng)])
        case Ask.SIZE:
            return bytes([Ask.SIZE])
        case Ask.KEYS:
            return bytes([Ask.KEYS]) + rng.choice((b"*", b"k1*"))
        case Ask.SCAN:
            return encoding.pack_scan(0, rng.randrange(1, 20), b"*")
        case kind:
            return bytes([kind]) + _key(rng)


def check(machine: KeyValueMachine) -> None:
    """:raises AssertionError: the machine's parts do not fit each other."""
    keys = machine.query(bytes([Ask.KEYS]) + b"*")
    assert isinstance(keys, list)
    assert len(keys) == len(machine) == machine.query(bytes([Ask.SIZE])), (keys, len(machine))


def _key(rng: random.Random) -> bytes:
    return b"k%d" % rng.randrange(25)


def _value(rng: random.Random) -> bytes:
    return rng.choice((b"%d" % rng.randrange(100), rng.randbytes(rng.randrange(20))))
