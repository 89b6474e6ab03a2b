"""`manhole_mode=python`: a Python prompt inside of the server, with the verbs in its namespace."""

from __future__ import annotations

import ast
from typing import Any

from twisted.conch.manhole import Manhole, ManholeInterpreter
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txraft.admin.manhole.conversation import Conversation, Outcome, User
from txraft.admin.manhole.grammar import Call
from txraft.admin.manhole.terminal import QUIT, BoundedTerminal
from txraft.admin.manhole.verbs import Verbs
from txraft.admin.problems import problem_of
from txraft.errors import TxraftError

MAX_SOURCE_BYTES = 64 * 1024


class Text(str):
    """What a verb answers: the prompt shows it as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class VerbFailed(TxraftError):
    """A verb whose Deferred has failed; says what happened, and what to do."""


class Interpreter(ManholeInterpreter):
    """Shows failures as sentences, and writes to the log what is run, without what is in its strings."""

    def __init__(self, terminal: PythonTerminal, namespace: dict[str, Any]) -> None:
        super().__init__(terminal, namespace)
        self._terminal = terminal

    def push(self, line: bytes) -> bool:
        if sum(map(len, self.buffer)) + len(line) > MAX_SOURCE_BYTES:
            self.resetBuffer()
            self.write(f"More than {MAX_SOURCE_BYTES} bytes: forgotten.\n")
            return False
        return bool(super().push(line))

    def runcode(self, *code: Any) -> None:
        source = b"\n".join(self.buffer).decode("utf-8", "replace")
        self._terminal.conversation.note(without_strings(source))
        try:
            super().runcode(*code)
        except SystemExit:
            # Of this prompt, not of the server.
            self._terminal.quit()

    def displayhook(self, obj: object) -> None:
        # conch takes a Deferred that waits for another one for one that has its result.
        if isinstance(obj, Deferred) and isinstance(getattr(obj, "result", None), Deferred):
            obj = _next_to(obj)
        super().displayhook(obj)

    def _ebDisplayDeferred(self, failure: Failure, k: int, obj: object) -> None:
        # Ends here: somebody has seen it, and it need not go to the log as one that nobody has.
        error = failure.value
        assert error is not None
        sentence = str(error) if isinstance(error, VerbFailed) else problem_of(error).sentence
        if not isinstance(error, TxraftError):
            sentence = f"{type(error).__name__}: {error}"
        self.write(f"Deferred #{k} failed: {sentence}", True)
        del self._pendingDeferreds[id(obj)]


def _next_to(waiting: Deferred[Any]) -> Deferred[Any]:
    """A Deferred with the same result, which ends there if it is a failure."""
    other: Deferred[Any] = Deferred()

    def pass_on(result: Any) -> Any:
        other.callback(result)
        return result

    waiting.addCallbacks(pass_on, other.errback)
    return other


class PythonTerminal(BoundedTerminal, Manhole):
    """The prompt of an operator who may do everything."""

    ps = (b">>> ", b"... ")
    max_line_characters = 4096

    def __init__(self, user: User, verbs: Verbs, clock: IReactorTime) -> None:
        super().__init__(user, verbs, clock)
        self.namespace: dict[str, Any] = namespace(self.conversation)

    def connectionMade(self) -> None:
        super().connectionMade()
        self.interpreter = Interpreter(self, self.namespace)

    def lineReceived(self, line: bytes) -> None:
        if line.decode().strip() in QUIT and not self.interpreter.buffer:
            self.quit()
        else:
            super().lineReceived(line)


def namespace(conversation: Conversation) -> dict[str, Any]:
    """What is there at the prompt: the verbs, and `node` and `operations` for everything else."""
    operations = conversation.verbs.operations
    verbs = {name: PythonVerb(conversation, name) for name in conversation.verbs.names()}
    return verbs | {"node": operations.node, "operations": operations}


class PythonVerb:
    """A verb as a function. Without parentheses it says how it is typed: the greeting says `help`."""

    def __init__(self, conversation: Conversation, name: str) -> None:
        self._conversation = conversation
        self._name = name

    def __call__(self, *positional: Any, **named: Any) -> Text | Deferred[Text]:
        asked = self._conversation.perform(Call(self._name, positional, named))
        return _text(asked) if isinstance(asked, Outcome) else asked.addCallback(_later)

    def __repr__(self) -> str:
        return self._conversation.verbs.summary(self._name)


def _text(outcome: Outcome) -> Text:
    return Text("\n".join(outcome.lines))


def _later(outcome: Outcome) -> Text:
    if not outcome.is_ok:
        raise VerbFailed(_text(outcome))
    return Text("\n" + _text(outcome))


def without_strings(source: str) -> str:
    """`source` as one line, with an ellipsis for each string: these may be commands, which are nobody's business."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "Python that cannot be parsed"
    return "; ".join(ast.unparse(_WithoutStrings().visit(tree)).splitlines())


class _WithoutStrings(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        is_hidden = isinstance(node.value, str | bytes)
        return ast.copy_location(ast.Constant(...), node) if is_hidden else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        return ast.copy_location(ast.Constant(...), node)
