"""The text of a raft.conf that explains every key. `python -m txraft.reference` prints the one that ships."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from txraft.config import KEYS, Key
from txraft.machines.kv_options import OPTIONS

SHIPPED = {"servers": "127.0.0.1"}
"""What is set in the shipped file: a cluster of this one server. All else is at its default."""
_PREAMBLE = """\
# Configuration of txraft: twistd -n raftcore --config raft.conf

# Lines of key=value. A line that starts with # is a comment. Sizes may end in KiB, MiB or GiB.
# Every key is here. One that is commented out shows its default.
"""


def render_reference(active: Mapping[str, str] = SHIPPED) -> str:
    """
    A comment and a line for each key, those of the kv machine at the end.

    @param active: the keys to set, with their values; any other line is commented out, and shows the default.
    """
    keys = KEYS | {name: Key(**field.metadata) for name, field in OPTIONS.items()}
    return "\n".join([_PREAMBLE, *(_render(name, key, active.get(name)) for name, key in keys.items())])


def _render(name: str, key: Key, value: str | None) -> str:
    comment = [f"# {line}" for line in textwrap.wrap(f"{key.help} ({key.kind.words})", 98)]
    setting = f"#{name}={key.default or ''}" if value is None else f"{name}={value}"
    return "\n".join([*comment, setting, ""])


if __name__ == "__main__":
    print(render_reference(), end="")
