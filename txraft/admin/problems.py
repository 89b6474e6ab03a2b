"""
What can go wrong with an operator's request, in one table: the HTTP API, the manhole and the command line read it.

Each kind of exception has a code for programs, an HTTP status, the word that the original's paths answer with, and a
sentence that says what to do now.
"""

from __future__ import annotations

import attrs

from txraft import errors
from txraft.errors import TxraftError


class BadRequest(TxraftError):
    """The request cannot be understood, whoever is asked; nothing was done. Says which part of it, and why."""


class Unauthorized(TxraftError):
    """The request has no token, or a wrong one."""


class Forbidden(TxraftError):
    """The request may come from a page of another origin, or of another host's name."""


class NotFound(TxraftError):
    """There is nothing at that path."""


class MethodNotAllowed(TxraftError):
    """What the path stands for is not done by this method. `allowed` are those that it has."""

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class TooLarge(TxraftError):
    """The request's body is longer than any request needs."""


class Unreachable(TxraftError):
    """Nobody can be asked at the address `server` of an admin port."""

    def __init__(self, server: str, why: str) -> None:
        super().__init__(f"nobody answers at {server}: {why}")
        self.server = server


class NoAnswer(TxraftError):
    """The server with the admin port `server` was asked, and has not answered."""

    def __init__(self, server: str, why: str) -> None:
        super().__init__(f"no answer from {server}: {why}")
        self.server = server


class BadAnswer(TxraftError):
    """What answers at `server` is no admin port of txraft, or breaks its protocol."""

    def __init__(self, server: str, why: str) -> None:
        super().__init__(f"no answer of a txraft server from {server}: {why}")
        self.server = server


class Interrupted(TxraftError):
    """A file from the server with the admin port `server` has not come whole: `received` bytes of `size` have."""

    def __init__(self, server: str, received: int, size: int, why: str) -> None:
        super().__init__(f"the file from {server} ends at byte {received} of {size}: {why}")
        self.server = server
        self.received = received
        self.size = size


class NotSaved(TxraftError):
    """What has come is not a whole and intact snapshot, or there is no place for it. Says why."""


@attrs.frozen
class Kind:
    """
    What is known of one kind of failure.

    `original` is the word of the original's `STATUS leader` answers; `advice` is a sentence for people; `facts` are
    attributes of the exception that programs get, too.
    """

    code: str
    http_status: int
    original: str
    advice: str
    facts: tuple[str, ...] = ()


_NOTHING_DONE = "Nothing was done."

NOBODY_LEADS = "Nothing was done; ask again soon, and if it stays so, `why` tells what this server waits for."
"""The advice where there is no leader that could be asked."""

KINDS: dict[type[BaseException], Kind] = {
    # 421, "misdirected": the request is in order, and another server is the one to ask.
    errors.NotLeader: Kind("not_leader", 421, "NOT_LEADER", "Nothing was done; ask the leader.", ("leader_id",)),
    errors.ChangeUnderWay: Kind("change_under_way", 409, "LIMIT", "Nothing was done; ask again soon."),
    errors.ChangeRefused: Kind("change_refused", 409, "INVALID_SERVER", _NOTHING_DONE),
    errors.ChangeFailed: Kind("change_failed", 409, "TIMEOUT", "Everything is as if nobody had asked."),
    errors.HandOverFailed: Kind(
        "hand_over_failed", 409, "TIMEOUT", "The members are as before; look at who leads, and ask again if need be."
    ),
    errors.OutcomeUnknown: Kind(
        "outcome_unknown", 504, "ERROR", "It may still happen: look at the members and at who leads.", ("index",)
    ),
    errors.SessionExpired: Kind("session_expired", 409, "ERROR", "Nothing was done; open another session."),
    errors.AnswerNotKept: Kind("answer_not_kept", 409, "ERROR", "It is not carried out again."),
    errors.Overloaded: Kind("overloaded", 503, "LIMIT", "Nothing was done; ask again later.", ("bound", "limit")),
    errors.CommandTooLarge: Kind("command_too_large", 413, "ERROR", _NOTHING_DONE, ("size", "bound", "limit")),
    errors.SnapshotRefused: Kind("snapshot_refused", 409, "ERROR", _NOTHING_DONE),
    errors.Stopped: Kind("stopped", 503, "ERROR", "Nothing was done; ask another server."),
    errors.FatalError: Kind("failed", 500, "ERROR", "The server stops; its log says more."),
    BadRequest: Kind("bad_request", 400, "INVALID_SERVER", _NOTHING_DONE),
    Unauthorized: Kind("unauthorized", 401, "ERROR", "Nothing was done; give the token of admin_token_file."),
    Forbidden: Kind("forbidden", 403, "ERROR", _NOTHING_DONE),
    NotFound: Kind("not_found", 404, "ERROR", _NOTHING_DONE),
    MethodNotAllowed: Kind("method_not_allowed", 405, "ERROR", _NOTHING_DONE, ("allowed",)),
    TooLarge: Kind("too_large", 413, "ERROR", _NOTHING_DONE),
    # Any other exception is a mistake of ours, and says nothing to strangers but its name.
    BaseException: Kind("internal_error", 500, "ERROR", "It is not known what was done; the server's log says more."),
}
"""The table. The nearest class that an exception is of counts."""

CLIENT_KINDS: dict[type[BaseException], Kind] = {
    Unreachable: Kind("unreachable", 502, "ERROR", "Nothing was done.", ("server",)),
    NoAnswer: Kind(
        "no_answer", 504, "ERROR", "If it was a change, it may still happen: look at the members.", ("server",)
    ),
    BadAnswer: Kind("bad_answer", 502, "ERROR", "Is that the address of an admin port?", ("server",)),
    Interrupted: Kind("interrupted", 502, "ERROR", "Nothing was saved; do it again.", ("server", "received", "size")),
    NotSaved: Kind("not_saved", 500, "ERROR", "Nothing was saved."),
}
"""What no server says, but a client finds. The status is what a gateway would answer."""

KINDS_BY_CODE: dict[str, Kind] = {kind.code: kind for kind in KINDS.values()}
"""What servers say."""


def as_sentence(text: str) -> str:
    """`text` with a capital letter, unless it begins with the name of something, and without a full stop."""
    # No server's or file's name that anything is said of is followed by a space.
    is_word = text.partition(" ")[0].isalpha()
    return (text[:1].upper() + text[1:] if is_word else text).rstrip(".")


@attrs.frozen
class Problem:
    """One failure: its kind, what it says, and the facts in it, which can be JSON."""

    kind: Kind
    message: str
    facts: dict[str, object]

    @property
    def code(self) -> str:
        return self.kind.code

    @property
    def sentence(self) -> str:
        """For people: what happened, and what to do."""
        return f"{as_sentence(self.message)}. {self.kind.advice}"

    def as_json(self) -> dict[str, object]:
        """What programs are told: `leader_id` and `leader_admin_address` are always there, None if not known."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "advice": self.kind.advice,
                "leader_id": None,
                "leader_admin_address": None,
                **self.facts,
            }
        }


def problem_of(error: BaseException) -> Problem:
    """What is to be said of `error`."""
    kinds = KINDS | CLIENT_KINDS
    kind = next(kinds[of] for of in type(error).__mro__ if of in kinds)
    is_ours = isinstance(error, TxraftError)
    message = str(error) if is_ours and str(error) else type(error).__name__
    facts: dict[str, object] = {name: getattr(error, name) for name in kind.facts}
    if isinstance(error, errors.NotLeader):
        facts["leader_admin_address"] = error.admin_address or None
        if error.leader_id is None:
            kind = attrs.evolve(kind, advice=NOBODY_LEADS)
    return Problem(kind, message, facts)
