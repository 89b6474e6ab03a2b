"""What a role is: its state, its ticks, and a handler for every message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from txraft.core.messages import Message, PreVote, Refusal, RequestVote

if TYPE_CHECKING:
    from txraft.core.raft import Raft


class Role:
    """One role's state; replaced as a whole on each transition. `HANDLERS` has an entry for every message."""

    name: ClassVar[str]
    HANDLERS: ClassVar[dict[type, Callable[[Any, str, Any], None]]]
    leader_id: str | None = None

    def __init__(self, raft: Raft) -> None:
        self.raft = raft
        self.refusals: dict[str, Refusal] = {}
        """Why those who refused a vote did: for people, and to find out who leads."""

    def tick(self) -> None:
        raise NotImplementedError

    def prepare(self) -> None:
        """Before each `Ready`: turn what has accumulated into messages."""

    def durable_advanced(self) -> None:
        """More of the own log is on disk."""

    def ignore(self, sender: str, message: Message) -> None:
        """A late answer to a role that this server no longer has."""

    def on_pre_vote(self, sender: str, message: PreVote) -> None:
        self.raft.answer_pre_vote(sender, message)

    def on_request_vote(self, sender: str, message: RequestVote) -> None:
        self.raft.answer_request_vote(sender, message)
