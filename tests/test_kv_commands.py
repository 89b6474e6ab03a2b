"""Redis commands, one at a time, answered as Redis 7 answers them; and the plain lines of the original."""

from __future__ import annotations

from kv_support import Client, LocalNode, Server
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import ConfigError, NotLeader, OutcomeUnknown, Overloaded, Stopped, StorageError
from txraft.machines import kv_encoding as encoding
from txraft.machines.kv import KeyValueMachine
from txraft.machines.kv_encoding import Op
from txraft.machines.kv_local import Limits
from txraft.machines.kv_options import OPTIONS, parse_options
from txraft.machines.kv_plugin import KeyValuePlugin
from txraft.machines.kv_service import KeyValueService

NOT_AN_INTEGER = b"-ERR value is not an integer or out of range\r\n"
SYNTAX_ERROR = b"-ERR syntax error\r\n"
MANY_ARGUMENTS = b"-ERR unknown command 'x', with args beginning with: " + b"'a' " * 32 + b"\r\n"


def wrong_arity(name: str) -> bytes:
    return b"-ERR wrong number of arguments for '%b' command\r\n" % name.encode()


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client: Client = Server().connect()

    def check(self, *rows: tuple[str, bytes]) -> None:
        """Each row is a request, its arguments parted by spaces, and the reply."""
        for request, reply in rows:
            self.assertEqual(self.client.ask(*request.split(" ")), reply, request)

    def test_set_and_get(self) -> None:
        self.check(
            ("GET k", b"$-1\r\n"),
            ("SET k v", b"+OK\r\n"),
            ("GET k", b"$1\r\nv\r\n"),
            ("SET k ", b"+OK\r\n"),
            ("GET k", b"$0\r\n\r\n"),
            ("set k x NX", b"$-1\r\n"),
            ("set k x xx", b"+OK\r\n"),
            ("sEt k y GeT", b"$1\r\nx\r\n"),
            ("SET new y GET", b"$-1\r\n"),
            ("SET new z NX GET", b"$1\r\ny\r\n"),
            ("GET new", b"$1\r\ny\r\n"),
            ("SET k v NX XX", SYNTAX_ERROR),
            ("SET k v what", SYNTAX_ERROR),
            ("SET k v EX 10", b"-ERR unsupported option EX: keys do not expire here\r\n"),
            ("SET k v KEEPTTL", b"-ERR unsupported option KEEPTTL: keys do not expire here\r\n"),
            ("SETNX k v", b":0\r\n"),
            ("SETNX fresh v", b":1\r\n"),
        )

    def test_numbers(self) -> None:
        self.check(
            ("INCR n", b":1\r\n"),
            ("INCRBY n 41", b":42\r\n"),
            ("DECR n", b":41\r\n"),
            ("DECRBY n -1", b":42\r\n"),
            ("GET n", b"$2\r\n42\r\n"),
            ("INCRBY n 1.5", NOT_AN_INTEGER),
            ("INCRBY n 9223372036854775808", NOT_AN_INTEGER),
            ("INCRBY n 9223372036854775807", b"-ERR increment or decrement would overflow\r\n"),
            ("DECRBY n -9223372036854775808", b"-ERR decrement would overflow\r\n"),
            ("SET s text", b"+OK\r\n"),
            ("INCR s", NOT_AN_INTEGER),
            ("GET n", b"$2\r\n42\r\n"),
        )

    def test_strings(self) -> None:
        self.check(
            ("APPEND a one", b":3\r\n"),
            ("APPEND a two", b":6\r\n"),
            ("STRLEN a", b":6\r\n"),
            ("STRLEN none", b":0\r\n"),
            ("TYPE a", b"+string\r\n"),
            ("TYPE none", b"+none\r\n"),
        )

    def test_several_keys(self) -> None:
        self.check(
            ("MSET a 1 b 2", b"+OK\r\n"),
            ("MGET a none b", b"*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n"),
            ("EXISTS a a none", b":2\r\n"),
            ("DBSIZE", b":2\r\n"),
            ("DEL a b none", b":2\r\n"),
            ("MSET a 1 b", wrong_arity("mset")),
            ("SET a 1", b"+OK\r\n"),
            ("FLUSHDB async", b"+OK\r\n"),
            ("FLUSHDB now", SYNTAX_ERROR),
            ("DBSIZE", b":0\r\n"),
        )

    def test_keys_and_scan(self) -> None:
        self.check(
            ("MSET a1 x", b"+OK\r\n"),
            ("KEYS a*", b"*1\r\n$2\r\na1\r\n"),
            ("KEYS b*", b"*0\r\n"),
            ("SCAN 0", b"*2\r\n$1\r\n0\r\n*1\r\n$2\r\na1\r\n"),
            ("SCAN 0 MATCH b* COUNT 5", b"*2\r\n$1\r\n0\r\n*0\r\n"),
            ("SCAN 0 TYPE String", b"*2\r\n$1\r\n0\r\n*1\r\n$2\r\na1\r\n"),
            ("SCAN 0 TYPE list", b"*2\r\n$1\r\n0\r\n*0\r\n"),
            ("SCAN x", b"-ERR invalid cursor\r\n"),
            ("SCAN -1", b"-ERR invalid cursor\r\n"),
            ("SCAN 18446744073709551616", b"-ERR invalid cursor\r\n"),
            ("SCAN 0 COUNT 0", SYNTAX_ERROR),
            ("SCAN 0 COUNT x", NOT_AN_INTEGER),
            ("SCAN 0 COUNT", SYNTAX_ERROR),
            ("SCAN 0 WHAT 1", SYNTAX_ERROR),
            (f"KEYS {'?' * 1025}", b"-ERR pattern is longer than 1024 bytes\r\n"),
        )

    def test_talk_about_the_connection(self) -> None:
        self.check(
            ("PING", b"+PONG\r\n"),
            ("PING text", b"$4\r\ntext\r\n"),
            ("PING a b", wrong_arity("ping")),
            ("ECHO text", b"$4\r\ntext\r\n"),
            ("SELECT 0", b"+OK\r\n"),
            ("SELECT 1", b"-ERR DB index is out of range\r\n"),
            ("SELECT x", NOT_AN_INTEGER),
            ("CLIENT ID", b":1\r\n"),
            ("CLIENT GETNAME", b"$-1\r\n"),
            ("CLIENT SETNAME me", b"+OK\r\n"),
            ("CLIENT GETNAME", b"$2\r\nme\r\n"),
            ("CLIENT SETNAME a\nb", b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"),
            ("CLIENT SETINFO lib-name test", b"+OK\r\n"),
            ("CLIENT SETINFO lib-what test", b"-ERR Unrecognized option 'lib-what'\r\n"),
            ("CLIENT SETNAME", wrong_arity("client|setname")),
            ("CLIENT what", b"-ERR unknown subcommand 'what'. Try CLIENT HELP.\r\n"),
            ("COMMAND COUNT", b":26\r\n"),
        )
        self.assertIn(b"id=1 addr=: name=me db=0 resp=2 lib-name=test", self.client.ask("CLIENT", "LIST"))

    def test_command_describes_the_table(self) -> None:
        described = b"*10\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n"
        self.assertEqual(self.client.ask("COMMAND", "INFO", "get", "none"), b"*2\r\n" + described + b"$-1\r\n")
        self.assertIn(described, self.client.ask("COMMAND"))
        self.assertTrue(self.client.ask("COMMAND", "DOCS", "get").startswith(b"*2\r\n$3\r\nget\r\n*2\r\n"))

    def test_unknown_commands_and_wrong_numbers_of_arguments(self) -> None:
        self.check(
            ("foo a b", b"-ERR unknown command 'foo', with args beginning with: 'a' 'b' \r\n"),
            ("foo", b"-ERR unknown command 'foo', with args beginning with: \r\n"),
            ("x" + " a" * 100, MANY_ARGUMENTS),
            ("GET", wrong_arity("get")),
            ("GET a b", wrong_arity("get")),
            ("SET a", wrong_arity("set")),
            ("DEL", wrong_arity("del")),
            ("DBSIZE x", wrong_arity("dbsize")),
        )
        self.assertEqual(
            self.client.ask(b"a\r\n+OK\0b", b"\r\n"),
            b"-ERR unknown command 'a  +OK', with args beginning with: '  ' \r\n",
        )

    def test_hello_chooses_the_dialect(self) -> None:
        self.check(("HELLO 4", b"-NOPROTO unsupported protocol version\r\n"), ("GET x", b"$-1\r\n"))
        self.check(("HELLO 3 SETNAME a\tb", self.client.ask("CLIENT", "SETNAME", "\t")), ("GET x", b"$-1\r\n"))
        self.assertTrue(self.client.ask("HELLO", "2").startswith(b"*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n"))
        self.assertTrue(self.client.ask("HELLO", "3", "SETNAME", "me").startswith(b"%7\r\n$6\r\nserver\r\n"))
        self.check(
            ("GET x", b"_\r\n"),
            ("MGET x", b"*1\r\n_\r\n"),
            ("CLIENT GETNAME", b"$2\r\nme\r\n"),
            ("HELLO x", b"-ERR Protocol version is not an integer or out of range\r\n"),
            ("HELLO 2 AUTH default x", b"-WRONGPASS no users and passwords are configured here\r\n"),
            ("HELLO 2 WHAT", SYNTAX_ERROR),
        )

    def test_info_names_the_role_that_redis_would(self) -> None:
        server = Server()
        client = server.connect()
        client.ask("SET", "a", "1")
        self.assertIn(b"\r\nrole:master\r\n", b"\r\n" + client.ask("INFO", "replication"))
        server.node.role = "candidate"
        everything = client.ask("INFO")
        for line in (b"role:slave", b"raft_role:candidate", b"redis_version:7.0.0", b"db0:keys=1,expires=0,avg_ttl=0"):
            self.assertIn(b"\r\n" + line + b"\r\n", everything)
        self.assertNotIn(b"role:", client.ask("INFO", "keyspace"))

    def test_what_is_too_long_is_refused_by_name_and_the_rest_goes_on(self) -> None:
        client = Server(limits=Limits(3, 4)).connect()
        key = b"-ERR key is longer than kv_max_key_bytes = 3\r\n"
        value = b"-ERR value is longer than kv_max_value_bytes = 4\r\n"
        for request, reply in [
            ("SET abc 1234", b"+OK\r\n"),
            ("SET abcd 1", key),
            ("SET abc 12345", value),
            ("SETNX abc 12345", value),
            ("MSET a 1 b 12345", value),
            ("MSET a 1 abcd 1", key),
            ("GET abcd", key),
            ("DEL a abcd", key),
            ("INCR abcd", key),
            ("APPEND abc 12345", value),
            ("APPEND abc 5", b"-ERR string exceeds maximum allowed size (kv_max_value_bytes)\r\n"),
            ("GET abc", b"$4\r\n1234\r\n"),
        ]:
            self.assertEqual(client.ask(*request.split(" ")), reply, request)
        self.assertEqual(client.send(b"set abcd 1\r\n"), b"ERROR key is longer than kv_max_key_bytes = 3\r\n")
        self.assertEqual(client.send(b"set abc 12345\r\n"), b"ERROR value is longer than kv_max_value_bytes = 4\r\n")


class LineTests(SynchronousTestCase):
    """The original's dialect; original 5: a value is what the line says, and no line diverges."""

    def test_the_replies_are_the_original_ones(self) -> None:
        client = Server().connect()
        for line, reply in [
            (b"get k\r\n", b"OK null\r\n"),
            (b"set k v\r\n", b"OK null\r\n"),
            (b"set k  two  words \n", b"OK v\r\n"),
            (b"get k\n", b"OK  two  words \r\n"),
            (b"set k \r\n", b"OK  two  words \r\n"),
            (b"get k\r\n", b"OK \r\n"),
            (b"set e\xff\x00 \xfe*1\r\n", b"OK null\r\n"),
            (b"get e\xff\x00\r\n", b"OK \xfe*1\r\n"),
            (b"del k\r\n", b"OK \r\n"),
            (b"del k\r\n", b"OK \r\n"),
            (b"get k\r\n", b"OK null\r\n"),
        ]:
            self.assertEqual(client.send(line), reply, line)

    def test_a_line_that_is_no_request_is_invalid_and_harmless(self) -> None:
        server = Server()
        client = server.connect()
        for line in [
            b"",
            b"get",
            b"get ",
            b"get a b",
            b"del a b",
            b"set",
            b"set k",
            b"set  v",
            b"PING",
            b"GET k",
            b" get k",
        ]:
            self.assertEqual(client.send(line + b"\r\n"), b"INVALID_FOMRAT\r\n", line)
        self.assertEqual(server.node.asked, [])


class FailureTests(SynchronousTestCase):
    def test_each_failure_of_the_node_has_its_reply_in_each_dialect(self) -> None:
        for error, resp_reply, line_reply in [
            (NotLeader("b", "b:8877"), b"-MOVED 0 b:8877\r\n", b"NOT_LEADER b:8877\r\n"),
            (NotLeader("b", "[fd00::1]:8877"), b"-MOVED 0 fd00::1:8877\r\n", b"NOT_LEADER [fd00::1]:8877\r\n"),
            (
                NotLeader("b"),
                b"-CLUSTERDOWN not the leader; it is b, at no address known here\r\n",
                b"NOT_LEADER \r\n",
            ),
            (
                NotLeader(None),
                b"-CLUSTERDOWN not the leader, and none is known\r\n",
                b"NOT_LEADER \r\n",
            ),
            (
                OutcomeUnknown(7, "line\r\nbreak"),
                b"-ERR outcome of entry 7 unknown: line break; the write may still be carried out\r\n",
                b"ERROR outcome of entry 7 unknown: line break; the write may still be carried out\r\n",
            ),
            (
                Overloaded("max_x", 5),
                b"-BUSY overloaded: max_x = 5 reached\r\n",
                b"ERROR overloaded: max_x = 5 reached\r\n",
            ),
            (Stopped(), b"-CLUSTERDOWN this server is stopping\r\n", b"ERROR this server is stopping\r\n"),
            (StorageError("disk"), b"-CLUSTERDOWN disk\r\n", b"ERROR disk\r\n"),
        ]:
            server = Server()
            server.node.refusal = error
            client = server.connect()
            for request in [("SET", "k", "v"), ("GET", "k")]:
                self.assertEqual(client.ask(*request), resp_reply)
            for line in [b"set k v\n", b"get k\n", b"del k\n"]:
                self.assertEqual(client.send(line), line_reply)
            self.assertEqual(client.ask("PING"), b"+PONG\r\n")

    def test_a_failure_that_nobody_foresaw_is_logged_and_answered(self) -> None:
        server = Server()
        server.node.refusal = RuntimeError("secret")
        self.assertEqual(server.connect().ask("GET", "k"), b"-ERR internal error\r\n")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class OptionTests(SynchronousTestCase):
    def refusal(self, **options: str) -> str:
        return str(self.assertRaises(ConfigError, parse_options, options))

    def test_the_defaults_are_a_port_on_loopback(self) -> None:
        options = parse_options({})
        self.assertEqual(options.endpoint, "tcp:8877:interface=127.0.0.1")
        self.assertEqual(options.client_address, "127.0.0.1:8877")

    def test_an_ipv6_interface_is_quoted(self) -> None:
        options = parse_options({"kv_interface": "::1"})
        self.assertEqual(options.endpoint, "tcp:8877:interface=\\:\\:1")
        self.assertEqual(options.client_address, "[::1]:8877")

    def test_an_unknown_key_is_refused_with_the_nearest(self) -> None:
        self.assertEqual(self.refusal(kv_prot="1"), "unknown key kv_prot; did you mean kv_port?")

    def test_a_bad_value_is_refused_with_its_key(self) -> None:
        for name in sorted(OPTIONS):
            self.assertIn(f"{name}: expected ", self.refusal(**{name: "too much"}))
        self.assertIn("kv_address: expected host:port", self.refusal(kv_address="db1"))
        self.assertIn("kv_port: ", self.refusal(kv_port="0"))

    def test_listening_everywhere_needs_an_address_to_tell(self) -> None:
        self.assertIn("kv_address must say", self.refusal(kv_interface="0.0.0.0"))
        options = parse_options({"kv_interface": "0.0.0.0", "kv_address": "db1:8877"})
        self.assertEqual(options.client_address, "db1:8877")

    def test_an_interface_is_listened_at_by_its_address(self) -> None:
        self.assertEqual(parse_options({"kv_interface": "lo"}).client_address, "127.0.0.1:8877")

    def test_a_key_and_a_value_of_the_longest_must_fit_into_a_command(self) -> None:
        fits = parse_options({"kv_max_key_bytes": "1000", "kv_max_value_bytes": "9000"})
        longest = encoding.pack_fields(Op.SET_MANY, [bytes(1000), bytes(9000)])
        fits.check_fits(len(longest))
        error = self.assertRaises(ConfigError, fits.check_fits, len(longest) - 1)
        self.assertIn("max_command_bytes = 10008", str(error))

    def test_the_plugin_refuses_limits_above_the_nodes(self) -> None:
        plugin = KeyValuePlugin()
        machine = KeyValueMachine()
        node = LocalNode(machine, max_command_bytes=1000)
        self.assertRaises(ConfigError, plugin.service, node, machine, {})

    def test_the_plugin_refuses_bad_options_when_it_builds(self) -> None:
        plugin = KeyValuePlugin()
        self.assertRaises(ConfigError, plugin.build, {"kv_what": "1"})
        machine = plugin.build({})
        self.assertIsInstance(machine, KeyValueMachine)
        self.assertIsInstance(plugin.service(LocalNode(machine), machine, {}), KeyValueService)
