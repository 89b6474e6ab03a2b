"""Admin ports that answer what a test tells them to, on a simulated clock; nothing is sent anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txraft.admin.problems import problem_of

Reply = tuple[int, Any] | None
"""HTTP status and JSON; None: the request is held open."""
Handler = Callable[[str, Any], Reply]
"""Is given the path and the body of a request, and replies."""


def refusal(error: Exception) -> Reply:
    """What a server answers instead of doing what was asked."""
    problem = problem_of(error)
    return problem.kind.http_status, problem.as_json()


class StubServers(Resource):
    """
    The admin ports of some servers. `seen` has a line for each request.

    What has no entry in `handlers` cannot be reached.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.handlers: dict[str, Handler] = {}
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._stub = StubTreq(self)

    def request(self, method: str, url: str, **options: Any) -> Deferred[Any]:
        """As `treq.request`."""
        server, path = url.removeprefix("http://").split("/", 1)
        if server not in self.handlers:
            self.seen.append(f"{server} {method} /{path}: refused")
            return fail(ConnectionRefusedError(111))
        self.headers.append(options["headers"])
        answer: Deferred[Any] = self._stub.request(method, url, **options)
        self._stub.flush()
        return answer

    def render(self, request: Request) -> Any:
        server, path = str(request.getHeader("host")), request.path.decode()
        method = request.method.decode()
        self.seen.append(f"{server} {method} {path}")
        body = json.loads(request.content.read() or b"null")
        reply = self.handlers[server](path, body)
        if reply is None:
            return NOT_DONE_YET
        status, answer = reply
        request.setResponseCode(status)
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass, in small steps."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self._stub.flush()
