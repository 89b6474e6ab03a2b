"""
The keys of the ssh manhole: the server's own, and those of the people who may come in.

Needs the extra `ssh`, and imports the reactor, as conch's ssh does: to be imported when a server is made.
"""

from __future__ import annotations

import os
from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.error import ValidPublicKey
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ISSHPrivateKey
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, execute
from twisted.logger import Logger
from zope.interface import implementer

from txraft.admin.private_files import read_private, write_private
from txraft.errors import ConfigError

_UNREADABLE = (BadKeyError, EncryptedKeyError, ValueError, IndexError, KeyError, TypeError)
"""What conch raises for text that is no key."""


@attrs.frozen
class AuthorizedKey:
    """A key that lets somebody in, and who that is: the key's comment, or its fingerprint if it has none."""

    key: Key
    owner: str


def read_authorized_keys(path: str) -> list[AuthorizedKey]:
    """
    The public keys in the file at `path`, a line for each, as in OpenSSH's authorized_keys but without options.

    @raise ConfigError: it cannot be read, others may write it, it has no key, or a line is none.
    """
    found = []
    text = read_private(path, "manhole_authorized_keys", forbidden=0o022)
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            key = Key.fromString(stripped.encode(), type="public_openssh")
        except _UNREADABLE:
            problem = "expected a public key: type, base64, comment; options before it are not supported"
            raise ConfigError(f"manhole_authorized_keys: {path}, line {number}: {problem}") from None
        comment = " ".join(stripped.split()[2:])
        owner = comment if comment.isprintable() else ""
        found.append(AuthorizedKey(key, owner or key.fingerprint()))
    if not found:
        raise ConfigError(f"manhole_authorized_keys: {path} has no key: nobody could log in")
    return found


def read_host_key(path: str) -> Key | None:
    """
    The server's own key; None if there is none yet.

    @raise ConfigError: it cannot be read or used, or others than its owner may read it.
    """
    if not os.path.lexists(path):
        return None
    text = read_private(path, "manhole_host_key")
    try:
        key: Key = Key.fromString(text.encode())
    except _UNREADABLE:
        raise ConfigError(f"manhole_host_key: {path} is no private key without a passphrase") from None
    if key.isPublic():
        raise ConfigError(f"manhole_host_key: {path} is a public key; the private one is needed")
    return key


def make_host_key(path: str) -> Key:
    """
    A new key for the server, kept at `path`.

    @raise OSError: it cannot be written.
    """
    key = Key(Ed25519PrivateKey.generate())
    write_private(path, key.toString("openssh").decode())
    return key


@implementer(ICredentialsChecker)
class KeyChecker:
    """Who holds a key of the file is who the file says. It is read each time: who is struck out is out."""

    credentialInterfaces = (ISSHPrivateKey,)

    _log = Logger()

    def __init__(self, path: str) -> None:
        self._path = path

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return execute(self._owner, credentials)

    def _owner(self, credentials: Any) -> bytes | tuple[()]:
        try:
            offered = Key.fromString(credentials.blob)
            found = next((each for each in read_authorized_keys(self._path) if each.key == offered), None)
        except ConfigError as error:
            self._log.error("manhole: nobody can log in: {problem}", problem=str(error))
            raise UnauthorizedLogin("no keys") from None
        except _UNREADABLE:
            found = None
        if found is None:
            raise UnauthorizedLogin("not an authorized key")
        if not credentials.signature:
            # Asked whether it is worth to sign with this key.
            raise ValidPublicKey()
        try:
            is_right = offered.verify(credentials.signature, credentials.sigData)
        except Exception:
            # Whatever a signature of a stranger makes cryptography raise.
            is_right = False
        if not is_right:
            raise UnauthorizedLogin("not signed with that key")
        return found.owner.encode()
