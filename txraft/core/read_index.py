"""Linearizable reads without log entries: the leader asks a quorum whether it still leads. Thesis §6.4."""

from __future__ import annotations


class ReadQueue:
    """
    A leader's reads. All that wait when a round begins share it, and one round is under way at a time.

    Rounds count up within one leadership, so that an old answer never confirms a newer read.
    """

    __slots__ = ("_under_way", "_waiting", "read_index", "round")

    def __init__(self) -> None:
        self.round = 0
        """The newest round; every AppendEntries carries it. 0: none yet."""
        self.read_index = 0
        """What was committed when `round` began."""
        self._waiting: list[int] = []
        self._under_way: list[int] = []

    @property
    def is_under_way(self) -> bool:
        """True while a round waits for its quorum."""
        return bool(self._under_way)

    def request(self, read_id: int) -> None:
        self._waiting.append(read_id)

    def begin_round(self, commit_index: int) -> bool:
        """Begin a round for all waiting reads; False if there are none, or a round is under way."""
        if self._under_way or not self._waiting:
            return False
        self._under_way, self._waiting = self._waiting, []
        self.round += 1
        self.read_index = commit_index
        return True

    def confirmed(self, round_: int) -> list[tuple[int, int]]:
        """A quorum has echoed `round_`: the (read id, index) pairs that may now be answered, each once."""
        if round_ < self.round or not self._under_way:
            return []
        reads, self._under_way = self._under_way, []
        return [(read_id, self.read_index) for read_id in reads]

    def drop(self) -> list[int]:
        """The leadership is over: the ids of all reads that were not confirmed."""
        dropped = self._under_way + self._waiting
        self._under_way, self._waiting = [], []
        return dropped
