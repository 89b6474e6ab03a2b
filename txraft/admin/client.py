"""AdminClient: asks a cluster by the admin HTTP of its servers, and finds the one that leads by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from txraft.admin.asking import SILENT, Answer, Answered, Asker, Saving
from txraft.admin.problems import BadRequest, Interrupted, NoAnswer, Unreachable, as_sentence
from txraft.errors import NotLeader, TxraftError
from txraft.net.addresses import format_address, parse_address

DEFAULT_PORT = 29998

ATTEMPTS = 20
"""So often one request is made, wherever, before its last failure counts."""

PAUSE_S = 0.25
"""Before a server is asked the same once more: an election takes about as long."""

POLL_S = 0.5
"""How often the progress of a change is asked for."""

_AGAIN = {"not_leader", "stopped", "change_under_way", "outcome_unknown"}
"""
After these answers the same is asked again. Nothing was done, or it is not known what: each change says what shall be,
so that asking for it twice does no harm.
"""


class AdminClient:
    """
    The servers of one cluster, as its operators ask them.

    Questions are answered by the first of `servers` that answers; what only a leader can do is asked of the leader,
    which the others know. All Deferreds fail with `Answered`, `Unreachable`, `NoAnswer` or `BadAnswer`.
    """

    def __init__(
        self,
        asker: Asker,
        servers: Sequence[str],
        timeout_s: float = 10.0,
        show_progress: Callable[[Answer], None] = lambda progress: None,
        note: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """
        @param servers: addresses of admin ports, host:port; not empty.
        @param timeout_s: so long a server may be silent. A change may take longer, as long as its leader answers other
            questions meanwhile.
        @param show_progress: is given what `/v1/progress` answers, again and again, while a change is under way.
        @param note: is given a sentence when another server is asked, or the same once more.
        """
        self.asked = servers[0]
        """The server that was asked last."""
        self._asker = asker
        self._servers = list(servers)
        self._members_seen: list[str] = []
        """The admin ports of the cluster's members, as far as a change took long enough to ask for them."""
        self._timeout_s = timeout_s
        self._show_progress = show_progress
        self._note = note

    # -- looking

    def status(self) -> Deferred[Answer]:
        """What the first server that answers is doing."""
        return Deferred.fromCoroutine(self._anywhere("/v1/status"))

    def why(self) -> Deferred[Answer]:
        """What the first server that answers waits for."""
        return Deferred.fromCoroutine(self._anywhere("/v1/why"))

    def members(self) -> Deferred[Answer]:
        """The members, as the leader knows them if it can be asked, else as the first server that answers does."""
        return Deferred.fromCoroutine(self._members())

    def plan(
        self,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        learners: Iterable[str] = (),
        replace: Mapping[str, str] | None = None,
        move: Mapping[str, str] | None = None,
    ) -> Deferred[Answer]:
        """What a change would lead to; see `Operations.plan`."""
        body = {"add": [*add], "remove": [*remove], "learners": [*learners], "replace": dict(replace or {})}
        body["move"] = dict(move or {})
        return Deferred.fromCoroutine(self._at_leader("/v1/members/plan", body))

    # -- changing

    def add(self, servers: Iterable[str], learner: bool = False) -> Deferred[Answer]:
        """Make servers voters, or learners; fires with the members once that is committed."""
        body = {"servers": [*servers], "learner": learner}
        return Deferred.fromCoroutine(self._at_leader("/v1/members/add", body))

    def remove(self, servers: Iterable[str]) -> Deferred[Answer]:
        """Make servers no members; fires with the members once that is committed."""
        return Deferred.fromCoroutine(self._at_leader("/v1/members/remove", {"servers": [*servers]}))

    def replace(self, servers: Mapping[str, str]) -> Deferred[Answer]:
        """Put new servers in the place of old ones, in one change: new by old server id."""
        return Deferred.fromCoroutine(self._at_leader("/v1/members/replace", {"servers": dict(servers)}))

    def move(self, servers: Mapping[str, str]) -> Deferred[Answer]:
        """Say where members are now: addresses by server id."""
        return Deferred.fromCoroutine(self._at_leader("/v1/members/move", {"servers": dict(servers)}))

    def transfer(self, server_id: str) -> Deferred[Answer]:
        """Let another voter lead; fires once it does."""
        return Deferred.fromCoroutine(self._at_leader("/v1/transfer", {"server": server_id}))

    # -- saving

    def snapshot(self, server: str | None = None) -> Deferred[Answer]:
        """
        Let a member take a snapshot of its state; fires once that is on its disk.

        @param server: its id, or its host alone if its port is that of the leader; None: the leader.
        """
        return Deferred.fromCoroutine(self._snapshot(server))

    def backup(self, saving: Saving, server: str | None = None) -> Deferred[None]:
        """
        Let a member take a snapshot that holds everything that was acknowledged before the call, and save it.

        Fails with `Interrupted` too, and with what `saving` raises.

        @param server: see `snapshot`.
        """
        return Deferred.fromCoroutine(self._backup(saving, server))

    async def _backup(self, saving: Saving, server: str | None) -> None:
        if server is None:
            await self._at_leader("/v1/backup", {}, saving)
            return
        first = self.asked
        index = (await self._at_leader("/v1/read_index", {}))["index"]
        leader, self.asked = self.asked, await self._admin_port_of(server)
        if leader not in (first, self.asked):
            # What was noted last is that the leader is asked.
            self._note(f"{self.asked} makes the backup, with everything up to entry {index:,}.")
        await self._held_open(self.asked, "/v1/backup", {"at_least": index}, saving)

    async def _snapshot(self, server: str | None) -> Answer:
        self.asked = await self._admin_port_of(server)
        return await self._held_open(self.asked, "/v1/snapshot", {})

    # -- whom to ask

    async def _admin_port_of(self, server: str | None) -> str:
        """
        Where that member is asked; the leader, which may be being elected, if it is None.

        @raise NotLeader: nobody leads for too long.
        @raise BadRequest: it is no member, or nobody knows where to ask it.
        """
        for attempt in range(ATTEMPTS):
            if attempt:
                await deferLater(self._asker.clock, PAUSE_S)
            members = (await self._members())["members"]
            leader = next((member for member in members if member["is_leader"]), None)
            wanted = leader if server is None else _member(members, server, leader)
            if wanted is not None:
                return self.asked if wanted["link"] == "this server" else _admin_port(wanted)
        raise NotLeader(None)

    async def _anywhere(self, path: str) -> Answer:
        failures: list[TxraftError] = []
        for server in self._known:
            self.asked = server
            try:
                return await self._asker.ask(server, "GET", path, timeout_s=self._timeout_s)
            except (Unreachable, NoAnswer) as error:
                failures.append(error)
        raise failures[0]

    async def _members(self) -> Answer:
        answer = await self._anywhere("/v1/members")
        leaders = [member["admin_address"] for member in answer["members"] if member["is_leader"]]
        address = read_address(leaders[0]) if leaders else None
        if address is None or address == self.asked:
            return answer
        try:
            of_leader = await self._asker.ask(address, "GET", "/v1/members", timeout_s=self._timeout_s)
        except TxraftError as error:
            self._note(f"{address}, the leader, cannot be asked ({error}): this is what {self.asked} knows.")
            return answer
        self.asked = address
        return of_leader

    async def _at_leader(self, path: str, body: Answer, saving: Saving | None = None) -> Answer:
        """Ask for a change until it is known what became of it; or for a file, until it begins to come."""
        been: set[str] = set()
        silent: set[str] = set()  # those who did not answer, since the last answer of anybody
        unknown: TxraftError | None = None
        failure: TxraftError | None = None
        server = self.asked
        for _ in range(ATTEMPTS):
            if server in been:
                await deferLater(self._asker.clock, PAUSE_S)
            been.add(server)
            self.asked = server
            try:
                return await self._held_open(server, path, body, saving)
            except Answered as error:
                if error.code not in _AGAIN:
                    raise
                failure = error
                unknown = error if error.code == "outcome_unknown" else unknown
            except Unreachable as error:
                failure = error
            except NoAnswer as error:
                failure = unknown = error
            silent = silent | {server} if isinstance(failure, Unreachable | NoAnswer) else set()
            if silent >= {*self._known}:
                break
            server = self._next(server, failure)
        assert failure is not None
        # Not the last failure, if that one says that nothing was done: an attempt before it may have done it.
        raise unknown or failure

    @property
    def _known(self) -> list[str]:
        """All who can be asked: those that were named, then those that they have named."""
        return [*self._servers, *(server for server in self._members_seen if server not in self._servers)]

    def _next(self, server: str, failure: TxraftError) -> str:
        """Whom to ask after `server` has failed."""
        hint: Any = None
        if isinstance(failure, Answered):
            if failure.code in ("change_under_way", "outcome_unknown"):
                return server
            hint = read_address(failure.problem.facts.get("leader_admin_address"))
        known = self._known
        other = hint or known[(known.index(server) + 1) % len(known) if server in known else 0]
        if other != server:
            # What is no answer says itself who gave none.
            said = f"{server}: {failure}" if isinstance(failure, Answered) else as_sentence(str(failure))
            self._note(f"{said}. Asking {other}.")
        return other

    async def _held_open(self, server: str, path: str, body: Answer, saving: Saving | None = None) -> Answer:
        """One request that is answered when it is decided. It is given up when the server is silent for too long."""
        answer = self._asker.ask(server, "POST", path, body, saving=saving)
        # A file shows by itself how much of it has come.
        show = self._show_progress if saving is None else lambda progress: None
        watching = Deferred.fromCoroutine(self._watch(server, show))
        is_silent = False

        def give_up(_: object) -> None:
            nonlocal is_silent
            is_silent = True
            answer.cancel()

        watching.addCallbacks(give_up, lambda failure: failure.trap(CancelledError) and None)
        try:
            return await answer
        except CancelledError:
            if is_silent and saving is not None and saving.size is not None:
                raise Interrupted(server, saving.received, saving.size, SILENT) from None
            if is_silent:
                raise NoAnswer(server, SILENT) from None
            raise
        finally:
            watching.cancel()

    async def _watch(self, server: str, show: Callable[[Answer], None]) -> None:
        """Show the progress of what `server` does; returns when it cannot be asked any more."""
        while True:
            await deferLater(self._asker.clock, POLL_S)
            try:
                if not self._members_seen:
                    # While it answers: should it die of a sudden, the others know what has become of the change.
                    members = (await self._asker.ask(server, "GET", "/v1/members", timeout_s=self._timeout_s))[
                        "members"
                    ]
                    told = [read_address(member["admin_address"]) for member in members]
                    self._members_seen = [address for address in told if address is not None]
                show(await self._asker.ask(server, "GET", "/v1/progress", timeout_s=self._timeout_s))
            except Answered:
                continue
            except TxraftError:
                return


def _member(members: Sequence[Answer], server: str, leader: Answer | None) -> Answer:
    """The member with that id, or with that host and the leader's port."""
    by_id = {member["server_id"]: member for member in members}
    if by_id and server not in by_id:
        port = parse_address((leader or members[0])["server_id"], None)[1]
        server = format_address(*parse_address(server, port))
    if server not in by_id:
        raise BadRequest(f"{server} is no member of this cluster")
    return by_id[server]


def _admin_port(member: Answer) -> str:
    address = read_address(member["admin_address"])
    if address is None:
        raise BadRequest(f"it is not known where the admin port of {member['server_id']} is: ask it with --server")
    return address


def read_address(text: object) -> str | None:
    """The address of an admin port that a server has told, in canonical form; None if it is none."""
    if not isinstance(text, str):
        return None
    try:
        return format_address(*parse_address(text, DEFAULT_PORT))
    except ValueError:
        return None
