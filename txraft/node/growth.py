"""How large the log behind the newest snapshot has become, and how large it may become."""

from __future__ import annotations

from twisted.logger import Logger

from txraft.core.leader import Leader
from txraft.core.log import Log
from txraft.core.raft import Raft

_FOLLOWERS_SHARE = 2
"""So many times as much as makes a leader refuse commands makes a follower take nothing: mostly the first is enough."""


class Growth:
    """Bytes of log behind the newest snapshot, up to an index that only grows. Hardly any entry is weighed twice."""

    def __init__(self) -> None:
        self.bytes = 0
        self._first_index = self._last_index = 0

    def measure(self, log: Log, newest_index: int, last_index: int) -> int:
        """The entries behind `newest_index`, up to `last_index`; what is not in memory any more is not counted."""
        if newest_index != self._first_index:  # an earlier one, if the newest has turned out to be damaged
            self._first_index = self._last_index = newest_index
            self.bytes = 0
        first_index = max(self._last_index, log.base_index) + 1
        if first_index <= last_index:
            self.bytes += log.bytes_between(first_index, last_index + 1)
            self._last_index = last_index
        return self.bytes


class LogLimit:
    """
    Keeps the log from growing without end while a snapshot takes long, or cannot be taken.

    `is_reached`: a leader takes no more commands, and asks another to lead if that lasts. A follower cannot refuse
    entries; at twice the limit it keeps what comes in memory, unacknowledged, so that the leader's window for it
    closes, as with a disk that does not answer. Each time it is elected it writes that. Only entries count that are
    committed, and on this disk: those can be in the next snapshot, whatever else may happen. What is not committed has
    a bound of its own, and so has what a follower has not written: the window, and a message of each leader that there
    is meanwhile.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.is_reached = False
        self.bytes = 0
        self.limit_bytes = 0
        self._lasting = Growth()

    def note(self, raft: Raft, newest_index: int, limit_bytes: int) -> None:
        """Once each flush: the newest snapshot ends with `newest_index`."""
        self.limit_bytes = limit_bytes
        lasting_index = min(raft.commit_index, raft.log.durable_index)
        self.bytes = self._lasting.measure(raft.log, newest_index, lasting_index)
        if self.is_reached != (self.bytes >= limit_bytes):
            self.is_reached = not self.is_reached
            self._say(self.is_reached, limit_bytes, "refuses commands when it leads", "it takes commands")
        if isinstance(raft.role, Leader):
            raft.role.reconfiguration.has_room = not self.is_reached
        followers_bytes = limit_bytes * _FOLLOWERS_SHARE
        is_held = self.bytes >= followers_bytes
        if raft.holds_entries != is_held:
            raft.holds_entries = is_held
            raft.has_news |= not is_held
            self._say(is_held, followers_bytes, "writes entries only when it leads", "it writes entries")

    def _say(self, is_over: bool, limit_bytes: int, does: str, does_again: str) -> None:
        if is_over:
            self._log.warn(
                "{bytes} bytes of log are behind the newest snapshot, and by snapshot_log_limit a limit is at {limit}: "
                "until there is a newer one, this server {does}",
                bytes=self.bytes,
                limit=limit_bytes,
                does=does,
            )
        else:
            self._log.info(
                "there is room in the log again, {does}: {bytes} bytes of it are behind the newest snapshot",
                bytes=self.bytes,
                does=does_again,
            )
