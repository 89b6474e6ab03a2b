"""What can be asked for at the prompt: a table of verbs over `Operations`, each with its help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred

from txraft.admin import tables
from txraft.admin.manhole.grammar import Call
from txraft.admin.operations import Answer, Operations
from txraft.admin.problems import BadRequest

Lines = list[str]

_SERVERS = "A server is host:port, or a host alone if its port is the one of this server. Only the leader does it."
_WAIT = "The prompt comes back at once; the result is shown when there is one, even if other things are typed."


@attrs.frozen
class Verb:
    """
    One verb. `run` takes the arguments that its signature says, strings and whole numbers, and gives lines or a
    Deferred of lines.
    """

    name: str
    usage: str
    summary: str
    details: str
    run: Callable[..., Lines | Deferred[Lines]]

    def bind(self, call: Call) -> inspect.BoundArguments:
        """@raise BadRequest: the verb takes other arguments than those of `call`. Does not repeat them."""
        signature = inspect.signature(self.run, eval_str=True)
        try:
            bound = signature.bind(*call.positional, **call.named)
        except TypeError:
            raise self._other_arguments() from None
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            values = value if parameter.kind is inspect.Parameter.VAR_POSITIONAL else (value,)
            # By its very class: True is an int, too.
            if any(type(each) is not parameter.annotation for each in values):
                raise self._other_arguments()
        return bound

    def _other_arguments(self) -> BadRequest:
        return BadRequest(f"expected {self.usage}")


class Verbs:
    """The verbs of one server; the same for all its users."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self._verbs = {verb.name: verb for verb in (*self._looking(), *self._changing())}

    def _looking(self) -> tuple[Verb, ...]:
        return (
            Verb("help", 'help("verb")', "what can be typed here; of a verb: more about it", "", self._help),
            Verb("status", "status()", "what this server is doing", "", self._status),
            Verb("members", "members()", "the servers of the cluster, as this one knows them", "", self._members),
            Verb("why", "why()", "what this server is waiting for", "", self._why),
            Verb(
                "log",
                "log(first, count)",
                "entries of the log, without what is in them",
                "From index `first` on, 20 without a `count`; the last ones without a `first`, or if it is 0.",
                self._log,
            ),
        )

    def _changing(self) -> tuple[Verb, ...]:
        return (
            Verb(
                "add_server",
                'add_server("host:port", ...)',
                "make servers voters; each catches up first",
                f"{_SERVERS} {_WAIT}",
                self._add,
            ),
            Verb(
                "add_learner",
                'add_learner("host:port", ...)',
                "make servers learners: they get the log and have no vote",
                f"{_SERVERS} {_WAIT}",
                self._add_learner,
            ),
            Verb("remove_server", 'remove_server("host:port", ...)', "make servers no members", _SERVERS, self._remove),
            Verb(
                "replace_server",
                'replace_server("old:port", "new:port")',
                "put one server in another's place, in one change",
                f"The old one may be dead. {_SERVERS} {_WAIT}",
                self._replace,
            ),
            Verb(
                "move_server",
                'move_server("host:port", "new:port")',
                "say where the others reach a server from now on",
                f"It keeps its name, and is what it was. {_SERVERS}",
                self._move,
            ),
            Verb(
                "snapshot",
                "snapshot()",
                "take a snapshot of this server's state now",
                f"Servers do so by themselves when the log is long; see snapshot_log_bytes in raft.conf. {_WAIT}",
                self._snapshot,
            ),
            Verb("transfer", 'transfer("host:port")', "let another voter lead", f"{_SERVERS} {_WAIT}", self._transfer),
        )

    def names(self) -> list[str]:
        """All verbs, in the order of the help."""
        return list(self._verbs)

    def prepare(self, call: Call) -> Callable[[], Deferred[Lines]]:
        """
        What carries out `call`. It has only known words in it then, numbers, and strings.

        @raise BadRequest: there is no such verb, or it takes other arguments. Repeats nothing of what was typed.
        """
        verb = self._find(call.verb)
        bound = verb.bind(call)
        run: Callable[..., Any] = verb.run
        return lambda: maybeDeferred(run, *bound.args, **bound.kwargs)

    def summary(self, name: str) -> str:
        """How the verb of that name, which there is, is typed, and what it does."""
        found = self._find(name)
        return f"{found.usage}: {found.summary}."

    def _find(self, name: str) -> Verb:
        if name not in self._verbs:
            raise BadRequest(f"there is no such verb; there are {', '.join(self._verbs)}")
        return self._verbs[name]

    # -- the verbs

    def _help(self, verb: str = "") -> Lines:
        if not verb:
            width = max(len(each.usage) for each in self._verbs.values())
            verbs = [f"{each.usage:{width}}  {each.summary}" for each in self._verbs.values()]
            return [
                *verbs,
                f"{'quit':{width}}  close this connection",
                "Parentheses, commas and quotes may be left out, but not in Python.",
            ]
        found = self._find(verb)
        return [self.summary(verb), *([found.details] if found.details else [])]

    def _status(self) -> Lines:
        return tables.status(self.operations.status())

    def _members(self) -> Lines:
        return tables.members(self.operations.members())

    def _why(self) -> Lines:
        return tables.why(self.operations.why())

    def _log(self, first: int = 0, count: int = 20) -> Lines:
        return tables.log(self.operations.log(first or None, count))

    def _add(self, *servers: str) -> Deferred[Lines]:
        return self.operations.change(add=servers).addCallback(_after)

    def _add_learner(self, *servers: str) -> Deferred[Lines]:
        return self.operations.change(learners=servers).addCallback(_after)

    def _remove(self, *servers: str) -> Deferred[Lines]:
        return self.operations.change(remove=servers).addCallback(_after)

    def _replace(self, old: str, new: str) -> Deferred[Lines]:
        return self.operations.change(replace={old: new}).addCallback(_after)

    def _snapshot(self) -> Deferred[Lines]:
        return self.operations.snapshot().addCallback(tables.snapshot)

    def _move(self, server: str, address: str) -> Deferred[Lines]:
        return self.operations.move({server: address}).addCallback(_after)

    def _transfer(self, server: str) -> Deferred[Lines]:
        return self.operations.transfer(server).addCallback(_after)


def _after(answer: Answer) -> Lines:
    return tables.members(answer["members"])
