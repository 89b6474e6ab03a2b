"""Where a server is, and who it must be there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contact:
    """
    A server to keep a link to. `address`: host:port; empty if that is its id. `incarnation`: the number of its data
    directory, as the log says; 0 if it does not. `is_leaving`: it is no member any more, and has yet to hear of it.
    """

    server_id: str
    address: str = ""
    incarnation: int = 0
    is_leaving: bool = False
