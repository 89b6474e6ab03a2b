"""`raftctl dev`: a whole cluster on one machine."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import signal
import socket
import sys
import tempfile

import pytest
from processes import ask, free_base_port, started, terminate, wait_until
from twisted.trial.unittest import SynchronousTestCase

from txraft.admin.dev import config_text, plan_servers, write_configurations
from txraft.admin.raftctl import main
from txraft.config_reading import parse_config


class PlanTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def test_no_two_servers_share_a_port(self) -> None:
        servers = plan_servers("raft-dev", 99, 8877)
        ports = [port for each in servers for port in (each.client_port, each.rpc_port, each.http_port)]
        self.assertEqual(len(set(ports)), 3 * 99)

    def test_numbers_out_of_range_are_refused(self) -> None:
        for count, base_port in ((0, 8877), (100, 8877), (3, 0), (3, 65535)):
            self.assertRaises(ValueError, plan_servers, "raft-dev", count, base_port)

    def test_every_server_gets_a_configuration_that_can_be_used_and_all_are_one_cluster(self) -> None:
        servers = plan_servers(self.directory, 3, 8877)
        configs = [parse_config(config_text(server, servers), server.config_path) for server in servers]
        self.assertEqual(len({config.cluster_id for config in configs}), 1)
        self.assertEqual(configs[0].servers, tuple(config.server_id for config in configs))
        self.assertEqual([config.machine_options["kv_port"] for config in configs], ["8877", "8878", "8879"])
        self.assertEqual(len({config.data_dir for config in configs}), 3)

    def test_the_same_cluster_is_found_again(self) -> None:
        servers = plan_servers(self.directory, 3, 8877)
        write_configurations(self.directory, servers)
        write_configurations(self.directory, servers)
        self.assertEqual(sorted(os.listdir(self.directory)), ["n1", "n2", "n3"])

    def test_another_clusters_directory_is_left_alone(self) -> None:
        write_configurations(self.directory, plan_servers(self.directory, 3, 8877))
        for count, base_port in ((2, 8877), (5, 8877), (3, 9000)):
            servers = plan_servers(self.directory, count, base_port)
            self.assertRaises(ValueError, write_configurations, self.directory, servers)
        self.assertEqual(sorted(os.listdir(self.directory)), ["n1", "n2", "n3"])

    def test_a_refusal_is_one_line_and_status_1(self) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(main(["dev", "--nodes", "0"]), 1)
        self.assertEqual(said.getvalue(), "raftctl: --nodes must be from 1 to 99\n")


def command(base_port: int, nodes: int) -> list[str]:
    arguments = ["dev", "--nodes", str(nodes), "--base-port", str(base_port), "--dir", "cluster"]
    return [sys.executable, "-m", "txraft.admin.raftctl", *arguments]


def output(directory: pathlib.Path) -> str:
    return (directory / "output").read_text()


def leader_port(base_port: int) -> int:
    return next((port for port in range(base_port, base_port + 3) if ask(port, "get x").startswith("OK")), 0)


@pytest.mark.process
def test_a_cluster_starts_survives_its_leader_stops_and_resumes(tmp_path: pathlib.Path) -> None:
    base_port = free_base_port()
    with started(command(base_port, 3), tmp_path) as raftctl:
        wait_until(lambda: "The cluster is ready" in output(tmp_path), "the table")
        rows = re.findall(r"(?m)^(n\d)  +(leader|follower) +127.0.0.1:(\d+) +127.0.0.1:\d+ +(\d+)$", output(tmp_path))
        assert [row[0] for row in rows] == ["n1", "n2", "n3"]
        [leader] = [row for row in rows if row[1] == "leader"]
        # On a busy machine there may be another election at any time, here and below.
        wait_until(lambda: ask(leader_port(base_port), "set fruit apple").startswith("OK"), "a leader")
        os.kill(int(leader[3]), signal.SIGKILL)
        wait_until(lambda: f"raftctl: {leader[0]} was ended by signal 9" in output(tmp_path), "the news")
        assert f"--config cluster/{leader[0]}/raft.conf" in output(tmp_path)
        wait_until(lambda: ask(leader_port(base_port), "get fruit") == "OK apple", "another leader")
        raftctl.send_signal(signal.SIGINT)
        assert raftctl.wait(30) == 1, "one server ended by itself"
    with started(command(base_port, 3), tmp_path) as raftctl:
        wait_until(lambda: output(tmp_path).count("The cluster is ready") == 2, "the second table")
        wait_until(lambda: ask(leader_port(base_port), "get fruit") == "OK apple", "what was there before")
        assert terminate(raftctl) in (0, -signal.SIGTERM)
    assert re.search(r"(?m)^n2\| .*", output(tmp_path)), "log lines have their server's name"
    assert [ask(port, "get x") for port in range(base_port, base_port + 3)] == ["", "", ""]


@pytest.mark.process
def test_a_port_in_use_is_one_line_and_nothing_is_written(tmp_path: pathlib.Path) -> None:
    """Whoever listens there may be a cluster too, and answer for the one that could not start."""
    base_port = free_base_port()
    with socket.create_server(("127.0.0.1", base_port)), started(command(base_port, 1), tmp_path) as raftctl:
        assert raftctl.wait(30) == 1
    said = f"raftctl: port {base_port}, for n1: Address already in use; choose another --base-port\n"
    assert output(tmp_path) == said
    assert os.listdir(tmp_path) == ["output"]


@pytest.mark.process
def test_a_cluster_that_cannot_start_says_so_and_ends_with_status_1(tmp_path: pathlib.Path) -> None:
    base_port = free_base_port()
    (tmp_path / "cluster" / "n1").mkdir(parents=True)
    (tmp_path / "cluster" / "n1" / "raft-data").write_text("a file stands in the way")
    with started(command(base_port, 1), tmp_path) as raftctl:
        assert raftctl.wait(30) == 1
    assert "raftctl: n1 ended with status 1" in output(tmp_path)
    assert "n1| " in output(tmp_path)
