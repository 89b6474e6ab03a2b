"""
The table of Redis commands: name -> number of arguments, what sort of request it is, and how it is carried out.

A read or a write is encoded for the machine, a local command is answered. What is wrong with a request whatever the
state is found here, in Redis's words; what depends on the state is found by the machine, in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import attrs

from txraft.machines import kv_encoding as encoding
from txraft.machines import kv_local as local
from txraft.machines.kv import Refused, Status
from txraft.machines.kv_encoding import Ask, Op, SetFlag, parse_integer
from txraft.machines.kv_glob import MAX_PATTERN_BYTES
from txraft.machines.kv_local import NOT_AN_INTEGER, SYNTAX_ERROR, Arguments, Limits, Session, printable, wrong_arity

_MATCHES_NOTHING = b"[]"
_MAX_COUNT = 2**32 - 1


class Kind(Enum):
    """Who carries a request out: the log, the machine after the leader was confirmed, or this server on its own."""

    WRITE = "write"
    READ = "read"
    LOCAL = "local"


class WrongRequest(Exception):
    """A request that no state can make sense of. Carries the `Refused` that answers it."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


@attrs.frozen
class Command:
    """
    One row. `arity` counts the name too, and is negative if there may be more, as Redis has it.

    `carry_out` takes (limits, arguments) and gives the machine's bytes for a read or a write; it takes (session,
    arguments) and gives a result for a local one. `keys` is (first, last, step) as in Redis's COMMAND.
    """

    name: str
    arity: int
    kind: Kind
    carry_out: Callable[[Any, Arguments], Any]
    keys: tuple[int, int, int] = (0, 0, 0)

    def accepts(self, count: int) -> bool:
        """True if `count` arguments, the name among them, are as many as there have to be."""
        return count == self.arity if self.arity > 0 else count >= -self.arity


def find_command(name: bytes) -> Command | None:
    """The command called `name`, in any case."""
    return COMMANDS.get(name) or COMMANDS.get(name.upper())


def unknown_command(arguments: Arguments) -> Refused:
    """Redis's own words, with as much of the arguments as Redis shows."""
    shown = b""
    for argument in arguments[1:]:
        if len(shown) >= 128:
            break
        shown += b"'%b' " % printable(argument[: 128 - len(shown)])
    name = printable(arguments[0][:128])
    return Refused(b"ERR unknown command '%b', with args beginning with: %b" % (name, shown))


def check_key(limits: Limits, key: bytes) -> bytes:
    """@raise WrongRequest: it is too long."""
    if len(key) > limits.key_bytes:
        raise WrongRequest(Refused(b"ERR key is longer than kv_max_key_bytes = %d" % limits.key_bytes))
    return key


def check_value(limits: Limits, value: bytes) -> bytes:
    """@raise WrongRequest: it is too long."""
    if len(value) > limits.value_bytes:
        raise WrongRequest(Refused(b"ERR value is longer than kv_max_value_bytes = %d" % limits.value_bytes))
    return value


def _integer(text: bytes) -> int:
    number = parse_integer(text)
    if number is None:
        raise WrongRequest(NOT_AN_INTEGER)
    return number


def _get(limits: Limits, arguments: Arguments) -> bytes:
    return encoding.GET_PREFIX + check_key(limits, arguments[1])


def _of_key(ask: Ask) -> Callable[[Limits, Arguments], bytes]:
    return lambda limits, arguments: bytes([ask]) + check_key(limits, arguments[1])


def _of_keys(op: Op | Ask) -> Callable[[Limits, Arguments], bytes]:
    return lambda limits, arguments: encoding.pack_fields(op, [check_key(limits, key) for key in arguments[1:]])


def _set(limits: Limits, arguments: Arguments) -> bytes:
    key, value = arguments[1], arguments[2]
    if len(key) > limits.key_bytes or len(value) > limits.value_bytes:
        check_key(limits, key)
        check_value(limits, value)
    if len(arguments) == 3:
        return encoding.pack_set(key, value)
    return encoding.pack_set_with(key, value, _set_flags(arguments[3:]))


def _set_flags(options: Arguments) -> SetFlag:
    known = {b"NX": SetFlag.IF_ABSENT, b"XX": SetFlag.IF_PRESENT, b"GET": SetFlag.RETURN_OLD}
    flags = SetFlag(0)
    for option in options:
        name = option.upper()
        if name in (b"EX", b"PX", b"EXAT", b"PXAT", b"KEEPTTL"):
            raise WrongRequest(Refused(b"ERR unsupported option %b: keys do not expire here" % name))
        if name not in known:
            raise WrongRequest(SYNTAX_ERROR)
        flags |= known[name]
    if SetFlag.IF_ABSENT in flags and SetFlag.IF_PRESENT in flags:
        raise WrongRequest(SYNTAX_ERROR)
    return flags


def _setnx(limits: Limits, arguments: Arguments) -> bytes:
    return encoding.pack_keyed(Op.SET_NEW, check_key(limits, arguments[1]), check_value(limits, arguments[2]))


def _mset(limits: Limits, arguments: Arguments) -> bytes:
    if len(arguments) % 2 == 0:
        raise WrongRequest(wrong_arity("mset"))
    for key in arguments[1::2]:
        check_key(limits, key)
    for value in arguments[2::2]:
        check_value(limits, value)
    return encoding.pack_fields(Op.SET_MANY, arguments[1:])


def _increment(limits: Limits, arguments: Arguments) -> bytes:
    return encoding.pack_increment(check_key(limits, arguments[1]), 1)


def _increment_by(limits: Limits, arguments: Arguments) -> bytes:
    return encoding.pack_increment(check_key(limits, arguments[1]), _integer(arguments[2]))


def _decrement(limits: Limits, arguments: Arguments) -> bytes:
    return encoding.pack_increment(check_key(limits, arguments[1]), -1)


def _decrement_by(limits: Limits, arguments: Arguments) -> bytes:
    amount = _integer(arguments[2])
    if amount == encoding.MIN_INTEGER:
        raise WrongRequest(Refused(b"ERR decrement would overflow"))
    return encoding.pack_increment(check_key(limits, arguments[1]), -amount)


def _append(limits: Limits, arguments: Arguments) -> bytes:
    addition = check_value(limits, arguments[2])
    return encoding.pack_append(check_key(limits, arguments[1]), addition, limits.value_bytes)


def _flush(limits: Limits, arguments: Arguments) -> bytes:
    if len(arguments) > 2 or (len(arguments) == 2 and arguments[1].upper() not in (b"SYNC", b"ASYNC")):
        raise WrongRequest(SYNTAX_ERROR)
    return bytes([Op.FLUSH])


def _size(limits: Limits, arguments: Arguments) -> bytes:
    return bytes([Ask.SIZE])


def _pattern(pattern: bytes) -> bytes:
    if len(pattern) > MAX_PATTERN_BYTES:
        raise WrongRequest(Refused(b"ERR pattern is longer than %d bytes" % MAX_PATTERN_BYTES))
    return pattern


def _keys(limits: Limits, arguments: Arguments) -> bytes:
    return bytes([Ask.KEYS]) + _pattern(arguments[1])


def _scan(limits: Limits, arguments: Arguments) -> bytes:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]; string is the only type there is."""
    if not arguments[1].isdigit() or len(arguments[1]) > 20 or int(arguments[1]) >= 2**64:
        raise WrongRequest(Refused(b"ERR invalid cursor"))
    count, pattern, is_string = 10, b"*", True
    options = list(arguments[2:])
    while options:
        if len(options) < 2:
            raise WrongRequest(SYNTAX_ERROR)
        name, value = options.pop(0).upper(), options.pop(0)
        if name == b"COUNT":
            count = _integer(value)
        elif name == b"MATCH":
            pattern = _pattern(value)
        elif name == b"TYPE":
            is_string = value.lower() == b"string"
        else:
            raise WrongRequest(SYNTAX_ERROR)
    if count < 1:
        raise WrongRequest(SYNTAX_ERROR)
    return encoding.pack_scan(int(arguments[1]), min(count, _MAX_COUNT), pattern if is_string else _MATCHES_NOTHING)


def _command(session: Session, arguments: Arguments) -> object:
    """COMMAND [COUNT | LIST | DOCS [name...] | INFO [name...]]."""
    if len(arguments) == 1:
        return [_described(command) for command in _TABLE]
    subcommand, names = arguments[1].upper(), arguments[2:]
    if subcommand == b"INFO":
        wanted = map(find_command, names) if names else _TABLE
        return [_described(command) if command else None for command in wanted]
    if subcommand == b"DOCS":
        found = map(find_command, names) if names else _TABLE
        return {command.name.encode(): {b"group": b"txraft"} for command in found if command}
    if subcommand not in (b"COUNT", b"LIST"):
        return local.unknown_subcommand(arguments)
    if names:
        return wrong_arity(f"command|{subcommand.decode().lower()}")
    return len(_TABLE) if subcommand == b"COUNT" else [command.name.encode() for command in _TABLE]


def _described(command: Command) -> Sequence[object]:
    flags = {Kind.WRITE: [b"write", b"denyoom"], Kind.READ: [b"readonly"], Kind.LOCAL: [b"fast"]}[command.kind]
    words = [Status(flag) for flag in flags]
    return [command.name.encode(), command.arity, words, *command.keys, [], [], [], []]


_ONE_KEY = (1, 1, 1)
_ALL_KEYS = (1, -1, 1)

_TABLE = (
    Command("append", 3, Kind.WRITE, _append, _ONE_KEY),
    Command("client", -2, Kind.LOCAL, local.client),
    Command("command", -1, Kind.LOCAL, _command),
    Command("dbsize", 1, Kind.READ, _size),
    Command("decr", 2, Kind.WRITE, _decrement, _ONE_KEY),
    Command("decrby", 3, Kind.WRITE, _decrement_by, _ONE_KEY),
    Command("del", -2, Kind.WRITE, _of_keys(Op.DELETE), _ALL_KEYS),
    Command("echo", 2, Kind.LOCAL, local.echo),
    Command("exists", -2, Kind.READ, _of_keys(Ask.EXISTS), _ALL_KEYS),
    Command("flushdb", -1, Kind.WRITE, _flush),
    Command("get", 2, Kind.READ, _get, _ONE_KEY),
    Command("hello", -1, Kind.LOCAL, local.hello),
    Command("incr", 2, Kind.WRITE, _increment, _ONE_KEY),
    Command("incrby", 3, Kind.WRITE, _increment_by, _ONE_KEY),
    Command("info", -1, Kind.LOCAL, local.info),
    Command("keys", 2, Kind.READ, _keys),
    Command("mget", -2, Kind.READ, _of_keys(Ask.GET_MANY), _ALL_KEYS),
    Command("mset", -3, Kind.WRITE, _mset, (1, -1, 2)),
    Command("ping", -1, Kind.LOCAL, local.ping),
    Command("quit", -1, Kind.LOCAL, local.quit_),
    Command("scan", -2, Kind.READ, _scan),
    Command("select", 2, Kind.LOCAL, local.select),
    Command("set", -3, Kind.WRITE, _set, _ONE_KEY),
    Command("setnx", 3, Kind.WRITE, _setnx, _ONE_KEY),
    Command("strlen", 2, Kind.READ, _of_key(Ask.LENGTH), _ONE_KEY),
    Command("type", 2, Kind.READ, _of_key(Ask.TYPE), _ONE_KEY),
)

# Both spellings that clients send, so that the busiest path needs one look.
COMMANDS: dict[bytes, Command] = {
    name: command for command in _TABLE for name in (command.name.upper().encode(), command.name.encode())
}
