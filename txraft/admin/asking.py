"""One HTTP request to one server's admin port, and what has become of it."""

from __future__ import annotations

import json
import typing
from collections.abc import Coroutine
from typing import Any

import attrs
import treq
from hyperlink import EncodedURL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import RequestGenerationFailed, RequestTransmissionFailed, ResponseDone, ResponseFailed

from txraft.admin.http_answers import FILE_TYPE
from txraft.admin.problems import (
    KINDS_BY_CODE,
    BadAnswer,
    Interrupted,
    Kind,
    NoAnswer,
    Problem,
    Unreachable,
    problem_of,
)
from txraft.errors import TxraftError
from txraft.net.failures import why_not_connected

Answer = dict[str, Any]

MAX_ANSWER_BYTES = 64 << 20
"""A longer answer is none of a txraft server's: a page of the log has 1,000 entries of 4 KiB."""

_NOT_ASKED = (ConnectError, DNSLookupError)
_NOT_ANSWERED = (
    ResponseFailed,
    RequestTransmissionFailed,
    RequestGenerationFailed,
    ConnectionClosed,
    DeferredTimeout,
)


SILENT = "nothing was heard for too long"


class Answered(TxraftError):
    """A server has answered that it did not do what was asked, or does not know; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem

    @property
    def code(self) -> str:
        """What went wrong, as `problems.KINDS` calls it."""
        return self.problem.code


def problem_in(error: TxraftError) -> Problem:
    """What is to be said of a failed request, whether the server said it or there was no answer."""
    return error.problem if isinstance(error, Answered) else problem_of(error)


class Saving(typing.Protocol):
    """Where an answer goes that is a file. What its methods raise ends the request, and is what that fails with."""

    received: int
    """How many bytes have come."""
    size: int | None
    """How many will have; None before it begins."""

    def begin(self, size: int) -> None:
        """It comes now: `size` bytes."""

    def write(self, data: bytes) -> None:
        """More of it."""


class Asker:
    """Asks servers by the addresses of their admin ports, host:port."""

    def __init__(self, http: Any, clock: IReactorTime, token: str = "") -> None:
        """
        @param http: `treq.client.HTTPClient`, or what has its `request`.
        @param token: what the file of `admin_token_file` holds; empty if the servers want none.
        """
        self.clock = clock
        self._http = http
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def ask(
        self,
        server: str,
        method: str,
        path: str,
        body: Answer | None = None,
        timeout_s: float | None = None,
        saving: Saving | None = None,
    ) -> Deferred[Answer]:
        """
        Fires with the answer to one request. `timeout_s` None: however long it takes, unless it is cancelled. If a file
        is asked for, that goes to `saving`, and the answer is empty.

        Fails with `Unreachable` (it was not asked), `Answered`, `NoAnswer` (nobody knows what was done), `Interrupted`
        (the file has begun to come) or `BadAnswer`; with `CancelledError` if it is cancelled.
        """
        exchange = Deferred.fromCoroutine(_cancelled(self._exchange(server, method, path, body, saving)))
        if timeout_s is not None:
            exchange.addTimeout(timeout_s, self.clock)
        return Deferred.fromCoroutine(_typed(server, exchange, saving))

    async def _exchange(
        self, server: str, method: str, path: str, body: Answer | None, saving: Saving | None
    ) -> Answer:
        response = await self._http.request(
            method,
            _url(server, path),
            headers=self._headers,
            # Another server is asked only where the answer says so in our own terms.
            allow_redirects=False,
            unbuffered=True,
            reactor=self.clock,
            **({} if body is None else {"json": body}),
        )
        if saving is not None and response.code == 200:
            await _save(server, response, saving)
            return {}
        chunks: list[bytes] = []

        def collect(chunk: bytes) -> None:
            chunks.append(chunk)
            if sum(map(len, chunks)) > MAX_ANSWER_BYTES:
                raise BadAnswer(server, f"more than {MAX_ANSWER_BYTES} bytes")

        await treq.collect(response, collect)
        return read_answer(server, response.code, b"".join(chunks))


class _Literal(EncodedURL):
    """A URL that is in the form of a request already: treq encodes host names, and takes an IPv6 address for one."""

    def to_uri(self) -> EncodedURL:
        return self


def _url(server: str, path: str) -> str | EncodedURL:
    text = f"http://{server}{path}"
    return _Literal.from_text(text) if server.startswith("[") else text


async def _cancelled(exchange: Coroutine[Deferred[Any], Any, Answer]) -> Answer:
    """As `exchange`, but wherever it is cancelled, it fails with `CancelledError`."""
    try:
        return await exchange
    except (*_NOT_ANSWERED, *_NOT_ASKED, ConnectingCancelledError) as error:
        reasons = [error, *(reason.value for reason in getattr(error, "reasons", ()))]
        if any(isinstance(reason, CancelledError | ConnectingCancelledError) for reason in reasons):
            raise CancelledError from error
        raise


async def _save(server: str, response: Any, saving: Saving) -> None:
    [media_type] = response.headers.getRawHeaders("content-type", [""])[:1]
    if media_type != FILE_TYPE or not isinstance(response.length, int):
        raise BadAnswer(server, f"{media_type or 'something'}, where a file was asked for")
    saving.begin(response.length)
    body = _FileBody(saving)
    response.deliverBody(body)
    await body.done


class _FileBody(Protocol):
    """Takes a file as it comes. Unlike that of `treq.collect`, it can be cancelled, and then ends the connection."""

    def __init__(self, saving: Saving) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._give_up())
        self._saving = saving
        self._is_over = False

    def _give_up(self) -> None:
        self._is_over = True
        transport: Any = self.transport
        transport.stopProducing()

    def dataReceived(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            self._saving.write(data)
        except Exception:
            self._give_up()
            self.done.errback()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._is_over:
            self._is_over = True
            self.done.callback(None) if reason.check(ResponseDone) else self.done.errback(reason)


async def _typed(server: str, exchange: Deferred[Answer], saving: Saving | None) -> Answer:
    try:
        return await exchange
    except _NOT_ASKED as error:
        raise Unreachable(server, _words(error)) from error
    except _NOT_ANSWERED as error:
        if saving is not None and saving.size is not None:
            raise Interrupted(server, saving.received, saving.size, _words(error)) from error
        kind = NoAnswer if _is_lost(error) else BadAnswer
        raise kind(server, _words(error)) from error


def read_answer(server: str, status: int, body: bytes) -> Answer:
    """
    What a server has answered, with that HTTP status.

    @raise Answered: it says that it did not do it.
    @raise BadAnswer: this is no answer of a txraft server.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise BadAnswer(server, f"HTTP status {status} and no JSON") from None
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict) and isinstance(error.get("code"), str):
        raise Answered(_read_problem(status, error))
    if status != 200 or not isinstance(answer, dict):
        raise BadAnswer(server, f"HTTP status {status}")
    return answer


def _read_problem(status: int, error: Answer) -> Problem:
    # A newer server may know kinds of failures that we do not.
    unknown = Kind(error["code"], status, "ERROR", "")
    kind = attrs.evolve(KINDS_BY_CODE.get(error["code"], unknown), advice=str(error.get("advice", "")))
    facts = {name: value for name, value in error.items() if name not in ("code", "message", "advice")}
    return Problem(kind, str(error.get("message", "")), facts)


def _innermost(error: BaseException) -> BaseException:
    reasons = getattr(error, "reasons", ())
    return reasons[0].value if reasons else error


def _is_lost(error: BaseException) -> bool:
    """It was the connection that failed, not what came over it."""
    return isinstance(_innermost(error), ConnectionClosed | DeferredTimeout)


def _words(error: BaseException) -> str:
    innermost = _innermost(error)
    if isinstance(innermost, DeferredTimeout):
        return SILENT
    if isinstance(innermost, ConnectionClosed):
        return "the connection broke"
    if not isinstance(error, _NOT_ASKED):
        return "it does not speak HTTP"
    return why_not_connected(innermost)
