"""Files that are not for everybody: passwords, keys, tokens."""

from __future__ import annotations

import os
import secrets
import stat

from txraft.errors import ConfigError

_MAX_BYTES = 1 << 20


def read_private(path: str, key: str, forbidden: int = 0o077) -> str:
    """
    The text of the file at `path`, which the configuration key `key` names.

    @param forbidden: the bits that its mode must not have.
    @raise ConfigError: it cannot be read, is no text, or others may do with it what they must not.
    """
    try:
        with open(path, "rb") as file:
            # Of the file that is open, not of what the name stands for a moment before or after.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from None
    if mode & forbidden:
        done = "read or written" if forbidden & 0o044 else "written"
        raise ConfigError(f"{key}: {path} must not be {done} by others: chmod {0o666 & ~forbidden:o} {path}")
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{key}: {path} is longer than any such file")
    try:
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
