"""The kv machine's keys in raft.conf: one table of name, kind, default and help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.endpoints import quoteStringArgument

from txraft import config_syntax as syntax
from txraft.config_syntax import Kind
from txraft.errors import ConfigError
from txraft.machines.kv_encoding import MAX_OVERHEAD_BYTES
from txraft.net.addresses import format_address, interface_address, is_wildcard, parse_address


def _parse_interface(text: str) -> str:
    try:
        return text if is_wildcard(text) else interface_address(text)
    except ValueError:
        raise ValueError("expected a network interface, an address or a host name of this machine") from None


def _parse_client_address(text: str) -> str:
    try:
        return text and format_address(*parse_address(text, None))
    except ValueError:
        raise ValueError("expected host:port") from None


def _option(kind: Kind, default: str, help: str) -> Any:
    return attrs.field(metadata={"kind": kind, "default": default, "help": help})


@attrs.frozen
class KeyValueOptions:
    """The values of all keys; `kv_port` is `port` here. Bytes and numbers."""

    port: int = _option(syntax.PORT, "8877", "Port for Redis clients and telnet.")
    interface: str = _option(
        Kind("address", _parse_interface),
        "127.0.0.1",
        "Where to listen, and where the other servers send clients, so on several machines not loopback: a network "
        "interface, an address, or a host name. Nobody is asked for a password.",
    )
    address: str = _option(
        Kind("host:port", _parse_client_address),
        "",
        "Where clients reach this server, as the other servers tell them; kv_interface and kv_port if empty.",
    )
    max_key_bytes: int = _option(syntax.size(1, 1 << 28), "16 KiB", "The longest key.")
    max_value_bytes: int = _option(
        syntax.size(1, 1 << 28), "512 KiB", "The longest value. A key and a value must fit into max_command_bytes."
    )
    max_connections: int = _option(syntax.whole("connections", 1, 10**6), "1000", "The most clients at a time.")
    max_pipeline: int = _option(
        syntax.whole("requests", 1, 10**6),
        "1024",
        "The most requests of one client that are not answered yet; beyond it no more of its requests are read.",
    )

    @property
    def request_bytes(self) -> int:
        """What is kept of an incomplete request: so much that one over the limits by half can still be told so."""
        return 2 * (self.max_key_bytes + self.max_value_bytes) + 64 * 1024

    @property
    def pipeline_bytes(self) -> int:
        """How much of one client's requests may be unanswered before reading stops."""
        return 2 * self.request_bytes

    @property
    def endpoint(self) -> str:
        """Twisted's endpoint string to listen at."""
        return f"tcp:{self.port}:interface={quoteStringArgument(self.interface)}"

    @property
    def client_address(self) -> str:
        """What the other servers tell their clients."""
        return self.address or format_address(self.interface, self.port)

    def check_fits(self, max_command_bytes: int) -> None:
        """
        See that the longest key with the longest value can be proposed.

        @raise ConfigError: it cannot; with all the numbers.
        """
        longest = self.max_key_bytes + self.max_value_bytes + MAX_OVERHEAD_BYTES
        if longest > max_command_bytes:
            raise ConfigError(
                f"kv_max_value_bytes = {self.max_value_bytes} and kv_max_key_bytes = {self.max_key_bytes} make "
                f"commands of {longest} bytes, but max_command_bytes = {max_command_bytes}"
            )


OPTIONS = {f"kv_{field.name}": field for field in attrs.fields(KeyValueOptions)}
"""The table: key in raft.conf -> attribute, whose metadata has `kind`, `default` and `help`."""


def parse_options(options: Mapping[str, str]) -> KeyValueOptions:
    """
    The values of `options`, and defaults for what is not there.

    @raise ConfigError: an unknown key, with the nearest one; or a bad value, with what is expected.
    """
    unknown = next((name for name in options if name not in OPTIONS), None)
    if unknown is not None:
        raise ConfigError(f"unknown key {unknown}{syntax.nearest(unknown, OPTIONS)}")
    values = {}
    for name, field in OPTIONS.items():
        text = options.get(name, field.metadata["default"])
        try:
            values[field.name] = field.metadata["kind"].parse(text)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}, not {text!r}") from None
    parsed = KeyValueOptions(**values)
    if is_wildcard(parsed.interface) and not parsed.address:
        raise ConfigError(
            f"kv_interface: {parsed.interface} is every address of this machine, so kv_address must say which of them "
            f"clients are sent to"
        )
    return parsed
