"""
Every exception of txraft. Three kinds, by whose fault it is and what the one who sees it can do.

- `ProtocolError`: the other side of a connection broke the protocol; that connection is closed.
- `Refusal`: the request was not carried out, or nobody knows; the caller can act on the facts in it.
- `FatalError`: our own disk or invariant failed; the server stops before it answers anything.
`ConfigError` is the user's, before anything has started.
"""

from __future__ import annotations


class TxraftError(Exception):
    """All errors of txraft."""


class ConfigError(TxraftError):
    """A configuration that cannot be used. `where` is `file:line`, or empty when there is none."""

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.problem = problem
        self.where = where


class ProtocolError(TxraftError):
    """The other side sent what it must not send; its connection is closed with this as the reason."""


class Refusal(TxraftError):
    """A request that was not carried out, or whose outcome is unknown. Each subclass says whether to retry."""


class NotLeader(Refusal):
    """
    This server is not the leader; nothing was done, so the request may be repeated elsewhere.

    `leader_id` is None when no leader is known; the addresses are empty when they are not known or not served.
    """

    def __init__(self, leader_id: str | None, client_address: str = "", admin_address: str = "") -> None:
        super().__init__(f"not the leader; it is {leader_id}" if leader_id else "not the leader, and none is known")
        self.leader_id = leader_id
        self.client_address = client_address
        self.admin_address = admin_address


class OutcomeUnknown(Refusal):
    """
    The command is in the log at `index`, but this server can no longer say whether it will be committed.

    Repeat it only if doing it twice does no harm, or in the session in which it was proposed.
    """

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"outcome of entry {index} unknown: {why}")
        self.index = index


class SessionExpired(Refusal):
    """
    No such session is known: it was never opened, or has had to make room for others since. Nothing was done.

    What is unknown of earlier commands in it stays unknown. Open another.
    """

    def __init__(self, session_id: str) -> None:
        super().__init__(f"no session {session_id} is known; it has expired, or never was")
        self.session_id = session_id


class AnswerNotKept(Refusal):
    """
    The answer to a command in a session cannot be had: not now, and never. Says why, and whether the command was
    carried out; it was, or it was not and never will be, if its client has said before that it wants no answer.
    """


class Overloaded(Refusal):
    """A bound was reached; nothing was done. Repeat later. `bound` names the configuration key."""

    def __init__(self, bound: str, limit: int) -> None:
        super().__init__(f"overloaded: {bound} = {limit} reached")
        self.bound = bound
        self.limit = limit


class CommandTooLarge(Refusal):
    """A command or request above its limit; nothing was done, and repeating it does not help."""

    def __init__(self, size: int, bound: str, limit: int) -> None:
        super().__init__(f"{size} bytes, but {bound} = {limit}")
        self.size = size
        self.bound = bound
        self.limit = limit


class ChangeRefused(Refusal):
    """The membership or the leadership cannot be changed like this, or not now; nothing was done. Says why."""


class ChangeUnderWay(ChangeRefused):
    """Another change or hand-over is under way, or the leader has only just begun; ask again soon. Says which."""


class ChangeFailed(Refusal):
    """A change was given up, and has left no trace: the members and the leader are as if nobody had asked. Says why."""


class HandOverFailed(Refusal):
    """The server that was to lead does not, as far as is known. Says who does, or why not. Members are as before."""


class Stopped(Refusal):
    """This server has not started, is stopping, or has stopped; nothing was done."""


NOTHING_DONE = (NotLeader, Overloaded, CommandTooLarge, Stopped, SessionExpired)
"""What a proposal fails with if this attempt did nothing; whatever else it fails with, it may have done something."""


class TransferFailed(TxraftError):
    """A snapshot did not reach another server. Says why; it may be sent again."""


class SnapshotRefused(Refusal):
    """No snapshot was taken. Says why."""


class ChildFailed(TxraftError):
    """
    A forked child did not do its job, or not all of it. Says why.

    `raised` is the name of the exception's type, if the job raised one; else the child died, and it is empty.
    """

    def __init__(self, why: str, raised: str = "") -> None:
        super().__init__(why)
        self.raised = raised


class FatalError(TxraftError):
    """This server cannot keep its promises: it stops, and acknowledges nothing more."""


class StorageError(FatalError):
    """A read, write or sync of our own disk failed, or what is on it cannot be used. Says which file."""


class DamagedLog(StorageError):
    """The log is damaged before its tail. Says file, offset and what can be done."""

    def __init__(self, path: str, offset: int, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: damaged at offset {offset}: {problem}. {remedy}")
        self.path = path
        self.offset = offset


class DamagedSnapshot(StorageError):
    """A file is not a whole and intact snapshot. Says which file, and what is wrong with it."""


class MachineError(FatalError):
    """The state machine raised, or broke its contract, at the entries named in the message."""
