"""Link events as log lines. A link that keeps failing for one reason is retried for ever and logged once."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel

MAX_REMEMBERED = 1000


class Journal:
    """
    Says each thing about each link once, until told to `forget`.

    Remembers a bounded number of things; beyond it, it starts afresh and may repeat itself. While `is_silent`, it says
    nothing: that every link of a server which stops ends is no news.
    """

    log = Logger()

    def __init__(self) -> None:
        self.is_silent = False
        self._said: dict[tuple[str, str], None] = {}

    def say(self, link: str, what: str, where: str = "", level: LogLevel = LogLevel.warn) -> None:
        """Log one line, unless the same was said of `link` already; `where` does not make a difference."""
        if self.is_silent or (link, what) in self._said:
            return
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[link, what] = None
        self.log.emit(level, "link {link}{where}: {what}", link=link, where=where, what=what)

    def forget(self, link: str) -> None:
        """The link is in order: what is said of it next is news."""
        for key in [key for key in self._said if key[0] == link]:
            del self._said[key]
