"""`raftctl dev`: a whole cluster on this machine, to try and to develop with."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from txraft.admin.dev_cluster import DevCluster, Server

LAST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl dev`."""
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="how many servers (default: 3)")
    parser.add_argument("--dir", default="raft-dev", help="keeps configurations and data, also for the next time")
    parser.add_argument(
        "--base-port",
        type=int,
        default=8877,
        metavar="PORT",
        help="clients' port of the first server (default: 8877)",
    )


def run(options: argparse.Namespace) -> int:
    """Run a cluster until Ctrl-C. Returns the exit status: 0 only if no server ended by itself."""
    from twisted.internet import reactor

    try:
        servers = plan_servers(options.dir, options.nodes, options.base_port)
        check_ports(servers)
        write_configurations(options.dir, servers)
    except (OSError, ValueError) as error:
        print(f"raftctl: {error}", file=sys.stderr)
        return 1
    cluster = DevCluster(reactor, servers, lambda line: print(line, flush=True))
    reactor.callWhenRunning(cluster.start)
    reactor.addSystemEventTrigger("before", "shutdown", cluster.stop)
    reactor.run()
    return cluster.exit_status


def plan_servers(directory: str, count: int, base_port: int) -> list[Server]:
    """
    The servers n1, n2, ... of a cluster on loopback: clients on base_port and up, servers 100 and admin 200 above that.

    @raise ValueError: there are not enough ports.
    """
    if not 1 <= count <= 99:
        raise ValueError("--nodes must be from 1 to 99")
    if not 1 <= base_port <= LAST_PORT - 200 - count:
        raise ValueError(f"--base-port must be from 1 to {LAST_PORT - 200 - count}")
    return [
        Server(
            name=f"n{number}",
            config_path=os.path.join(directory, f"n{number}", "raft.conf"),
            client_port=base_port + number - 1,
            rpc_port=base_port + 100 + number - 1,
            http_port=base_port + 200 + number - 1,
        )
        for number in range(1, count + 1)
    ]


def config_text(server: Server, servers: Sequence[Server]) -> str:
    """The raft.conf of `server`, one of `servers`."""
    members = ",".join(f"127.0.0.1:{member.rpc_port}" for member in servers)
    return (
        f"# Written by raftctl dev. Every key is explained in the raft.conf that comes with txraft.\n"
        f"servers={members}\n"
        f"rpc_port={server.rpc_port}\n"
        f"http_server_port={server.http_port}\n"
        f"state_machine=kv\n"
        f"kv_port={server.client_port}\n"
    )


def write_configurations(directory: str, servers: Sequence[Server]) -> None:
    """
    Write each server's raft.conf, or find it there from the last time.

    @raise ValueError: another cluster is in `directory`; nothing was written.
    """
    texts = {server.config_path: config_text(server, servers) for server in servers}
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    found = {os.path.join(directory, name, "raft.conf") for name in names}
    found = {path for path in found if os.path.exists(path)}
    if any(path not in texts or _read(path) != texts[path] for path in found):
        raise ValueError(f"{directory} holds another cluster: remove it, or choose another --dir")
    for path, text in texts.items():
        if path not in found:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)


def check_ports(servers: Sequence[Server]) -> None:
    """
    See that nobody listens where `servers` will: another cluster's answers would be taken for theirs.

    @raise ValueError: somebody does.
    """
    for server in servers:
        for port in (server.client_port, server.rpc_port, server.http_port):
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise ValueError(f"port {port}, for {server.name}: {reason}; choose another --base-port") from error


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
