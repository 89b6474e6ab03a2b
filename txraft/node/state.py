"""What the log leads to, and what a snapshot of a server therefore holds."""

from __future__ import annotations

import attrs

from txraft.interfaces import IStateMachine
from txraft.sessions import SessionTable


@attrs.frozen
class State:
    """The user's state machine, and beside it the sessions of its clients; both at the same index."""

    machine: IStateMachine
    sessions: SessionTable = attrs.field(factory=SessionTable)
