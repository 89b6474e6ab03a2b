"""raft.conf: what is understood, and which line is blamed for what is not."""

from __future__ import annotations

import os
import pathlib
import tempfile

import pytest
from twisted.trial.unittest import SynchronousTestCase

from txraft.config import KEYS, Config, cluster_id_of
from txraft.config_reading import load_config, parse_config
from txraft.errors import ConfigError
from txraft.machines.kv_options import OPTIONS
from txraft.reference import render_reference

ROOT = pathlib.Path(__file__).parents[1]


def parse(text: str, *overrides: str) -> Config:
    return parse_config(text, "/etc/raft/raft.conf", overrides)


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ExceptionGroup) as caught:
        parse(text, *overrides)
    assert all(isinstance(error, ConfigError) for error in caught.value.exceptions)
    return [str(error).removeprefix("/etc/raft/") for error in caught.value.exceptions]


class SyntaxTests(SynchronousTestCase):
    def test_comments_blank_lines_and_spaces_do_not_count(self) -> None:
        config = parse("\n# first\n   # second\n\n  rpc_port  =  4000  \n\nheartbeat_rate=20\n\n")
        self.assertEqual((config.rpc_port, config.heartbeat_rate), (4000, 20))

    def test_lines_end_in_crlf_as_well(self) -> None:
        self.assertEqual(parse("rpc_port=4000\r\nheartbeat_rate=20\r\n").heartbeat_rate, 20)

    def test_a_line_without_equals_is_named(self) -> None:
        self.assertEqual(problems_of("\nrpc_port 4000"), ["raft.conf:2: expected key=value, not 'rpc_port 4000'"])

    def test_an_unknown_key_is_named_with_the_nearest(self) -> None:
        self.assertEqual(
            problems_of("# x\n\nmin_election_timout=100"),
            ["raft.conf:3: unknown key min_election_timout; did you mean min_election_timeout?"],
        )

    def test_a_key_that_is_like_no_other_is_named_alone(self) -> None:
        self.assertEqual(problems_of("zzz=1"), ["raft.conf:1: unknown key zzz"])

    def test_a_duplicate_key_names_both_lines(self) -> None:
        self.assertEqual(
            problems_of("rpc_port=1\nrpc_port=2"),
            ["raft.conf:2: rpc_port is set twice, first at /etc/raft/raft.conf:1"],
        )

    def test_a_comment_behind_a_value_is_refused_rather_than_taken_as_value(self) -> None:
        self.assertEqual(problems_of("data_dir=x # here"), ["raft.conf:1: data_dir: a comment needs a line of its own"])

    def test_every_problem_is_reported(self) -> None:
        self.assertEqual(len(problems_of("a=1\nb\nrpc_port=x\nfsync=maybe")), 4)


class ValueTests(SynchronousTestCase):
    def test_bad_values_name_their_line_and_what_was_expected(self) -> None:
        cases = {
            "rpc_port=70000": "rpc_port: expected a whole number from 1 to 65535, not '70000'",
            "rpc_port=": "rpc_port: expected a whole number from 1 to 65535, not ''",
            "heartbeat_rate=0": "heartbeat_rate: expected a whole number from 1 to 3600000, not '0'",
            "heartbeat_rate=-1": "heartbeat_rate: expected a whole number from 1 to 3600000, not '-1'",
            "heartbeat_rate=8٠": "heartbeat_rate: expected a whole number from 1 to 3600000, not '8٠'",
            "fsync=true": "fsync: expected yes or no, not 'true'",
            "data_dir=": "data_dir: expected a value, not ''",
            "servers=a,,b": "servers: expected a list with commas between its parts, not 'a,,b'",
            "cluster_name=a b": "cluster_name: expected 1 to 64 of the characters A-Z a-z 0-9 _ . -, not 'a b'",
            "log_segment_bytes=1 MB": "log_segment_bytes: expected bytes, from 4 KiB to 1024 GiB, "
            "such as 4096, 64 KiB or 1 MiB, not '1 MB'",
        }
        for line, problem in cases.items():
            self.assertEqual(problems_of(line), [f"raft.conf:1: {problem}"])

    def test_sizes_take_binary_suffixes(self) -> None:
        config = parse("max_message_bytes=8 MiB\nmax_append_bytes=512KiB\nmax_uncommitted_bytes=1 GiB")
        self.assertEqual(config.max_message_bytes, 8 << 20)
        self.assertEqual(config.max_append_bytes, 512 << 10)
        self.assertEqual(config.max_uncommitted_bytes, 1 << 30)

    def test_the_command_line_wins_over_the_file(self) -> None:
        self.assertEqual(parse("rpc_port=1000", "rpc_port=2000").rpc_port, 2000)

    def test_the_command_line_is_blamed_for_its_own_problems(self) -> None:
        self.assertEqual(problems_of("", "rpc_prt=1"), ["--set rpc_prt: unknown key rpc_prt; did you mean rpc_port?"])
        self.assertEqual(
            problems_of("", "rpc_port=x"),
            ["--set rpc_port: rpc_port: expected a whole number from 1 to 65535, not 'x'"],
        )
        self.assertEqual(problems_of("", "rpc_port"), ["--set rpc_port: expected key=value, not 'rpc_port'"])

    def test_defaults_are_those_of_the_original(self) -> None:
        config = parse("")
        self.assertEqual(
            (config.min_election_timeout, config.max_election_timeout, config.heartbeat_rate, config.rpc_port),
            (150, 300, 80, 29922),
        )
        self.assertEqual((config.election_rpc_timeout, config.heartbeat_rpc_timeout), (70, 70))
        self.assertEqual((config.server_catch_up_rounds, config.http_server_port), (10, 29998))


class RuleTests(SynchronousTestCase):
    def test_one_port_serves_two_purposes_at_two_addresses(self) -> None:
        config = parse("interface=127.0.0.2\nhttp_server_port=29922\nservers=127.0.0.2")
        self.assertEqual((config.http_server_port, config.rpc_port), (29922, 29922))

    def test_contradictions_name_the_line_and_both_values(self) -> None:
        cases = {
            "min_election_timeout=400": "min_election_timeout = 400 against max_election_timeout = 300",
            "min_election_timeout=300": "min_election_timeout = 300 against max_election_timeout = 300",
            "max_election_timeout=100": "min_election_timeout = 150 against max_election_timeout = 100",
            "heartbeat_rate=150": "heartbeat_rate = 150 against min_election_timeout = 150",
            "fsync=no": "fsync = no against accept_data_loss = no",
            "max_append_bytes=4 MiB\nmax_message_bytes=4 MiB": "max_append_bytes = 4194304 against max_message_bytes",
            "max_command_bytes=16 MiB": "max_command_bytes = 16777216 against max_message_bytes = 16777216",
            "max_uncommitted_bytes=1 MiB": "max_command_bytes = 1048576 against max_uncommitted_bytes = 1048576",
            "max_inflight_bytes=1 KiB": "max_append_bytes = 1048576 against max_inflight_bytes = 1024",
            "http_server_port=29922": "rpc_port = 29922 against http_server_port = 29922",
            "manhole_port=29998\nmanhole_password_file=passwords\nhttp_bind_ip=0.0.0.0\nadmin_token_file=token": (
                "http_server_port = 29998 against manhole_port = 29998"
            ),
            "max_peer_queue_bytes=15 MiB": "max_message_bytes = 16777216 against max_peer_queue_bytes = 15728640",
        }
        for text, problem in cases.items():
            found = problems_of(text)
            self.assertEqual(len(found), 1, found)
            self.assertTrue(found[0].startswith(f"raft.conf:1: {problem}"), found)

    def test_the_state_file_is_no_file_of_the_log(self) -> None:
        """It would take a segment's place, with what was acknowledged."""
        for name in ("raft.log.0000000000000001", "raft.log.next.tmp"):
            (problem,) = problems_of(f"core_map_file={name}")
            self.assertRegex(problem, f"raft.conf:1: core_map_file = .*/{name} against log_file = .*/raft.log: ")
        self.assertTrue(parse("core_map_file=raft.log.state").core_map_file.endswith("/raft.log.state"))

    def test_fsync_can_be_turned_off_by_one_who_accepts_data_loss(self) -> None:
        self.assertFalse(parse("fsync=no\naccept_data_loss=yes").fsync)
        self.assertTrue(parse("").fsync)


class IdentityTests(SynchronousTestCase):
    def test_an_address_without_a_port_means_rpc_port(self) -> None:
        config = parse("rpc_port=4000\nservers=127.0.0.1, 127.0.0.2:5000, [::1]")
        self.assertEqual(config.server_id, "127.0.0.1:4000")
        self.assertEqual(config.servers, ("127.0.0.1:4000", "127.0.0.2:5000", "[::1]:4000"))

    def test_the_rpc_port_is_bound_on_the_servers_own_address_only(self) -> None:
        self.assertEqual(parse("interface=127.0.0.3").rpc_bind_ip, "127.0.0.3")
        self.assertEqual(parse("rpc_bind_ip=0.0.0.0").rpc_bind_ip, "0.0.0.0")

    def test_a_list_without_this_server_is_refused(self) -> None:
        self.assertEqual(
            problems_of("\nservers=10.0.0.1,10.0.0.2"),
            [
                "raft.conf:2: servers: this server, 127.0.0.1:29922, is not among 10.0.0.1:29922, 10.0.0.2:29922",
            ],
        )

    def test_a_server_that_stands_in_the_list_twice_is_refused(self) -> None:
        self.assertEqual(
            problems_of("servers=127.0.0.1,127.0.0.1:29922"),
            ["raft.conf:1: servers: 127.0.0.1:29922 stands there more than once"],
        )

    def test_bad_addresses_are_refused(self) -> None:
        for line in ("servers=127.0.0.1,10.0.0.1:99999", "interface=no.such.host.invalid", "rpc_bind_ip=eth0"):
            found = problems_of(line)
            self.assertEqual(len(found), 1, found)
            self.assertTrue(found[0].startswith(f"raft.conf:1: {line.partition('=')[0]}: "), found)

    def test_a_server_that_has_moved_keeps_its_id(self) -> None:
        config = parse("interface=127.0.0.2\nrpc_port=1234\nserver_id=Old.Example\nservers=old.example,127.0.0.3")
        self.assertEqual((config.server_id, config.interface, config.rpc_port), ("old.example:1234", "127.0.0.2", 1234))
        self.assertEqual(problems_of("server_id=a b")[0][:22], "raft.conf:1: server_id")

    def test_a_server_without_servers_waits_to_be_added_and_knows_no_cluster(self) -> None:
        config = parse("")
        self.assertEqual((config.servers, config.cluster_id), ((), ""))

    def test_the_cluster_id_does_not_depend_on_the_order_of_the_list(self) -> None:
        self.assertEqual(cluster_id_of("x", ["a:1", "b:2"]), cluster_id_of("x", ["b:2", "a:1"]))
        self.assertRegex(cluster_id_of("x", ["a:1"]), r"^[0-9a-f]{32}$")

    def test_clusters_of_other_names_or_members_have_other_ids(self) -> None:
        ids = {cluster_id_of("x", ["a:1"]), cluster_id_of("y", ["a:1"]), cluster_id_of("x", ["a:1", "b:1"])}
        self.assertEqual(len(ids), 3)


class PathTests(SynchronousTestCase):
    def test_relative_paths_start_at_the_file_not_at_the_current_directory(self) -> None:
        config = parse("data_dir=here/data\nlog_file=log/raft.log")
        self.assertEqual(config.data_dir, "/etc/raft/here/data")
        self.assertEqual(config.log_file, "/etc/raft/here/data/log/raft.log")
        self.assertEqual(config.core_map_file, "/etc/raft/here/data/raft.state")

    def test_absolute_paths_stay(self) -> None:
        config = parse("data_dir=/var/x\nlog_file=/fast/raft.log")
        self.assertEqual((config.data_dir, config.log_file), ("/var/x", "/fast/raft.log"))

    def test_a_file_that_cannot_be_read_is_one_clear_line(self) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            load_config("/no/such/raft.conf")
        self.assertEqual(
            [str(error) for error in caught.value.exceptions],
            ["/no/such/raft.conf: cannot be read: No such file or directory"],
        )

    def test_a_file_that_is_not_text_is_one_clear_line(self) -> None:
        with tempfile.NamedTemporaryFile() as file, pytest.raises(ExceptionGroup) as caught:
            pathlib.Path(file.name).write_bytes(b"rpc_port=1\n\xff\n")
            load_config(file.name)
        self.assertEqual([error.problem for error in caught.value.exceptions], ["cannot be read: not UTF-8 at byte 11"])


class MachineOptionTests(SynchronousTestCase):
    def test_keys_with_the_machines_prefix_go_to_the_machine_whole(self) -> None:
        config = parse("state_machine=counter\ncounter_port=1\ncounter_x=y")
        self.assertEqual(config.machine_options, {"counter_port": "1", "counter_x": "y"})

    def test_another_machines_keys_are_unknown(self) -> None:
        self.assertEqual(problems_of("state_machine=counter\nkv_zone=1"), ["raft.conf:2: unknown key kv_zone"])

    def test_the_prefix_is_the_name_that_the_plugin_says(self) -> None:
        config = parse_config("state_machine=a.b:c\nacme_x=1", "raft.conf", (), lambda wanted: "acme")
        self.assertEqual(config.machine_options, {"acme_x": "1"})

    def test_an_unknown_machine_is_blamed_on_its_line(self) -> None:
        def refuse(wanted: str) -> str:
            raise ConfigError(f"no {wanted}")

        with pytest.raises(ExceptionGroup) as caught:
            parse_config("\nstate_machine=abc\nabc_x=1", "raft.conf", (), refuse)
        self.assertEqual([str(error) for error in caught.value.exceptions], ["raft.conf:2: no abc"])

    def test_nobody_knows_the_keys_of_an_unknown_machine(self) -> None:
        def refuse(wanted: str) -> str:
            raise ConfigError(f"no {wanted}")

        with pytest.raises(ExceptionGroup) as caught:
            parse_config("kv_port=1\nstate_machine=a.b:c", "raft.conf", (), refuse)
        self.assertEqual([str(error) for error in caught.value.exceptions], ["raft.conf:2: no a.b:c"])

    def test_a_plugins_error_gets_the_line_of_the_key_that_it_names(self) -> None:
        config = parse("state_machine=kv\nkv_prt=1\nkv_port=2")
        located = config.located(ConfigError("unknown key kv_prt; did you mean kv_port?"))
        self.assertEqual(str(located), "/etc/raft/raft.conf:2: unknown key kv_prt; did you mean kv_port?")
        self.assertEqual(config.located(ConfigError("no")).where, "/etc/raft/raft.conf:1")


class ReferenceTests(SynchronousTestCase):
    def test_the_shipped_file_is_what_the_table_says(self) -> None:
        self.assertEqual((ROOT / "raft.conf").read_text(), render_reference())

    def test_the_shipped_file_is_a_cluster_of_one_with_all_defaults(self) -> None:
        shipped = load_config(os.fspath(ROOT / "raft.conf"))
        self.assertEqual(shipped.servers, (shipped.server_id,))
        self.assertEqual(set(shipped.places), {"servers"})

    def test_every_key_stands_in_it_with_its_default_and_a_comment(self) -> None:
        lines = render_reference({}).splitlines()
        defaults = {name: key.default for name, key in KEYS.items()}
        defaults |= {name: field.metadata["default"] for name, field in OPTIONS.items()}
        for name, default in defaults.items():
            at = lines.index(f"#{name}={default or ''}")
            self.assertTrue(lines[at - 1].startswith("# "), name)

    def test_every_default_is_a_value_that_its_own_key_takes(self) -> None:
        text = "\n".join(f"{name}={key.default}" for name, key in KEYS.items() if key.default is not None)
        self.assertEqual(attributes(parse(text)), attributes(parse("")))


def attributes(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in KEYS}
