"""
Who may use the admin HTTP: whoever has the token, and no page of another site in an operator's browser.

A browser sends what any page asks of it, with the operator's own reach and with credentials it remembers. Against pages
of other origins a changing request must come from our own page, or from no browser at all; against names that an
attacker lets point to this address (DNS rebinding), the host must be one that is ours.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress

import attrs
from twisted.web.http import Request

from txraft.admin.private_files import read_private
from txraft.admin.problems import Forbidden, Unauthorized
from txraft.errors import ConfigError
from txraft.net.addresses import parse_address

MIN_TOKEN_BYTES = 16
SAFE_METHODS = (b"GET", b"HEAD")
"""The methods that change nothing."""


def read_token(path: str, key: str = "admin_token_file") -> bytes:
    """
    The token in the file at `path`, which `key` names, without the spaces around it.

    @raise ConfigError: it cannot be read, others may read it, or it is too short to be a secret.
    """
    token = read_private(path, key, forbidden=0o027).strip().encode()
    if len(token) < MIN_TOKEN_BYTES or not token.isascii() or len(token.split()) != 1:
        raise ConfigError(f"{key}: {path} must hold one word of {MIN_TOKEN_BYTES} characters or more")
    return token


@attrs.frozen
class Gate:
    """
    Lets requests pass or refuses them.

    `host_names` are those, beside `localhost` and IP addresses, that this server is called by; `token` is None if
    whoever can connect may do everything.
    """

    host_names: frozenset[str]
    token: bytes | None = attrs.field(repr=False)

    def check(self, request: Request) -> None:
        """
        Let `request` pass.

        @raise Forbidden: it comes from another site's page, as far as the browser says.
        @raise Unauthorized: its token is wrong, or it has none.
        """
        host = request.getHeader(b"host")
        if host is not None and not self._is_ours(host):
            raise Forbidden("this server is not called by the host's name in the request")
        if self.token is not None and not is_same(self.token, _credential(request.getHeader(b"authorization"))):
            raise Unauthorized("the token is missing or wrong")
        if request.method not in SAFE_METHODS and not _is_from_here(request, host):
            raise Forbidden("a page of another origin has made this request")

    def _is_ours(self, host: bytes) -> bool:
        try:
            name, _ = parse_address(host.decode("latin-1"), 80)
        except ValueError:
            return False
        # An address is no name that an attacker could let point elsewhere.
        return name == "localhost" or name in self.host_names or _is_ip_address(name)


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_same(secret: bytes, claimed: bytes) -> bool:
    """Whether they are equal, in a time that says nothing of how much of them is."""
    return hmac.compare_digest(hashlib.sha256(secret).digest(), hashlib.sha256(claimed).digest())


def _credential(header: bytes | None) -> bytes:
    """The bearer's token, or the password that a browser has asked its user for; empty if there is neither."""
    scheme, _, value = (header or b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _is_from_here(request: Request, host: bytes | None) -> bool:
    """Browsers name the origin of each POST; what is no browser names none, and has nobody's rights but its own."""
    origin = request.getHeader(b"origin")
    if origin is not None:
        # Behind a proxy that ends TLS the page is https, and we do not know.
        return host is not None and origin in (b"http://" + host, b"https://" + host)
    return request.getHeader(b"sec-fetch-site") in (None, b"same-origin", b"none")
