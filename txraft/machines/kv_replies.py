"""
Results of the kv machine, and failures of the node, as the bytes of a reply: one table for each of the three dialects.

What a result means is said in `kv`. A dict is an answer of a local command: a map in RESP3, a flat array in RESP2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from txraft.errors import FatalError, NotLeader, OutcomeUnknown, Overloaded, Refusal, Stopped
from txraft.machines.kv import Refused, Status

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""The longest reply to one request, as MGET and KEYS could make it; beyond it the client is told so."""

Formats = dict[type, Callable[[Any], bytes]]
"""How a dialect writes a result, by the result's exact type."""


def one_line(text: str) -> bytes:
    """`text` fit for a reply that ends with its line."""
    return " ".join(text.split()).encode("utf-8", "replace")


def resp_failure(error: Exception) -> bytes:
    """What a Redis client is told about a request that failed with `error`."""
    if isinstance(error, NotLeader):
        if error.client_address:
            # Redis clients look for the last colon, and take what is before it for the address as it is.
            return b"-MOVED 0 %b\r\n" % one_line(error.client_address).translate(None, b"[]")
        missing = ", at no address known here" if error.leader_id else ""
        return b"-CLUSTERDOWN %b\r\n" % one_line(f"{error}{missing}")
    if isinstance(error, Stopped | FatalError):
        return b"-CLUSTERDOWN %b\r\n" % one_line(str(error) or "this server is stopping")
    code = b"BUSY" if isinstance(error, Overloaded) else b"ERR"
    return b"-%b %b\r\n" % (code, one_line(_explained(error)))


def line_failure(error: Exception) -> bytes:
    """The same in the plain dialect."""
    if isinstance(error, NotLeader):
        return b"NOT_LEADER %b\r\n" % one_line(error.client_address)
    return b"ERROR %b\r\n" % one_line(_explained(error) or "this server is stopping")


def _explained(error: Exception) -> str:
    if isinstance(error, OutcomeUnknown):
        return f"{error}; the write may still be carried out"
    return str(error) if isinstance(error, Refusal | FatalError) else "internal error"


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def _integer(value: int) -> bytes:
    return b":%d\r\n" % value


def _ok(value: bool) -> bytes:
    return b"+OK\r\n"


def _status(value: Status) -> bytes:
    return b"+%b\r\n" % value.text


def _refused(value: Refused) -> bytes:
    return b"-%b\r\n" % value.text


def _resp_formats(null: bytes, map_head: bytes, pairs_as_one: int) -> Formats:
    def array(values: list[Any] | tuple[Any, ...]) -> bytes:
        if sum(len(value) for value in values if type(value) is bytes) > MAX_REPLY_BYTES:
            return b"-ERR the reply would be longer than %d bytes\r\n" % MAX_REPLY_BYTES
        return b"*%d\r\n%b" % (len(values), b"".join([formats[type(value)](value) for value in values]))

    def mapping(values: dict[Any, Any]) -> bytes:
        flat = [formats[type(part)](part) for pair in values.items() for part in pair]
        return b"%b%d\r\n%b" % (map_head, len(flat) // pairs_as_one, b"".join(flat))

    formats: Formats = {
        bool: _ok,
        bytes: _bulk,
        int: _integer,
        type(None): lambda value: null,
        list: array,
        tuple: array,
        dict: mapping,
        Status: _status,
        Refused: _refused,
    }
    return formats


RESP2 = _resp_formats(b"$-1\r\n", b"*", 1)
RESP3 = _resp_formats(b"_\r\n", b"%", 2)

INVALID = Status(b"INVALID_FOMRAT")
"""So spelt since the original."""

LINES: Formats = {
    bytes: lambda value: b"OK %b\r\n" % value,
    type(None): lambda value: b"OK null\r\n",
    # What was deleted is not said.
    int: lambda value: b"OK \r\n",
    Status: lambda value: value.text + b"\r\n",
    Refused: lambda value: b"ERROR %b\r\n" % value.text.removeprefix(b"ERR "),
}


def format_results(formats: Formats, results: Sequence[object]) -> list[bytes]:
    """One reply for each result, in the dialect of `formats`; an exception among them is a failed request."""
    try:
        return [formats[type(result)](result) for result in results]
    except KeyError:
        failed = line_failure if formats is LINES else resp_failure
        return [failed(value) if isinstance(value, Exception) else formats[type(value)](value) for value in results]
