"""What the core refuses, and what it cannot survive."""


class InvariantBroken(AssertionError):
    """This server, or the cluster, is in a state that Raft excludes. Survives `python -O`. Never survivable."""


class CommittedConflict(InvariantBroken):
    """A leader's log differs from ours at or below our commit index."""


class InvalidMessage(Exception):
    """A peer sent what no correct server sends. Nothing was changed by it."""


class NotLeading(Exception):
    """Only a leader takes proposals and reads."""


class UncommittedFull(Exception):
    """As much as `max_uncommitted_bytes` allows is waiting to be committed."""
