"""The admin HTTP as a resource: from a request to the endpoint that answers it, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.server import Request as SiteRequest

from txraft.admin.connections import peer_name
from txraft.admin.http_answers import AnyResponse, Endpoint, FileResponse, Response, json_problem, text_problem, write
from txraft.admin.http_api import api_endpoints
from txraft.admin.http_gate import Gate
from txraft.admin.http_openapi import document_endpoint
from txraft.admin.http_original import original_endpoints
from txraft.admin.http_page import page_endpoints
from txraft.admin.http_requests import MAX_BODY_BYTES, MAX_DISCARDED_BYTES
from txraft.admin.http_stream import FileSender
from txraft.admin.operations import Operations
from txraft.admin.problems import MethodNotAllowed, NotFound, problem_of

IDLE_S = 60
"""A connection without a request for this long is closed."""

_log = Logger()


def all_endpoints(operations: Operations) -> list[Endpoint]:
    """Everything that there is."""
    return [
        *api_endpoints(operations),
        document_endpoint(),
        *page_endpoints(operations),
        *original_endpoints(operations),
    ]


class AdminResource(Resource):
    """Answers every request, each when it is decided. `under_way` are those that are not answered yet."""

    isLeaf = True

    def __init__(self, endpoints: Iterable[Endpoint], gate: Gate, clock: IReactorTime, bandwidth: int) -> None:
        super().__init__()
        self._clock = clock
        self._bandwidth = bandwidth
        self._gate = gate
        self._paths: dict[bytes, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            self._paths.setdefault(endpoint.path.encode(), {})[endpoint.method] = endpoint
        self.under_way: dict[Request, None] = {}
        self._when_idle: list[Deferred[None]] = []
        self._senders: dict[FileSender, None] = {}
        self._is_cut = False

    def render(self, request: Request) -> int:
        """Begin to answer `request`."""
        self.under_way[request] = None
        Deferred.fromCoroutine(self._serve(request)).addErrback(self._unsent).addCallback(self._answered, request)
        return NOT_DONE_YET

    async def _serve(self, request: Request) -> None:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        try:
            response: Any = await maybeDeferred(self._answer, request)
        except Exception as error:
            response = self._problem(error, request)
        # Who has gone has asked all the same: what was begun goes on, and nobody is told.
        if isinstance(response, FileResponse):
            await self._send_file(request, response, is_wanted=not gone and not self._is_cut)
        elif not gone:
            write(request, response)

    async def _send_file(self, request: Request, file: FileResponse, is_wanted: bool) -> None:
        if not is_wanted:
            file.reader.close()
            return
        sender = FileSender(request, file, self._clock, self._bandwidth)
        self._senders[sender] = None
        sender.start()
        await sender.done
        del self._senders[sender]

    def cut_files(self) -> None:
        """Send no more of files: they may take longer than anybody waits."""
        self._is_cut = True
        for sender in list(self._senders):
            sender.cut("this server is stopping")

    def _unsent(self, failure: Failure) -> None:
        _log.failure("an answer could not be sent", failure)

    def when_idle(self) -> Deferred[None]:
        """Fires when no request is under way."""
        if not self.under_way:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._when_idle.append(waiter)
        return waiter

    def _answered(self, _: None, request: Request) -> None:
        del self.under_way[request]
        if not self.under_way:
            waiters, self._when_idle = self._when_idle, []
            for waiter in waiters:
                waiter.callback(None)

    def _answer(self, request: Request) -> AnyResponse | Deferred[Any]:
        self._gate.check(request)
        found = self._paths.get(request.path)
        if found is None:
            raise NotFound("there is nothing at this path")
        # HEAD is GET without the body, which Twisted leaves out; nothing that changes anything is to be had by GET.
        method = "GET" if request.method == b"HEAD" else request.method.decode("latin-1")
        if method not in found:
            raise _not_allowed(found)
        return found[method].handle(request)

    def _problem(self, error: Exception, request: Request) -> Response:
        problem = problem_of(error)
        if problem.code == "internal_error":
            _log.failure("a request failed", Failure(error))
        by_method = self._paths.get(request.path)
        if by_method:
            return next(iter(by_method.values())).render_problem(problem)
        return (json_problem if request.path.startswith(b"/v1") else text_problem)(problem)


def _not_allowed(found: dict[str, Endpoint]) -> MethodNotAllowed:
    allowed = (*found, "HEAD") if "GET" in found else (*found,)
    does = "this is only to be looked at" if "GET" in found else "this changes something, and is asked for by POST only"
    return MethodNotAllowed(does, allowed)


class _Request(SiteRequest):
    """A request whose body is never kept beyond what any of ours needs."""

    _body_bytes = 0

    def handleContentChunk(self, data: bytes) -> None:
        """Keep one byte more than is allowed, so that it shows; cut the line if it never ends."""
        room = max(0, MAX_BODY_BYTES + 1 - self._body_bytes)
        self._body_bytes += len(data)
        if room:
            super().handleContentChunk(data[:room])
        if self._body_bytes > MAX_BODY_BYTES + MAX_DISCARDED_BYTES:
            self.channel.forceAbortClient()


class AdminSite(Site):
    """Serves the resource. Logs what changes something; of addresses only the path: the rest may be somebody's data."""

    displayTracebacks = False
    noisy = False

    def __init__(self, resource: AdminResource, reactor: object) -> None:
        super().__init__(
            resource, requestFactory=_Request, parsePOSTFormSubmission=False, timeout=IDLE_S, reactor=reactor
        )

    def log(self, request: Request) -> None:
        if request.method == b"POST":
            _log.info(
                "{peer} asked for {path}: {code}",
                peer=peer_name(request.getClientAddress()),
                path=request.path.decode("latin-1")[:80],
                code=request.code,
            )


def make_resource(operations: Operations, gate: Gate, clock: IReactorTime, bandwidth: int) -> AdminResource:
    """
    The whole admin HTTP of one server.

    @param bandwidth: of each file that is sent, see `txraft.pace.Pace`.
    """
    return AdminResource(all_endpoints(operations), gate, clock, bandwidth)
