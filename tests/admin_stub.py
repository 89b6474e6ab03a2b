"""Admin ports that answer what a test tells them to, on a simulated clock; nothing is sent anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from http_support import Admin
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txraft.admin.problems import problem_of
from txraft.testing.cluster import Cluster

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
        self.redirect_to = ""
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
        if self.redirect_to:
            request.setHeader("Location", self.redirect_to)
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass, in small steps."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self._stub.flush()


class SimulatedServers:
    """
    The real admin HTTP of the servers of a simulated cluster, at their names and port 29998.

    `lose_answer_of`, a path, is not answered the next time that it is asked for, although what it asks for is done.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.clock = cluster.clock
        self.lose_answer_of = ""
        self._stubs: dict[str, StubTreq] = {}
        for node in cluster.running():
            address = f"{node.settings.server_id}:29998"
            node.advertise(admin_address=address)
            self._stubs[address] = StubTreq(Admin(cluster, node, names=(node.settings.server_id,)).resource)

    def request(self, method: str, url: str, **options: Any) -> Deferred[Any]:
        """As `treq.request`."""
        server, path = url.removeprefix("http://").split("/", 1)
        if self.cluster.servers[server.partition(":")[0]].node is None:
            return fail(ConnectionRefusedError(111))
        answer: Deferred[Any] = self._stubs[server].request(method, url, **options)
        if f"/{path}" == self.lose_answer_of:
            self.lose_answer_of = ""
            return answer.addCallback(lambda _: fail(ResponseNeverReceived([Failure(ConnectionLost())])))
        return answer

    def result(self, deferred: Deferred[Any], seconds: float = 30.0) -> Any:
        """The result, or the failure, after at most so much time."""
        found: list[Any] = []
        deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))

        def is_there() -> bool:
            for stub in self._stubs.values():
                stub.flush()
            return bool(found)

        assert self.cluster.run_until(is_there, seconds), "it is not decided"
        return found[0]
