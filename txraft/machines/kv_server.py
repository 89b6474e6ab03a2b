"""
The kv machine's port: the Redis protocol and the original's plain lines, pipelined, answered in order.

Requests of one kind that follow each other become one batch: one proposal of many commands, or one read of many
requests, with one Deferred. A connection's reads and writes never overlap: while writes are outstanding, later writes
may go ahead and later reads wait, and the other way round. So every request sees what those before it did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.errors import CommandTooLarge, FatalError, Refusal
from txraft.machines import kv_encoding as encoding
from txraft.machines.kv import Refused
from txraft.machines.kv_commands import Kind, WrongRequest, check_key, check_value, find_command, unknown_command
from txraft.machines.kv_encoding import Op, SetFlag
from txraft.machines.kv_local import Limits, Session, wrong_arity
from txraft.machines.kv_replies import INVALID, LINES, Formats, format_results
from txraft.machines.kv_requests import BrokenStream, Request, RequestSplitter
from txraft.net.writing import write_now

WRITE_BYTES = 256 * 1024
"""Replies are formatted this much at a time, so that a client that does not read makes no copies of values."""
_SLICE = 16

MERGE_REQUESTS = 1024
MERGE_BYTES = 256 * 1024
"""A batch that waits for its turn takes in what follows it, up to these bounds."""


class _Batch:
    """
    Requests of one kind and dialect that follow each other, and then their results.

    `received_bytes` is what they weighed on the wire, about; `done` counts the results already sent.
    """

    __slots__ = ("done", "formats", "kind", "received_bytes", "requests", "results")

    def __init__(self, kind: Kind, formats: Formats) -> None:
        self.kind = kind
        self.formats = formats
        self.requests: list[Any] = []
        self.results: Sequence[object] | None = None
        self.received_bytes = 0
        self.done = 0

    def is_full(self) -> bool:
        """True if what follows should begin another batch."""
        return len(self.requests) >= MERGE_REQUESTS or self.received_bytes >= MERGE_BYTES

    def format_slice(self) -> list[bytes]:
        """The next few replies."""
        assert self.results is not None
        formatted = format_results(self.formats, self.results[self.done : self.done + _SLICE])
        self.done += len(formatted)
        return formatted

    def is_done(self) -> bool:
        """True if `format_slice` has given all replies."""
        return self.done == len(self.requests)


@attrs.frozen
class Bounds:
    """
    What one connection may make this server hold.

    `request_bytes` of a request that is not complete. At `pipeline` requests or `pipeline_bytes` that are not answered
    reading stops, so they are exceeded by what one read brings at most.
    """

    request_bytes: int
    pipeline: int
    pipeline_bytes: int


OnMade = Callable[["KeyValueProtocol", Session], bool]
OnLost = Callable[["KeyValueProtocol", Session], None]


def parse_line(limits: Limits, line: bytes) -> tuple[Kind, bytes] | None:
    """
    `get K`, `set K V` or `del K` for the machine; None if it is none of them. The value is the rest of the line.

    @raise WrongRequest: key or value is too long.
    """
    word, _, rest = line.partition(b" ")
    if word == b"set":
        key, space, value = rest.partition(b" ")
        if not key or not space:
            return None
        check_key(limits, key)
        return Kind.WRITE, encoding.pack_set_with(key, check_value(limits, value), SetFlag.RETURN_OLD)
    if word not in (b"get", b"del") or not rest or b" " in rest:
        return None
    check_key(limits, rest)
    if word == b"get":
        return Kind.READ, encoding.GET_PREFIX + rest
    return Kind.WRITE, encoding.pack_fields(Op.DELETE, [rest])


@implementer(IPushProducer, IHalfCloseableProtocol)
class KeyValueProtocol(Protocol):
    """
    One client.

    `on_made` is called when it has connected and says whether it may stay, `on_lost` when it is gone.
    """

    # Protocol says ITransport or None, which has none of what a connection's transport has.
    transport: Any
    _log = Logger()

    def __init__(self, session: Session, bounds: Bounds, on_made: OnMade, on_lost: OnLost) -> None:
        self._session = session
        self._bounds = bounds
        self._on_made = on_made
        self._on_lost = on_lost
        self._limits = session.surroundings.limits
        self._node = session.surroundings.node
        self._splitter = RequestSplitter(bounds.request_bytes)
        # All that is not answered yet, in the order of the requests; and the tail of it that the node has not got.
        self._batches: deque[_Batch] = deque()
        self._waiting: deque[_Batch] = deque()
        self._open: _Batch | None = None
        self._kind_at_node = Kind.LOCAL
        self._batches_at_node = 0
        self._requests = 0
        self._received_bytes = 0
        self._is_submitting = False
        self._is_connected = False
        self._is_reading = True
        self._client_is_slow = False

    # -- the transport's calls

    def connectionMade(self) -> None:
        self._is_connected = True
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        if not self._on_made(self, self._session):
            self._end_with(Refused(b"ERR max number of clients reached"))
            self._deliver()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_connected = False
        self._batches.clear()
        self._waiting.clear()
        self._on_lost(self, self._session)

    def readConnectionLost(self) -> None:
        """The client has no more requests, but waits for its replies."""
        self.finish()

    def writeConnectionLost(self) -> None:
        """The client reads no replies; only we close this direction, and then both."""

    def pauseProducing(self) -> None:
        """The client does not read its replies: format no more of them, and read no more requests."""
        self._client_is_slow = True
        self._regulate()

    def resumeProducing(self) -> None:
        """The client has read."""
        self._client_is_slow = False
        self._deliver()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` says so too."""

    def dataReceived(self, data: bytes) -> None:
        if self._session.is_closing:
            return
        requests: list[Request] = []
        problem = b""
        try:
            self._splitter.split(data, requests)
        except BrokenStream as error:
            problem = b"ERR " + str(error).encode()
        self._take(requests)
        if problem and not self._session.is_closing:
            self._end_with(Refused(problem))
        if self._batches:
            self._batches[-1].received_bytes += len(data)
            self._received_bytes += len(data)
        self._submit()
        if self._batches and self._batches[0].results is None:
            self._regulate()
        else:
            self._deliver()

    def finish(self) -> None:
        """Take no more requests; close when what is under way is answered, at once if the client does not read."""
        self._session.is_closing = True
        if self._client_is_slow and self._is_connected:
            self.transport.abortConnection()
        else:
            self._deliver()

    # -- requests

    def _take(self, requests: Sequence[Request]) -> None:
        """Turn requests into batches, up to one that ends the connection."""
        for request in requests:
            try:
                if isinstance(request, bytes):
                    self._take_line(request)
                else:
                    self._take_command(request)
            except WrongRequest as error:
                formats = LINES if isinstance(request, bytes) else self._session.formats
                self._add(Kind.LOCAL, formats, error.refused)
            if self._session.is_closing:
                return

    def _take_line(self, line: bytes) -> None:
        parsed = parse_line(self._limits, line)
        if parsed is None:
            self._add(Kind.LOCAL, LINES, INVALID)
        else:
            self._add(parsed[0], LINES, parsed[1])

    def _take_command(self, arguments: list[bytes]) -> None:
        session = self._session
        command = find_command(arguments[0])
        if command is None:
            self._add(Kind.LOCAL, session.formats, unknown_command(arguments))
        elif not command.accepts(len(arguments)):
            self._add(Kind.LOCAL, session.formats, wrong_arity(command.name))
        elif command.kind is Kind.LOCAL:
            result = command.carry_out(session, arguments)
            # Only now: HELLO answers in the dialect that it asks for.
            self._add(Kind.LOCAL, session.formats, result)
        else:
            self._add(command.kind, session.formats, command.carry_out(self._limits, arguments))

    def _add(self, kind: Kind, formats: Formats, item: object) -> None:
        """One more request for the node, or one more result of a local command."""
        batch = self._open
        if batch is None or batch.kind is not kind or batch.formats is not formats or batch.is_full():
            batch = self._open = _Batch(kind, formats)
            self._batches.append(batch)
            self._waiting.append(batch)
        batch.requests.append(item)
        self._requests += 1

    def _end_with(self, refused: Refused) -> None:
        """Answer this last, then close."""
        self._add(Kind.LOCAL, self._session.formats, refused)
        self._session.is_closing = True
        self._submit()

    # -- to the node and back

    def _submit(self) -> None:
        """Give the node what may go now."""
        # A node may answer at once; then this loop goes on with what that has made possible, without recursion.
        self._is_submitting = True
        waiting = self._waiting
        while waiting:
            batch = waiting[0]
            if batch.kind is Kind.LOCAL:
                batch.results = batch.requests
            elif not self._batches_at_node or batch.kind is self._kind_at_node:
                self._kind_at_node = batch.kind
                self._batches_at_node += 1
                self._start(batch)
            else:
                break
            waiting.popleft()
        self._open = waiting[-1] if waiting else None
        self._is_submitting = False

    def _start(self, batch: _Batch) -> None:
        carry_out = self._node.propose_many if batch.kind is Kind.WRITE else self._node.read_many
        outcome = carry_out(batch.requests)
        outcome.addCallbacks(self._answered, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        outcome.addErrback(self._broke)

    def _answered(self, results: Sequence[object], batch: _Batch) -> None:
        assert len(results) == len(batch.requests), (len(results), len(batch.requests))
        batch.results = results
        self._batches_at_node -= 1
        if not self._is_submitting:
            self._submit()
            self._deliver()

    def _failed(self, failure: Failure, batch: _Batch) -> None:
        if failure.check(CommandTooLarge) and len(batch.requests) > 1:
            self._start_one_by_one(batch)
            return
        if not failure.check(Refusal, FatalError):
            self._log.failure("the node failed a request in an unknown way", failure)
        self._answered([failure.value] * len(batch.requests), batch)

    def _start_one_by_one(self, batch: _Batch) -> None:
        """A batch is taken whole or not at all; one command that is too large must not spoil the others."""
        carry_out = self._node.propose if batch.kind is Kind.WRITE else self._node.read
        outcomes = DeferredList([carry_out(request) for request in batch.requests], consumeErrors=True)
        outcomes.addCallback(lambda pairs: [result if good else result.value for good, result in pairs])
        outcomes.addCallback(self._answered, batch)
        outcomes.addErrback(self._broke)

    def _broke(self, failure: Failure) -> None:
        self._log.failure("a connection to {address} is closed", failure, address=self._session.address)
        if self._is_connected:
            self.transport.abortConnection()

    # -- replies

    def _deliver(self) -> None:
        """Send the replies that are complete, in order, for as long as the client reads."""
        if not self._is_connected:
            return
        replies: list[bytes] = []
        size = 0
        batches = self._batches
        while batches and batches[0].results is not None and not self._client_is_slow:
            formatted = batches[0].format_slice()
            if batches[0].is_done():
                self._account_for(batches.popleft())
            replies += formatted
            size += sum(map(len, formatted))
            if size >= WRITE_BYTES:
                write_now(self.transport, b"".join(replies))
                replies, size = [], 0
        if replies:
            write_now(self.transport, b"".join(replies))
        if self._session.is_closing and not batches:
            self._close()
        else:
            self._regulate()

    def _account_for(self, batch: _Batch) -> None:
        self._requests -= len(batch.requests)
        self._received_bytes -= batch.received_bytes

    def _close(self) -> None:
        self._is_connected = False
        # While a producer is registered, the transport would wait for it.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _regulate(self) -> None:
        """Read on, or stop reading, as what is under way allows."""
        may_read = (
            not self._client_is_slow
            and not self._session.is_closing
            and self._requests < self._bounds.pipeline
            and self._received_bytes < self._bounds.pipeline_bytes
        )
        if may_read is self._is_reading or not self._is_connected:
            return
        self._is_reading = may_read
        if may_read:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()
