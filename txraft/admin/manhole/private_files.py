"""Files that only the server's own user may read."""

from __future__ import annotations

import os
import secrets
import stat

from txraft.errors import ConfigError

_MAX_BYTES = 1 << 20


def read_private(path: str, key: str, may_be_read: bool = False) -> str:
    """
    The text of the file at `path`, which the configuration key `key` names.

    @param may_be_read: others may read it; they may never write it.
    @raise ConfigError: it cannot be read, is no text, or others than its owner may do with it what they must not.
    """
    forbidden, to_do = (0o022, "go-w") if may_be_read else (0o077, "go=")
    try:
        with open(path, "rb") as file:
            # Of the file that is open, not of what the name stands for a moment before or after.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from None
    if mode & forbidden:
        done = "be written" if may_be_read else "be read or written"
        raise ConfigError(f"{key}: {path} may {done} by others than its owner: chmod {to_do} {path}")
    try:
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{key}: {path} is longer than any such file")
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key}: {path} is not UTF-8 at byte {error.start}") from None


def write_private(path: str, content: str, replace: bool = False) -> None:
    """
    Put `content` at `path`, all or nothing, for nobody else to read.

    @raise OSError: it cannot be written, or is there already and not to be replaced; what is there is as it was.
    """
    temporary = f"{path}.{secrets.token_hex(4)}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
