"""One HTTP request to one server's admin port, and what has become of it."""

from __future__ import annotations

import json
import os
from collections.abc import Coroutine
from typing import Any

import treq
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import RequestGenerationFailed, RequestTransmissionFailed, ResponseFailed

from txraft.admin.problems import KINDS_BY_CODE, BadAnswer, Kind, NoAnswer, Problem, Unreachable, problem_of
from txraft.errors import TxraftError

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
        self, server: str, method: str, path: str, body: Answer | None = None, timeout_s: float | None = None
    ) -> Deferred[Answer]:
        """
        Fires with the answer to one request. `timeout_s` None: however long it takes, unless it is cancelled.

        Fails with `Unreachable` (it was not asked), `Answered`, `NoAnswer` (nobody knows what was done) or
        `BadAnswer`; with `CancelledError` if it is cancelled.
        """
        exchange = Deferred.fromCoroutine(_cancelled(self._exchange(server, method, path, body)))
        if timeout_s is not None:
            exchange.addTimeout(timeout_s, self.clock)
        return Deferred.fromCoroutine(_typed(server, exchange))

    async def _exchange(self, server: str, method: str, path: str, body: Answer | None) -> Answer:
        response = await self._http.request(
            method,
            f"http://{server}{path}",
            headers=self._headers,
            # Another server is asked only where the answer says so in our own terms.
            allow_redirects=False,
            unbuffered=True,
            reactor=self.clock,
            **({} if body is None else {"json": body}),
        )
        chunks: list[bytes] = []

        def collect(chunk: bytes) -> None:
            chunks.append(chunk)
            if sum(map(len, chunks)) > MAX_ANSWER_BYTES:
                raise BadAnswer(server, f"more than {MAX_ANSWER_BYTES} bytes")

        await treq.collect(response, collect)
        return read_answer(server, response.code, b"".join(chunks))


async def _cancelled(exchange: Coroutine[Deferred[Any], Any, Answer]) -> Answer:
    """As `exchange`, but wherever it is cancelled, it fails with `CancelledError`."""
    try:
        return await exchange
    except (*_NOT_ANSWERED, *_NOT_ASKED) as error:
        reasons = [error, *(reason.value for reason in getattr(error, "reasons", ()))]
        if any(isinstance(reason, CancelledError | ConnectingCancelledError) for reason in reasons):
            raise CancelledError from error
        raise


async def _typed(server: str, exchange: Deferred[Answer]) -> Answer:
    try:
        return await exchange
    except _NOT_ASKED as error:
        raise Unreachable(server, _words(error)) from error
    except _NOT_ANSWERED as error:
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
    unknown = Kind(error["code"], status, "ERROR", str(error.get("advice", "")))
    kind = KINDS_BY_CODE.get(error["code"], unknown)
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
    if isinstance(innermost, ConnectError) and isinstance(innermost.osError, int):
        return os.strerror(innermost.osError)
    return (str(innermost) or type(innermost).__name__).rstrip(".")
