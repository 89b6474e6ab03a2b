"""A real server that has no file descriptors left."""

from __future__ import annotations

import contextlib
import pathlib
import shlex
import socket

import pytest
from processes import TWISTD, ask, free_ports, started, terminate, wait_until

pytestmark = pytest.mark.process

LIMIT = 64


def test_a_server_without_descriptors_stays_and_serves_again_when_there_are_some(tmp_path: pathlib.Path) -> None:
    """N09: more clients than descriptors neither end the server nor keep it from those whom it serves already."""
    kv_port, rpc_port = free_ports(2)
    lines = [f"servers=127.0.0.1:{rpc_port}", f"rpc_port={rpc_port}", f"kv_port={kv_port}", "http_server_port=off", ""]
    (tmp_path / "raft.conf").write_text("\n".join(lines))
    command = shlex.join([*TWISTD, "-n", "--pidfile=", "raftcore", "--config", "raft.conf"])
    with started(["bash", "-c", f"ulimit -n {LIMIT}; exec {command}"], tmp_path) as process:
        wait_until(lambda: ask(kv_port, "set a before") == "OK null", "a leader")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", kv_port))) for _ in range(2 * LIMIT)]
            clients[0].sendall(b"get a\r\n")
            assert clients[0].recv(100) == b"OK before\r\n", "who was there first is served"
            output = tmp_path / "output"
            wait_until(lambda: "EMFILE" in output.read_text(), "the limit is met; else this shows nothing")
            for _ in range(20):
                clients[0].sendall(b"get a\r\n")
                assert clients[0].recv(100) == b"OK before\r\n"
        wait_until(lambda: ask(kv_port, "get a") == "OK before", "it takes clients again")
        assert ask(kv_port, "set a after") == "OK before"
        assert process.poll() is None
        terminate(process)
