"""The admin HTTP of simulated servers, spoken to in bytes: no sockets, and time passes only if a test lets it."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.testing import StringTransport

from txraft.admin.http_answers import FILE_TYPE
from txraft.admin.http_api import ROUTES, SCHEMAS
from txraft.admin.http_gate import Gate
from txraft.admin.http_openapi import document
from txraft.admin.http_site import AdminSite, make_resource
from txraft.admin.operations import Operations
from txraft.admin.schema import problem_with
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster


@attrs.frozen
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@attrs.define
class Exchange:
    """One request on a connection of its own."""

    transport: StringTransport
    channel: Any

    @property
    def is_answered(self) -> bool:
        """All of it is there; of a file, which is sent in pieces, perhaps until the connection is cut."""
        head, end, body = self.transport.value().partition(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        is_file = FILE_TYPE.encode() in head and found is not None and not self.transport.disconnecting
        return bool(end) and (not is_file or len(body) == int(found[1]))

    @property
    def answer(self) -> Answer:
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert int(headers.get("Content-Length", 0)) == len(body) or not body, "a body of another length than said"
        return Answer(int(first.split()[1]), headers, body)


class Admin:
    """The admin HTTP of one node. Every JSON answer is checked against the OpenAPI document."""

    def __init__(
        self,
        cluster: Cluster,
        node: RaftNode,
        token: bytes | None = None,
        names: tuple[str, ...] = ("node.example",),
        bandwidth: int = 0,
    ) -> None:
        self.cluster = cluster
        self.operations = Operations(
            node,
            lambda server_id, address: succeed("reachable"),
            read_server_id=read_name,
            seconds=cluster.clock.seconds,
        )
        self.resource = make_resource(self.operations, Gate(frozenset(names), token), cluster.clock, bandwidth)
        self.site = AdminSite(self.resource, cluster.clock)
        self.site.startFactory()

    def send(self, data: bytes) -> Exchange:
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        transport = StringTransport()
        transport.abortConnection = transport.loseConnection  # type: ignore[attr-defined]
        exchange = Exchange(transport, channel)
        channel.makeConnection(transport)
        channel.dataReceived(data)
        return exchange

    def begin(self, method: str, target: str, body: bytes = b"", **headers: str) -> Exchange:
        """Send a request; `content_type="x"` makes the header Content-Type, an empty one takes it away."""
        lines = {"Host": "127.0.0.1:29998"} | {name.replace("_", "-").title(): value for name, value in headers.items()}
        head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items() if value)]
        if body or method == "POST":
            head.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request, let time pass until it is answered, and check the answer."""
        exchange = self.begin(method, target, body, **headers)
        assert self.cluster.run_until(lambda: exchange.is_answered), f"no answer to {method} {target}"
        answer = exchange.answer
        check(method, target.partition("?")[0], answer)
        return answer

    def post(self, path: str, value: object, **headers: str) -> Answer:
        return self.ask("POST", path, json.dumps(value).encode(), content_type="application/json", **headers)


def read_name(text: str) -> str:
    if not text.isalnum():
        raise ValueError(f"{text!r} is no name")
    return text


def check(method: str, path: str, answer: Answer) -> None:
    """See that the OpenAPI document has this answer."""
    if not path.startswith("/v1") or method == "HEAD":
        return
    operation = document()["paths"].get(path, {}).get(method.lower())
    if operation is None:
        assert answer.code in (401, 403, 404, 405), answer
        assert problem_with(answer.json, SCHEMAS["Error"], SCHEMAS) == "", answer
        return
    content = operation["responses"][str(answer.code)]["content"]
    described = content[answer.headers["Content-Type"]]
    if answer.headers["Content-Type"] == FILE_TYPE:
        assert described == {}
        return
    problem = problem_with(answer.json, described["schema"], SCHEMAS)
    assert problem == "", (path, problem, answer)


def started(size: int = 3, passive: int = 0, seed: int = 1, **options: Any) -> tuple[Cluster, Admin]:
    """A cluster with a leader, and the leader's admin HTTP."""
    cluster = Cluster(seed=seed, size=size, passive=passive)
    cluster.start()
    for node in cluster.running():
        node.advertise(admin_address=f"{node.settings.server_id}.example:29998")
    return cluster, Admin(cluster, cluster.elect(), **options)


def follower_of(cluster: Cluster, leader: Admin, **options: Any) -> Admin:
    return Admin(cluster, next(node for node in cluster.running() if node is not leader.operations.node), **options)


CHANGES = [route.path for route in ROUTES if route.method == "POST"]
ORIGINAL_CHANGES = ["/append_log_entry", "/add_server", "/remove_server", "/leader_transfer"]
