"""
The configuration. The attributes of `Config` are the one table of keys: parser (`config_reading`), defaults and the
text of the shipped raft.conf (`reference`) come from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import attrs

from txraft import config_syntax as syntax
from txraft.config_syntax import Kind
from txraft.errors import ConfigError
from txraft.net.addresses import format_address, is_loopback, is_wildcard


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
    machine_options: dict[str, str]
    """The keys that start with the state machine's name and `_`; its plugin checks them."""
    places: dict[str, str] = attrs.field(repr=False)
    """Where each key that was set was set: `file:line` or `--set key`."""

    interface: str = _key(
        syntax.ADDRESS,
        "127.0.0.1",
        "This server's address, by which the other servers know and reach it: a network interface such as eth0, "
        "an address, or a host name. Together with rpc_port it is the server's identity, if there is no server_id.",
    )
    rpc_port: int = _key(syntax.PORT, "29922", "Port of the traffic between servers.")
    rpc_bind_ip: str = _key(
        syntax.ADDRESS,
        None,
        "IP address to bind rpc_port on. If absent, that of `interface`; never all of them.",
    )
    server_id: str = _key(
        syntax.ADDRESS,
        None,
        "The server's identity, if that is not `interface` and rpc_port: what they were when it became a member. For a "
        "server that has moved with its data; `raftctl move` tells the others where it is now.",
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
        "Together with the first members this names the cluster that they found: servers of different clusters refuse "
        "each other. A server that is added belongs to the cluster that adds it, whatever stands here; `raftctl "
        "recover` asks for this name before it goes on.",
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
    snapshot_dir: str = _key(
        syntax.PATH, "snapshots", "Directory of the snapshots of the state machine's state. Relative to data_dir."
    )
    snapshot_keep: int = _key(
        syntax.whole("snapshots", 1, 1000),
        "2",
        "How many snapshots are kept. If the newest is damaged, the server starts from the one before, so the log is "
        "kept from the oldest of them on.",
    )
    snapshot_log_bytes: int = _key(
        syntax.size(4096), "64 MiB", "A snapshot is taken when this much of the log is behind the newest one..."
    )
    snapshot_ratio: int = _key(
        syntax.whole("times", 1, 1000), "4", "...and this many times as much as that one's size. LogCabin's rule."
    )
    snapshot_log_limit: int = _key(
        syntax.whole("times", 2, 1000),
        "4",
        "This many times as much log as makes a snapshot due may be behind the newest one. Then a leader refuses "
        "commands until the next one is there, and at twice as much a follower takes no more entries.",
    )
    snapshot_slice_ms: int = _key(
        syntax.MILLISECONDS, "5", "A snapshot that is not written by a child of the server is written in such slices."
    )
    snapshot_child_timeout: int = _key(
        syntax.MILLISECONDS, "10000", "A child that writes a snapshot and is silent for this long is killed."
    )
    snapshot_bandwidth: int = _key(
        syntax.size(0),
        "0",
        "A snapshot is sent to another server, or to whoever makes a backup, with so many bytes a second; 0: as "
        "quickly as it goes.",
    )
    snapshot_hold_bytes: int = _key(
        syntax.size(4096),
        "256 MiB",
        "While a snapshot is sent to a server, the log behind it is kept for that server, but not more than this.",
    )
    log_keep_entries: int = _key(
        syntax.whole("entries", 0, 1_000_000_000),
        "10000",
        "So many entries that are in a snapshot stay in the log, for servers that are a little behind; but not more of "
        "them than snapshot_log_bytes.",
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
        syntax.whole("rounds", 1, 1000), "10", "Rounds of replication in which a new server must have caught up."
    )
    http_server_port: int | None = _key(
        syntax.PORT_OR_OFF, "29998", "Port of the admin HTTP: a page for people, and an API for programs under /v1."
    )
    http_bind_ip: str = _key(
        syntax.ADDRESS,
        "127.0.0.1",
        "IP address to bind http_server_port on. Whoever can connect there may change the cluster, so any other than "
        "a loopback address needs admin_token_file.",
    )
    admin_token_file: str | None = _key(
        syntax.PATH,
        None,
        "A file that holds a word of 16 characters or more, which only its owner and group may read. If set, every "
        "request to the admin HTTP must have it. A relative path starts at the directory of this file.",
    )
    manhole_port: int | None = _key(
        syntax.PORT_OR_OFF,
        "off",
        "Port of the manhole by telnet: a prompt for operators inside of the server. Needs manhole_password_file.",
    )
    manhole_bind_ip: str = _key(syntax.LOOPBACK_ADDRESS, "127.0.0.1", "IP address to bind manhole_port on.")
    manhole_password_file: str | None = _key(
        syntax.PATH,
        None,
        "Who may log in by telnet, with hashes of passwords; `raftctl manhole-password` writes it. Only its owner may "
        "read it. Relative to the directory of this file.",
    )
    manhole_ssh_port: int | None = _key(
        syntax.PORT_OR_OFF,
        "off",
        "Port of the manhole by ssh. Needs manhole_authorized_keys, and pip install 'txraft[ssh]'.",
    )
    manhole_ssh_bind_ip: str = _key(syntax.IP_ADDRESS, "127.0.0.1", "IP address to bind manhole_ssh_port on.")
    manhole_host_key: str = _key(
        syntax.PATH,
        "manhole.key",
        "The private key by which ssh clients recognise this server; made if absent. Relative to data_dir.",
    )
    manhole_authorized_keys: str | None = _key(
        syntax.PATH,
        None,
        "The public keys of those who may log in by ssh, a line for each, as in OpenSSH's authorized_keys; the comment "
        "says who it is. Relative to the directory of this file.",
    )
    manhole_mode: str = _key(
        syntax.one_of("admin", "python"),
        "admin",
        "admin: the prompt takes a few verbs, see `help` there. python: it is Python inside of the server, with the "
        "verbs; who can log in can do everything that the server's user can.",
    )
    manhole_max_connections: int = _key(
        syntax.whole("connections", 1, 1000), "10", "The most connections at a time to each port of the manhole."
    )
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
    max_sessions: int = _key(
        syntax.whole("sessions", 1, 10**7),
        "10000",
        "The most sessions of clients; a leader that opens one more gives up the one that was used least recently.",
    )
    max_session_answers: int = _key(
        syntax.whole("answers", 1, 10**6),
        "100",
        "So far a client may number its commands ahead of the first one that it has no answer to, and so many answers "
        "one session keeps at most. An answer may have 64 KiB: what all sessions keep is in the memory of every server "
        "and in its snapshots, at worst max_sessions times max_session_answers times 64 KiB.",
    )
    apply_slice_ms: int = _key(
        syntax.whole("ms", 1, 1000), "10", "How long the state machine may work before heartbeats get their turn."
    )
    stop_timeout: int = _key(
        syntax.MILLISECONDS, "5000", "How long a server that is told to stop may finish what it has begun."
    )

    @property
    def admin_address(self) -> str:
        """Where the other servers send operators, as host:port; empty if those would not reach this server there."""
        if self.http_server_port is None or (is_loopback(self.http_bind_ip) and not is_loopback(self.interface)):
            return ""
        host = self.interface if is_wildcard(self.http_bind_ip) else self.http_bind_ip
        return format_address(host, self.http_server_port)

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


def cluster_id_of(cluster_name: str, servers: Iterable[str]) -> str:
    """The cluster id, 32 hexadecimal digits, of a cluster with this name and these first members, in any order."""
    # No name and no server id holds a newline, so that no two lists run into the same text.
    text = "\n".join([cluster_name, *sorted(servers)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
