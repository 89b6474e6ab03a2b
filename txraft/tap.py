"""
`twistd raftcore`: the options, and the one place that puts real disk, sockets and reactor together.

Nothing here imports the reactor as it is imported, and `makeService` has no side effects: a daemonising twistd forks
after it.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
from twisted import copyright
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.python import usage

import txraft
from txraft.admin.http_gate import Gate, read_token
from txraft.admin.http_service import AdminService, host_names
from txraft.admin.operations import Operations
from txraft.config import Config
from txraft.config_reading import load_config
from txraft.disk import make_store
from txraft.errors import ConfigError
from txraft.forking import Forker
from txraft.interfaces import IStateMachine, IStateMachinePlugin
from txraft.net.addresses import parse_address
from txraft.net.peers import PeerTransport
from txraft.node import RaftNode
from txraft.node.settings import NodeSettings
from txraft.plugins import find_state_machine, installed_state_machines
from txraft.server import Part, ReservedPort, ServerService
from txraft.storage.writer import WriterThread


@attrs.frozen
class Plan:
    """What a command line asks for: a checked configuration, and the plugin that makes its state machine."""

    config: Config
    plugin: IStateMachinePlugin


class Options(usage.Options):
    """The options of `twistd raftcore`. A configuration that cannot be used ends the process, one line a problem."""

    synopsis = "[options]"
    longdesc = "Runs one server of a Raft cluster, as the configuration file says."
    optParameters = [["config", "c", None, "The configuration file, such as raft.conf."]]
    optFlags = [
        ["check-config", None, "Check the configuration, say what it is, and exit; create nothing."],
        ["list-state-machines", None, "List the installed state machines and exit."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.overrides: list[str] = []
        self.plan: Plan | None = None

    def opt_set(self, setting: str) -> None:
        """key=value, which wins over the configuration file. May be repeated."""
        self.overrides.append(setting)

    def opt_version(self) -> None:
        """Show the versions and exit."""
        print(f"txraft {txraft.__version__}, Twisted {copyright.version}")
        sys.exit(0)

    def postOptions(self) -> None:
        """Read the configuration, and answer the options that only ask."""
        if self["list-state-machines"]:
            for plugin in installed_state_machines():
                print(f"{plugin.name:16} {plugin.description}")
            sys.exit(0)
        if self["config"] is None:
            raise usage.UsageError("--config FILE is missing")
        self.plan = make_plan(self["config"], self.overrides)
        if self["check-config"]:
            makeService(self)
            print(describe(self.plan))
            sys.exit(0)


def make_plan(path: str, overrides: list[str]) -> Plan:
    """
    Read and check the configuration at `path`.

    @raise SystemExit: it cannot be used; with one line for each problem.
    """
    try:
        # Each search would report a broken plugin once more.
        find = functools.cache(find_state_machine)
        config = load_config(path, overrides, lambda wanted: str(find(wanted).name))
    except ExceptionGroup as problems:
        raise SystemExit("\n".join(str(problem) for problem in problems.exceptions)) from None
    return Plan(config, find(config.state_machine))


def describe(plan: Plan) -> str:
    """What `--check-config` says of a configuration that can be used."""
    config = plan.config
    members = f"first members {', '.join(config.servers)}" if config.servers else "waits to be added to a cluster"
    safety = "" if config.fsync else "; UNSAFE: fsync=no"
    return (
        f"ok: {config.file}: server {config.server_id}, {members}, state machine {plan.plugin.name}, "
        f"data in {config.data_dir}{safety}"
    )


def makeService(options: Options) -> IService:
    """
    The server that `options` ask for, not yet started.

    @raise SystemExit: the state machine's plugin refuses its options; with the line that is wrong.
    """
    from twisted.internet import reactor

    assert options.plan is not None, "postOptions comes first"
    config, plugin = options.plan.config, options.plan.plugin
    try:
        machine = plugin.build(config.machine_options)
        rpc_port = ReservedPort(reactor, config.rpc_bind_ip, config.rpc_port)
        transport = make_transport(config, rpc_port, reactor)
        node = make_node(config, machine, transport, reactor)
        front_end: Any = plugin.service(node, machine, config.machine_options)
        operations = Operations(node, transport.probe)
        http_port, http = make_http(config, operations, reactor)
        manholes = make_manholes(config, operations, reactor)
    except ConfigError as error:
        raise SystemExit(str(config.located(error))) from None
    except ValueError as error:
        # Timings so near to each other that in ticks they are the same.
        raise SystemExit(f"{config.file}: {error}") from None
    server = ServerService(reactor, node)
    # Stopped in the reverse order: no client is served by a node that is gone, and no link outlives its port.
    parts = (
        (rpc_port, "rpc_port"),
        (http_port, "http_server_port"),
        *((port, key) for port, _, key in manholes),
        (node, "data_dir"),
        (front_end, f"{plugin.name}_port"),
        (http, "http_server_port"),
        *((manhole, key) for _, manhole, key in manholes),
    )
    for service, key in parts:
        if service is not None:
            part = Part(config.places.get(key, ""))
            service.setServiceParent(part)
            part.setServiceParent(server)
    return server


def make_http(
    config: Config, operations: Operations, reactor: Any
) -> tuple[ReservedPort, AdminService] | tuple[None, None]:
    """
    The admin HTTP and its port; None if it is off.

    @raise ConfigError: the token's file cannot be used.
    """
    if config.http_server_port is None:
        return None, None
    token = read_token(config.admin_token_file) if config.admin_token_file is not None else None
    gate = Gate(host_names(config.server_id, config.admin_address), token)
    port = ReservedPort(reactor, config.http_bind_ip, config.http_server_port)
    return port, AdminService(reactor, operations, gate, port, config.admin_address, config.snapshot_bandwidth)


def make_manholes(config: Config, operations: Operations, reactor: Any) -> list[tuple[ReservedPort, Service, str]]:
    """
    The ways into the manhole that `config` asks for, each with its port and the key that does; see `Manhole`.

    @raise ConfigError: a file that it needs cannot be used.
    """
    if config.manhole_port is None and config.manhole_ssh_port is None:
        return []
    # Much is imported for it, which a server without it does not need.
    from txraft.admin.manhole.service import Manhole

    def run_in_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    manhole = Manhole(operations, reactor, config.manhole_mode, config.manhole_max_connections)
    found: list[tuple[ReservedPort, Service, str]] = []
    if config.manhole_port is not None and config.manhole_password_file is not None:
        port = ReservedPort(reactor, config.manhole_bind_ip, config.manhole_port)
        found.append((port, manhole.by_telnet(port, config.manhole_password_file, run_in_thread), "manhole_port"))
    if config.manhole_ssh_port is not None and config.manhole_authorized_keys is not None:
        port = ReservedPort(reactor, config.manhole_ssh_bind_ip, config.manhole_ssh_port)
        by_ssh = manhole.by_ssh(port, config.manhole_host_key, config.manhole_authorized_keys)
        found.append((port, by_ssh, "manhole_ssh_port"))
    return found


def make_transport(config: Config, rpc_port: ReservedPort, reactor: Any) -> PeerTransport:
    """The links to the other servers, not yet started."""
    return PeerTransport(
        reactor=reactor,
        listen_endpoint=rpc_port,
        client_endpoint=client_endpoint(reactor, config.rpc_port),
        max_message_bytes=config.max_message_bytes,
        max_peer_queue_bytes=config.max_peer_queue_bytes,
        rng=random.Random(),
        snapshot_bandwidth=config.snapshot_bandwidth,
    )


def make_node(config: Config, machine: IStateMachine, transport: PeerTransport, reactor: Any) -> RaftNode:
    """A node on this machine's disk, network and clock, not yet started."""
    return RaftNode(
        settings=node_settings(config),
        log_store=make_store(config, WriterThread(reactor), WriterThread(reactor, "txraft-snapshots")),
        transport=transport,
        machine=machine,
        clock=reactor,
        rng=random.Random(),
        wall_ms=lambda: time.time_ns() // 1_000_000,
        forker=Forker(reactor, config.snapshot_child_timeout / 1000) if hasattr(os, "fork") else None,
    )


def node_settings(config: Config) -> NodeSettings:
    """The part of `config` that the node wants; it has the same names there."""
    shared = {name: getattr(config, name) for name in attrs.fields_dict(NodeSettings) if hasattr(config, name)}
    return NodeSettings(bootstrap=config.servers, **shared)


def client_endpoint(reactor: Any, default_port: int) -> Callable[[str], IStreamClientEndpoint]:
    """How to reach a server by its id; a host name is looked up at each attempt."""

    def endpoint(server_id: str) -> IStreamClientEndpoint:
        host, port = parse_address(server_id, default_port)
        return HostnameEndpoint(reactor, host, port)

    return endpoint
