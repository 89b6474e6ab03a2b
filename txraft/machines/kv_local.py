"""Redis commands that need neither log nor machine: answered at once, by any server, each in its place in the order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from txraft.machines.kv import KeyValueMachine, Refused, Status
from txraft.machines.kv_encoding import parse_integer
from txraft.machines.kv_replies import RESP2, RESP3, Formats

REDIS_VERSION = b"7.0.0"
"""The Redis whose answers are given here; clients decide by it what they may ask for."""

Arguments = Sequence[bytes]
SYNTAX_ERROR = Refused(b"ERR syntax error")
NOT_AN_INTEGER = Refused(b"ERR value is not an integer or out of range")
BAD_NAME = Refused(b"ERR Client names cannot contain spaces, newlines or special characters.")


@attrs.frozen
class Limits:
    """The longest key and the longest value that are taken, in bytes."""

    key_bytes: int
    value_bytes: int


@attrs.define
class Surroundings:
    """What all connections of a server share. `node` is the RaftNode; `sessions` are open, by their id."""

    node: Any
    machine: KeyValueMachine
    limits: Limits
    sessions: dict[int, Session] = attrs.field(factory=dict)


@attrs.define
class Session:
    """What one connection has told of itself. `formats` is the Redis dialect that it speaks now."""

    id: int
    address: str
    surroundings: Surroundings
    name: bytes = b""
    library: bytes = b""
    library_version: bytes = b""
    formats: Formats = attrs.field(default=RESP2, repr=False)
    is_closing: bool = False

    @property
    def protocol_version(self) -> int:
        return 3 if self.formats is RESP3 else 2


def wrong_arity(name: str) -> Refused:
    return Refused(b"ERR wrong number of arguments for '%b' command" % name.encode())


def unknown_subcommand(arguments: Arguments) -> Refused:
    shown = printable(arguments[1][:128])
    return Refused(b"ERR unknown subcommand '%b'. Try %b HELP." % (shown, arguments[0].upper()))


def printable(text: bytes) -> bytes:
    """`text` as Redis puts it into an error: up to the first NUL, on one line."""
    return text.partition(b"\0")[0].replace(b"\r", b" ").replace(b"\n", b" ")


def ping(session: Session, arguments: Arguments) -> object:
    if len(arguments) > 2:
        return wrong_arity("ping")
    return arguments[1] if len(arguments) == 2 else Status(b"PONG")


def echo(session: Session, arguments: Arguments) -> object:
    return arguments[1]


def select(session: Session, arguments: Arguments) -> object:
    index = parse_integer(arguments[1])
    if index is None:
        return NOT_AN_INTEGER
    return True if index == 0 else Refused(b"ERR DB index is out of range")


def quit_(session: Session, arguments: Arguments) -> object:
    session.is_closing = True
    return True


def hello(session: Session, arguments: Arguments) -> object:
    """HELLO [2|3 [AUTH user password] [SETNAME name]]; changes the dialect of its own answer and of all later ones."""
    name = session.name
    formats = session.formats
    if len(arguments) > 1:
        version = parse_integer(arguments[1])
        if version is None:
            return Refused(b"ERR Protocol version is not an integer or out of range")
        if version not in (2, 3):
            return Refused(b"NOPROTO unsupported protocol version")
        formats = RESP2 if version == 2 else RESP3
        options = list(arguments[2:])
        while options:
            option = options.pop(0).upper()
            if option == b"AUTH" and len(options) >= 2:
                return Refused(b"WRONGPASS no users and passwords are configured here")
            if option != b"SETNAME" or not options:
                return SYNTAX_ERROR
            name = options.pop(0)
            if not _is_name(session, name):
                return BAD_NAME
    session.name, session.formats = name, formats
    role = b"master" if session.surroundings.node.status().role == "leader" else b"replica"
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION,
        b"proto": session.protocol_version,
        b"id": session.id,
        b"mode": b"standalone",
        b"role": role,
        b"modules": [],
    }


def _is_name(session: Session, name: bytes) -> bool:
    return len(name) <= session.surroundings.limits.key_bytes and all(0x21 <= byte <= 0x7E for byte in name)


def client(session: Session, arguments: Arguments) -> object:
    subcommand = arguments[1].upper()
    if subcommand not in _CLIENT:
        return unknown_subcommand(arguments)
    arity, answer = _CLIENT[subcommand]
    if len(arguments) != arity:
        return wrong_arity(f"client|{subcommand.decode().lower()}")
    return answer(session, arguments)


def _client_setname(session: Session, arguments: Arguments) -> object:
    if not _is_name(session, arguments[2]):
        return BAD_NAME
    session.name = arguments[2]
    return True


def _client_setinfo(session: Session, arguments: Arguments) -> object:
    attribute, value = arguments[2].upper(), arguments[3]
    if attribute not in (b"LIB-NAME", b"LIB-VER"):
        return Refused(b"ERR Unrecognized option '%b'" % printable(arguments[2][:128]))
    if not _is_name(session, value):
        return Refused(b"ERR %b cannot contain spaces, newlines or special characters." % attribute.lower())
    if attribute == b"LIB-NAME":
        session.library = value
    else:
        session.library_version = value
    return True


def _describe(session: Session) -> bytes:
    return b"id=%d addr=%b name=%b db=0 resp=%d lib-name=%b lib-ver=%b\n" % (
        session.id,
        session.address.encode(),
        session.name,
        session.protocol_version,
        session.library,
        session.library_version,
    )


_CLIENT: dict[bytes, tuple[int, Callable[[Session, Arguments], object]]] = {
    b"ID": (2, lambda session, arguments: session.id),
    b"GETNAME": (2, lambda session, arguments: session.name or None),
    b"SETNAME": (3, _client_setname),
    b"SETINFO": (4, _client_setinfo),
    b"INFO": (2, lambda session, arguments: _describe(session)),
    b"LIST": (2, lambda session, arguments: b"".join(map(_describe, session.surroundings.sessions.values()))),
}


def info(session: Session, arguments: Arguments) -> object:
    """INFO [section...]: of this server alone, as it is now, whether or not earlier requests are carried out yet."""
    wanted = {argument.decode("ascii", "replace").lower() for argument in arguments[1:]}
    everything = not wanted or wanted & {"all", "default", "everything"}
    parts = []
    for title, lines in _info_sections(session.surroundings).items():
        if everything or title.lower() in wanted:
            parts.append("\r\n".join([f"# {title}", *(f"{name}:{value}" for name, value in lines.items()), ""]))
    return "\r\n".join(parts).encode()


def _info_sections(surroundings: Surroundings) -> dict[str, dict[str, object]]:
    status = surroundings.node.status()
    keys = len(surroundings.machine)
    return {
        "Server": {
            "redis_version": REDIS_VERSION.decode(),
            "redis_mode": "standalone",
            "server_id": status.server_id,
        },
        "Clients": {"connected_clients": len(surroundings.sessions)},
        "Replication": {
            # Redis knows two roles.
            "role": "master" if status.role == "leader" else "slave",
            "raft_role": status.role,
            "raft_term": status.term,
            "raft_leader_id": status.leader_id or "",
            "raft_commit_index": status.commit_index,
            "raft_applied_index": status.applied_index,
        },
        "Keyspace": {"db0": f"keys={keys},expires=0,avg_ttl=0"} if keys else {},
    }
