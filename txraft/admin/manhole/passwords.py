"""
The password file of the telnet manhole: a line `user:hash` for each user; blank lines and lines with # do not count.

A hash is `scrypt$N$r$p$salt$key`, the last two in base64 (RFC 7914). `raftctl manhole-password` writes such lines.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets

import attrs

from txraft.admin.private_files import read_private, write_private
from txraft.errors import ConfigError

USER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH = re.compile(
    r"scrypt\$(\d{1,9})\$(\d{1,3})\$(\d{1,3})\$([A-Za-z0-9+/=]{1,999})\$([A-Za-z0-9+/=]{1,999})", re.ASCII
)
MIN_PASSWORD_BYTES = 8
MAX_PASSWORD_BYTES = 256

_COST, _BLOCK_SIZE, _PARALLEL = 1 << 15, 8, 1
_MAX_MEMORY_BYTES = 256 << 20
_KEY_BYTES = _SALT_BYTES = 32


@attrs.frozen
class PasswordHash:
    """What is kept of a password."""

    cost: int
    block_size: int
    parallel: int
    salt: bytes = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)

    @classmethod
    def of(cls, password: bytes, cost: int = _COST) -> PasswordHash:
        """The hash of a new password, with a salt of its own. `cost` is a power of two."""
        new = cls(cost, _BLOCK_SIZE, _PARALLEL, secrets.token_bytes(_SALT_BYTES), bytes(_KEY_BYTES))
        return attrs.evolve(new, key=new._derive(password))

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """@raise ValueError: it is not what `str` of a hash gives, or would take too much memory."""
        match = _HASH.fullmatch(text)
        if match is None:
            raise ValueError("expected scrypt$N$r$p$salt$key")
        cost, block_size, parallel = map(int, match.groups()[:3])
        try:
            salt, key = (base64.b64decode(part, validate=True) for part in match.groups()[3:])
        except binascii.Error as error:
            raise ValueError(f"salt and key are base64: {error}") from None
        # It works on 128 * N * r bytes, and as many more as p says.
        is_possible = cost > 1 and cost & (cost - 1) == 0 and min(block_size, parallel) >= 1
        if not is_possible or 256 * cost * block_size * parallel > _MAX_MEMORY_BYTES:
            raise ValueError(f"N={cost}, r={block_size}, p={parallel} cannot be used")
        if min(len(salt), len(key)) < 16:
            raise ValueError("salt and key have 16 bytes or more")
        return cls(cost, block_size, parallel, salt, key)

    def __str__(self) -> str:
        salt, key = (base64.b64encode(part).decode() for part in (self.salt, self.key))
        return f"scrypt${self.cost}${self.block_size}${self.parallel}${salt}${key}"

    def fits(self, password: bytes) -> bool:
        """
        Whether this is the password; takes a tenth of a second or so, whatever the answer, so not for the reactor's
        thread.
        """
        return hmac.compare_digest(self._derive(password), self.key)

    def _derive(self, password: bytes) -> bytes:
        return hashlib.scrypt(
            password,
            salt=self.salt,
            n=self.cost,
            r=self.block_size,
            p=self.parallel,
            maxmem=_MAX_MEMORY_BYTES,
            dklen=len(self.key),
        )


def read_passwords(path: str) -> dict[str, PasswordHash]:
    """
    The users in the file at `path`.

    @raise ConfigError: it cannot be read, others than its owner may read it, or a line is not understood; says which.
    """
    text = read_private(path, "manhole_password_file")
    found: dict[str, PasswordHash] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        user, _, hash_text = stripped.partition(":")
        try:
            if not USER.fullmatch(user):
                raise ValueError("a user is 1 to 64 of A-Z a-z 0-9 _ . -")
            if user in found:
                raise ValueError(f"{user} is there twice")
            found[user] = PasswordHash.parse(hash_text)
        except ValueError as error:
            # Never the line itself: it may hold a password that somebody wrote there.
            problem = f"{error}; raftctl manhole-password makes such lines"
            raise ConfigError(f"manhole_password_file: {path}, line {number}: {problem}") from None
    if not found:
        raise ConfigError(f"manhole_password_file: {path} has no user; raftctl manhole-password adds one")
    return found


def write_password(path: str, user: str, password: bytes) -> None:
    """
    Give `user` this password in the file at `path`, which is made if it is not there; other lines stay as they are.

    @raise ConfigError: the file that is there cannot be used.
    @raise OSError: it cannot be written; the old one is as it was.
    """
    lines: list[str] = []
    if os.path.exists(path):
        text = read_private(path, "manhole_password_file")
        lines = [line for line in text.splitlines() if line.strip().partition(":")[0] != user]
    lines.append(f"{user}:{PasswordHash.of(password)}")
    write_private(path, "".join(f"{line}\n" for line in lines), replace=True)
