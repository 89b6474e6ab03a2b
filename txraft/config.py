"""
raft.conf -> `Config`. The attributes of `Config` are the one table of keys: parser, defaults and the text of the
shipped raft.conf (`reference`) come from it.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from txraft import config_syntax as syntax
from txraft.config_syntax import Kind, Setting
from txraft.errors import ConfigError
from txraft.net.addresses import format_address, interface_address, parse_address

ENVELOPE_BYTES = 4096
"""What a message may be longer than the commands in it, as these are counted."""


@attrs.frozen
class Key:
    """What is known of one key of raft.conf. `default` is spelt as it would be in the file; None means absent."""

    kind: Kind
    default: str | None
    help: str


def _key(kind: Kind, default: str | None, help: str) -> Any:
    return attrs.field(metadata={"key": Key(kind, default, help)})


@attrs.frozen(kw_only=True)
class Config:
    """
    A configuration that is complete and checked. Attributes are called as the keys of raft.conf.

    Paths are absolute, addresses have their port, times are in ms, sizes in bytes.
    """

    file: str
    """The path of raft.conf, as it was given."""
    server_id: str
    """This server's identity: `interface` and `rpc_port`, as host:port."""
    machine_options: dict[str, str]
    """The keys that start with the state machine's name and `_`; its plugin checks them."""
    places: dict[str, str] = attrs.field(repr=False)
    """Where each key that was set was set: `file:line` or `--set key`."""

    interface: str = _key(
        syntax.ADDRESS,
        "127.0.0.1",
        "This server's address, by which the other servers know and reach it: a network interface such as eth0, "
        "an address, or a host name. Together with rpc_port it is the server's identity.",
    )
    rpc_port: int = _key(syntax.PORT, "29922", "Port of the traffic between servers.")
    rpc_bind_ip: str = _key(
        syntax.ADDRESS,
        None,
        "IP address to bind rpc_port on. If absent, that of `interface`; never all of them.",
    )
    servers: tuple[str, ...] = _key(
        syntax.ADDRESS_LIST,
        None,
        "The first members of the cluster; an address without a port means rpc_port. This server alone makes a cluster "
        "of one. Several, the same list on each of them, make one cluster from the start. If absent, the server waits "
        "until a cluster adds it. Ignored once the log says who the members are.",
    )
    cluster_name: str = _key(
        syntax.NAME,
        "txraft",
        "Together with the first members this names the cluster: servers of different clusters refuse each other.",
    )
    data_dir: str = _key(
        syntax.PATH,
        "raft-data",
        "Where this server keeps everything. A relative path starts at the directory of this file. Made if absent.",
    )
    log_file: str = _key(
        syntax.PATH, "raft.log", "The replicated log; its segments get this name and a number. Relative to data_dir."
    )
    core_map_file: str = _key(
        syntax.PATH, "raft.state", "Term, vote and identity of this server. Relative to data_dir."
    )
    log_segment_bytes: int = _key(syntax.size(4096), "8 MiB", "Size of one segment of the log.")
    fsync: bool = _key(
        syntax.YES_NO,
        "yes",
        "no: answer before the disk has it. Faster, and a power failure loses acknowledged writes. For tests and "
        "caches only; refused unless accept_data_loss=yes stands beside it.",
    )
    accept_data_loss: bool = _key(syntax.YES_NO, "no", "Says that you mean fsync=no.")
    min_election_timeout: int = _key(
        syntax.MILLISECONDS,
        "150",
        "A server that hears nothing from a leader for a random time between min_election_timeout and "
        "max_election_timeout stands for election.",
    )
    max_election_timeout: int = _key(syntax.MILLISECONDS, "300", "The longest election timeout.")
    election_rpc_timeout: int = _key(
        syntax.MILLISECONDS, "70", "How long to wait for an answer to a request for a vote before it is sent again."
    )
    heartbeat_rate: int = _key(
        syntax.MILLISECONDS, "80", "How often a leader sends a heartbeat; below min_election_timeout."
    )
    heartbeat_rpc_timeout: int = _key(
        syntax.MILLISECONDS, "70", "How long a leader waits for an answer to entries before it sends them again."
    )
    server_catch_up_rounds: int = _key(
        syntax.whole("rounds", 1, 1000), "10", "Rounds of replication for an added server to catch up. Not used yet."
    )
    http_server_port: int = _key(syntax.PORT, "29998", "Port of the admin pages. Not used yet.")
    state_machine: str = _key(
        syntax.TEXT,
        "kv",
        "What the cluster replicates: a name from `twistd raftcore --list-state-machines`, or "
        "package.module:attribute. Keys that start with that name and _ are its own.",
    )
    max_command_bytes: int = _key(syntax.size(1), "1 MiB", "The longest command that can be proposed.")
    max_append_bytes: int = _key(
        syntax.size(1024), "1 MiB", "The most that one message carries of the log; a longer command goes alone."
    )
    max_message_bytes: int = _key(
        syntax.size(8192, 1 << 30), "16 MiB", "The longest message taken from another server; it is cut off at more."
    )
    max_inflight_bytes: int = _key(
        syntax.size(1024), "4 MiB", "The most of the log on its way to one server and not yet answered."
    )
    max_peer_queue_bytes: int = _key(
        syntax.size(8192),
        "16 MiB",
        "The most that waits for a slow link to one server; beyond it, Raft sends again later.",
    )
    max_uncommitted_bytes: int = _key(
        syntax.size(1024), "64 MiB", "The most that is proposed and not yet committed; beyond it proposals are refused."
    )
    max_pending_reads: int = _key(
        syntax.whole("reads", 1, 10**7), "10000", "The most reads that wait for the leader to be confirmed."
    )
    apply_slice_ms: int = _key(
        syntax.whole("ms", 1, 1000), "10", "How long the state machine may work before heartbeats get their turn."
    )
    stop_timeout: int = _key(
        syntax.MILLISECONDS, "5000", "How long a server that is told to stop may finish what it has begun."
    )

    @property
    def cluster_id(self) -> str:
        """What every handshake names; empty if this server waits to be added."""
        return cluster_id_of(self.cluster_name, self.servers) if self.servers else ""

    def located(self, error: ConfigError) -> ConfigError:
        """The same error of the state machine's plugin, with the place of the first key in its text that was set."""
        named = [key for key in re.findall(r"\w+", error.problem) if key in self.places]
        key = named[0] if named else "state_machine"
        return ConfigError(error.problem, error.where or self.places.get(key, self.file))


KEYS: dict[str, Key] = {field.name: field.metadata["key"] for field in attrs.fields(Config) if "key" in field.metadata}
"""The table: key -> what is known of it, in the order of raft.conf."""

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
)


def cluster_id_of(cluster_name: str, servers: Iterable[str]) -> str:
    """The cluster id, 32 hexadecimal digits, of a cluster with this name and these first members, in any order."""
    # No name and no server id holds a newline, so that no two lists run into the same text.
    text = "\n".join([cluster_name, *sorted(servers)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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
        ConfigError(f"unknown key {setting.name}{nearest(setting.name, KEYS)}", setting.where)
        for setting in found.values()
        if setting.name not in KEYS and setting.name not in options
    )
    return options


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the one of `known` that is spelt most like `name`; empty if none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


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

    directory = os.path.join(os.path.dirname(os.path.abspath(path)), values["data_dir"])
    values["data_dir"] = os.path.normpath(directory)
    for key in ("log_file", "core_map_file"):
        values[key] = os.path.normpath(os.path.join(directory, values[key]))

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
        values["server_id"] = format_address(host, port)
        _check_servers(values, _where(["servers"], found, path), problems)


def _server_id(text: str, default_port: int) -> str:
    return format_address(*parse_address(text, default_port))


def _check_servers(values: Mapping[str, Any], where: str, problems: list[ConfigError]) -> None:
    servers, server_id = values["servers"], values["server_id"]
    twice = sorted({server for server in servers if servers.count(server) > 1})
    if twice:
        problems.append(ConfigError(f"servers: {', '.join(twice)} stands there more than once", where))
    if servers and server_id not in servers:
        problems.append(ConfigError(f"servers: this server, {server_id}, is not among {', '.join(servers)}", where))


def _where(keys: Iterable[str], found: Mapping[str, Setting], path: str) -> str:
    """Where the first of `keys` that was set at all was set."""
    return next((found[key].where for key in keys if key in found), path)


def _show(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
