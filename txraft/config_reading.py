"""raft.conf -> `Config`: its text against the table of keys, and the rules between keys."""

from __future__ import annotations

import functools
import ipaddress
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from txraft import config_syntax as syntax
from txraft.config import KEYS, Config
from txraft.config_syntax import Setting
from txraft.errors import ConfigError
from txraft.net.addresses import format_address, interface_address, is_loopback, is_wildcard, parse_address

ENVELOPE_BYTES = 4096
"""What a message may be longer than the commands in it, as these are counted."""

_IN_DATA_DIR = ("log_file", "core_map_file", "snapshot_dir", "manhole_host_key")
_BESIDE_THE_FILE = ("admin_token_file", "manhole_password_file", "manhole_authorized_keys")

_PORTS = (
    ("rpc_port", "rpc_bind_ip"),
    ("http_server_port", "http_bind_ip"),
    ("manhole_port", "manhole_bind_ip"),
    ("manhole_ssh_port", "manhole_ssh_bind_ip"),
)
"""Where a server listens, besides what its state machine does."""


def _are_apart(one: tuple[str, str], other: tuple[str, str], config: Config) -> bool:
    """Whether a server can listen at both of these."""
    (port, host), (other_port, other_host) = (
        (getattr(config, port_key), getattr(config, host_key)) for port_key, host_key in (one, other)
    )
    return (
        port is None or port != other_port or not (host == other_host or is_wildcard(host) or is_wildcard(other_host))
    )


def _is_of_log(path: str, log_file: str) -> bool:
    """Whether a file of the log may have this name: see `txraft.storage`."""
    return re.fullmatch(re.escape(log_file) + r"\.(\d{16}|next\.tmp)", path) is not None


# Each rule between keys: the keys, the first of which is blamed, what must hold, and what to say if it does not.
_RULES: tuple[tuple[tuple[str, ...], Callable[[Config], bool], str], ...] = (
    (
        ("min_election_timeout", "max_election_timeout"),
        lambda config: config.min_election_timeout < config.max_election_timeout,
        "must be less, else servers that time out together do so again and again",
    ),
    (
        ("heartbeat_rate", "min_election_timeout"),
        lambda config: config.heartbeat_rate < config.min_election_timeout,
        "must be less, else followers give up a healthy leader",
    ),
    (
        ("fsync", "accept_data_loss"),
        lambda config: config.fsync or config.accept_data_loss,
        "without fsync acknowledged writes can be lost; say accept_data_loss=yes if you mean it",
    ),
    (
        ("http_bind_ip", "admin_token_file"),
        lambda config: is_loopback(config.http_bind_ip) or config.admin_token_file is not None,
        "others than this machine can connect, so there must be a token",
    ),
    (
        ("core_map_file", "log_file"),
        lambda config: not _is_of_log(config.core_map_file, config.log_file),
        "files of the log are called so, and it would take the place of one",
    ),
    (
        ("max_append_bytes", "max_message_bytes"),
        lambda config: config.max_append_bytes + ENVELOPE_BYTES <= config.max_message_bytes,
        f"must be less by {syntax.show_size(ENVELOPE_BYTES)} at least, else the message is not taken",
    ),
    (
        ("max_command_bytes", "max_message_bytes"),
        lambda config: config.max_command_bytes + ENVELOPE_BYTES <= config.max_message_bytes,
        f"must be less by {syntax.show_size(ENVELOPE_BYTES)} at least, else the command cannot be replicated",
    ),
    (
        ("max_command_bytes", "max_uncommitted_bytes"),
        lambda config: config.max_command_bytes + ENVELOPE_BYTES <= config.max_uncommitted_bytes,
        f"must be less by {syntax.show_size(ENVELOPE_BYTES)} at least, else the command is always refused",
    ),
    (
        ("max_append_bytes", "max_inflight_bytes"),
        lambda config: config.max_append_bytes <= config.max_inflight_bytes,
        "must not be more",
    ),
    (
        ("max_message_bytes", "max_peer_queue_bytes"),
        lambda config: config.max_message_bytes <= config.max_peer_queue_bytes,
        "must not be more, else a message could never be queued",
    ),
    (
        ("manhole_port", "manhole_password_file"),
        lambda config: config.manhole_port is None or config.manhole_password_file is not None,
        "nobody can log in by telnet without it; raftctl manhole-password makes one",
    ),
    (
        ("manhole_ssh_port", "manhole_authorized_keys"),
        lambda config: config.manhole_ssh_port is None or config.manhole_authorized_keys is not None,
        "nobody can log in by ssh without it",
    ),
    *(
        (
            (one[0], other[0]),
            functools.partial(_are_apart, one, other),
            "must be another: both are bound on one address",
        )
        for one, other in itertools.combinations(_PORTS, 2)
    ),
)


def load_config(
    path: str, overrides: Iterable[str] = (), machine_name: Callable[[str], str] = lambda value: value
) -> Config:
    """
    Read and check the file at `path`. Nothing is created.

    @param overrides: `key=value` each; they win over the file.
    @param machine_name: gives the state machine's name for the value of `state_machine`, or raises `ConfigError`.
    @raise ExceptionGroup: of `ConfigError`, one for each problem found.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 at byte {error.start}"
        raise ExceptionGroup(path, [ConfigError(f"cannot be read: {reason}", path)]) from None
    return parse_config(text, path, overrides, machine_name)


def parse_config(
    text: str, path: str, overrides: Iterable[str] = (), machine_name: Callable[[str], str] = lambda value: value
) -> Config:
    """As `load_config`, of a file at `path` that holds `text`."""
    problems: list[ConfigError] = []
    found = syntax.by_name(syntax.read_lines(text, path, problems), problems)
    found |= syntax.by_name(syntax.read_overrides(overrides, problems), problems)
    options = _machine_options(found, machine_name, problems)
    values = {name: _value(name, found, problems) for name in KEYS}
    if not problems:
        _resolve(values, path, found, problems)
    if problems:
        raise ExceptionGroup(path, problems)
    places = {name: setting.where for name, setting in found.items()}
    config = Config(file=path, machine_options=options, places=places, **values)
    for keys, holds, why in _RULES:
        if not holds(config):
            shown = [f"{key} = {_show(getattr(config, key))}" for key in keys]
            problems.append(ConfigError(f"{shown[0]} against {shown[1]}: {why}", _where(keys, found, path)))
    if problems:
        raise ExceptionGroup(path, problems)
    return config


def _machine_options(
    found: Mapping[str, Setting], machine_name: Callable[[str], str], problems: list[ConfigError]
) -> dict[str, str]:
    """
    The settings that are the state machine's. Any other that the table does not know goes to `problems`.

    While nobody knows the machine, nobody knows its keys: then only the machine is a problem.
    """
    chosen = found.get("state_machine")
    try:
        name = machine_name(chosen.value if chosen else str(KEYS["state_machine"].default))
    except ConfigError as error:
        problems.append(ConfigError(error.problem, chosen.where if chosen else ""))
        return {}
    options = {key: setting.value for key, setting in found.items() if key.startswith(f"{name}_") and key not in KEYS}
    problems += (
        ConfigError(f"unknown key {setting.name}{syntax.nearest(setting.name, KEYS)}", setting.where)
        for setting in found.values()
        if setting.name not in KEYS and setting.name not in options
    )
    return options


def _value(name: str, found: Mapping[str, Setting], problems: list[ConfigError]) -> Any:
    setting = found.get(name)
    text = setting.value if setting else KEYS[name].default
    if text is None:
        return None
    try:
        return KEYS[name].kind.parse(text)
    except ValueError as error:
        problems.append(ConfigError(f"{name}: {error}, not {text!r}", setting.where if setting else ""))
        return None


def _resolve(values: dict[str, Any], path: str, found: Mapping[str, Setting], problems: list[ConfigError]) -> None:
    """Make addresses canonical and paths absolute, and say who this server is."""

    def attempt(key: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except ValueError as error:
            problems.append(ConfigError(f"{key}: {error}", _where([key], found, path)))
            return None

    home = os.path.dirname(os.path.abspath(path))
    data_dir = values["data_dir"] = os.path.normpath(os.path.join(home, values["data_dir"]))
    for directory, keys in ((data_dir, _IN_DATA_DIR), (home, _BESIDE_THE_FILE)):
        for key in keys:
            if values[key] is not None:
                values[key] = os.path.normpath(os.path.join(directory, values[key]))

    attempt("http_bind_ip", lambda: ipaddress.ip_address(values["http_bind_ip"]))

    host = attempt("interface", lambda: interface_address(values["interface"]))
    if values["rpc_bind_ip"] is not None:
        attempt("rpc_bind_ip", lambda: ipaddress.ip_address(values["rpc_bind_ip"]))
    else:
        values["rpc_bind_ip"] = host
    port = values["rpc_port"]
    values["servers"] = tuple(
        attempt("servers", functools.partial(_server_id, text, port)) for text in values["servers"] or ()
    )
    if not problems:
        values["interface"] = host
        given = values["server_id"]
        values["server_id"] = attempt("server_id", lambda: _server_id(given or format_address(host, port), port))
        _check_servers(values, _where(["servers"], found, path), problems)


def _server_id(text: str, default_port: int) -> str:
    return format_address(*parse_address(text, default_port))


def _check_servers(values: Mapping[str, Any], where: str, problems: list[ConfigError]) -> None:
    servers, server_id = values["servers"], values["server_id"]
    twice = sorted({server for server in servers if servers.count(server) > 1})
    if twice:
        problems.append(ConfigError(f"servers: {', '.join(twice)} stands there more than once", where))
    if servers and server_id and server_id not in servers:
        problems.append(ConfigError(f"servers: this server, {server_id}, is not among {', '.join(servers)}", where))


def _where(keys: Iterable[str], found: Mapping[str, Setting], path: str) -> str:
    """Where the first of `keys` that was set at all was set."""
    return next((found[key].where for key in keys if key in found), path)


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "nothing" if value is None else str(value)
