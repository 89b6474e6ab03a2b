"""
Addresses as people write them: `host:port`, `[v6]:port`, or a host alone where there is a port to fall back on.

A server's id is its address in the form that `format_address` writes, so one address must have one spelling.
"""

from __future__ import annotations

import fcntl
import ipaddress
import re
import socket
import struct
from pathlib import Path

_SIOCGIFADDR = 0x8915
_IFREQ_BYTES = 256
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
MAX_HOST_BYTES = 253


def parse_address(text: str, default_port: int | None) -> tuple[str, int]:
    """
    Host and port of `host:port`, `[v6]:port`, or of a host or IPv6 address alone, which has `default_port`.

    The host is canonical: lower case, no final dot, IPv6 in its shortest form.

    @raise ValueError: it is no address; or it has no port, and `default_port` is None. Says why.
    """
    host, port_text = _split_port(text)
    port = default_port if port_text is None else _parse_port(port_text, text)
    if port is None:
        raise ValueError(f"{text!r} has no port")
    return _canonical_host(host, text), port


def format_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address. `parse_address` reads it back."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def interface_address(name: str) -> str:
    """
    The host by which others reach this machine: the address of the network interface of that name; else `name`.

    An address or a host name stays as it is, in canonical form: a name survives a change of address. An interface has
    its IPv4 address, or if it has none, its first IPv6 address that is not link-local. May block on name resolution.

    @raise ValueError: no such interface, an interface without address, a name that cannot be resolved, or an address
        that stands for all of them.
    """
    if name in {interface for _, interface in socket.if_nameindex()}:
        return _ipv4_address(name) or _ipv6_address(name)
    host = _canonical_host(name, name)
    if is_wildcard(host):
        raise ValueError(f"{name!r} is every address of this machine: say which of them the others reach")
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"{name!r} is no network interface here, and unresolvable as a host: {error}") from None
    return host


def is_wildcard(host: str) -> bool:
    """True for the addresses that a port binds to be reached at every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """True if nobody but this machine reaches what is bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [IPv6 address]:port")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        # Where an IPv6 address ends and a port begins cannot be told, so there is no port.
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _parse_port(port: str, text: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r}: the port {port!r} is not a number from 1 to 65535")
    return int(port)


def _canonical_host(host: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_HOST_BYTES or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise ValueError(f"{text!r}: {host!r} is neither an IP address nor a host name")
    return name


def _ipv4_address(interface: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack(f"{_IFREQ_BYTES}s", interface.encode())
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _ipv6_address(interface: str, table: Path = Path("/proc/net/if_inet6")) -> str:
    """From Linux's table: address in hex, index, prefix length, scope, flags, name."""
    rows = [row.split() for row in table.read_text().splitlines()] if table.exists() else []
    for address, _, _, _, _, name in rows:
        candidate = ipaddress.IPv6Address(int(address, 16))
        if name == interface and not candidate.is_link_local:
            return str(candidate)
    raise ValueError(f"the network interface {interface!r} has no address; unresolvable")
