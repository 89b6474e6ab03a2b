"""Keys of the ssh manhole, and lines without a terminal. Sessions with a real client are in test_manhole_processes."""

from __future__ import annotations

import os
import pathlib
import stat
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from manhole_support import as_told, leading, log_texts, password_file
from twisted.conch.error import ConchError, ValidPublicKey
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession
from twisted.cred.credentials import ISSHPrivateKey, SSHPrivateKey
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import execute, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.admin.manhole.conversation import User
from txraft.admin.manhole.keys import KeyChecker, make_host_key, read_authorized_keys, read_host_key
from txraft.admin.manhole.plain import MAX_WAITING_BYTES, PlainLines
from txraft.admin.manhole.service import Manhole
from txraft.admin.manhole.ssh import LOGIN_S, MAX_SESSIONS, ManholeUser, SSHFactory, Surroundings
from txraft.admin.manhole.verbs import Verbs
from txraft.admin.operations import Operations
from txraft.errors import ConfigError


def new_key() -> Key:
    return Key(Ed25519PrivateKey.generate())


def public_line(key: Key, comment: str = "") -> str:
    return key.public().toString("openssh", comment=comment.encode()).decode()


def written(directory: pathlib.Path, text: str, mode: int = 0o600) -> str:
    path = directory / "keys"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


class TestHostKey:
    def test_it_is_made_once_for_its_owner_only(self, tmp_path):
        path = str(tmp_path / "manhole.key")
        assert read_host_key(path) is None
        made = make_host_key(path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert read_host_key(path) == made
        assert os.listdir(tmp_path) == ["manhole.key"]

    def test_one_that_is_there_is_never_replaced(self, tmp_path):
        path = str(tmp_path / "manhole.key")
        made = make_host_key(path)
        with pytest.raises(FileExistsError):
            make_host_key(path)
        assert read_host_key(path) == made
        assert os.listdir(tmp_path) == ["manhole.key"]

    @pytest.mark.parametrize(
        ("content", "mode", "words"),
        [
            (lambda: new_key().toString("openssh").decode(), 0o640, "must not be read or written by others: chmod 600"),
            (lambda: public_line(new_key()), 0o600, "is a public key; the private one is needed"),
            (lambda: "nonsense", 0o600, "is no private key without a passphrase"),
            (lambda: "", 0o600, "is no private key without a passphrase"),
            (
                lambda: new_key().toString("openssh", passphrase="x").decode(),
                0o600,
                "is no private key without a passphrase",
            ),
        ],
    )
    def test_one_that_cannot_be_used_is_refused(self, tmp_path, content, mode, words):
        path = written(tmp_path, content(), mode)
        with pytest.raises(ConfigError, match=words) as caught:
            read_host_key(path)
        assert caught.value.problem.startswith(f"manhole_host_key: {path} ")


class TestAuthorizedKeys:
    def test_the_comment_says_whose_key_it_is_and_else_its_fingerprint(self, tmp_path):
        alice, other = new_key(), new_key()
        path = written(tmp_path, f"# people\n\n{public_line(alice, 'alice at home')}\n{public_line(other)}\n", 0o644)
        found = read_authorized_keys(path)
        assert [each.owner for each in found] == ["alice at home", other.fingerprint()]
        assert [each.key for each in found] == [alice.public(), other.public()]

    @pytest.mark.parametrize(
        ("text", "mode", "words"),
        [
            ("", 0o600, "has no key"),
            ("ssh-ed25519 nonsense", 0o600, "line 1: expected a public key"),
            ("# x\nnonsense", 0o600, "line 2: expected a public key"),
            # Ignored, it would let in more than it says.
            (f'from="10.0.0.1" {public_line(new_key())}', 0o600, "options before it are not supported"),
            (public_line(new_key()), 0o622, "must not be written by others: chmod 644"),
        ],
        # Not the keys: they are others in each process, and pytest-xdist compares the names.
        ids=["empty", "no key", "no key on line 2", "options", "others may write"],
    )
    def test_a_file_that_cannot_be_used_is_refused(self, tmp_path, text, mode, words):
        with pytest.raises(ConfigError, match=words) as caught:
            read_authorized_keys(written(tmp_path, text, mode))
        assert caught.value.problem.startswith("manhole_authorized_keys: ")


class TestKeyChecker:
    @pytest.fixture
    def key(self) -> Key:
        return new_key()

    @pytest.fixture
    def path(self, tmp_path, key) -> str:
        return written(tmp_path, public_line(key, "alice"))

    def outcome(self, checker: KeyChecker, key: Key, signature: bytes | None) -> Any:
        credentials = SSHPrivateKey(b"anybody", b"ssh-ed25519", key.public().blob(), b"data", signature)
        found: list[Any] = []
        checker.requestAvatarId(credentials).addCallbacks(found.append, lambda f: found.append(f.value))
        return found[0]

    def test_who_signs_with_a_key_is_its_owner_whatever_name_is_given(self, path, key):
        assert self.outcome(KeyChecker(path), key, key.sign(b"data")) == b"alice"

    def test_an_authorized_key_is_worth_a_signature_and_another_is_not(self, path, key):
        assert isinstance(self.outcome(KeyChecker(path), key, None), ValidPublicKey)
        assert isinstance(self.outcome(KeyChecker(path), new_key(), None), UnauthorizedLogin)

    def test_another_key_a_forged_signature_and_garbage_are_refused(self, path, key):
        other = new_key()
        for found in (
            self.outcome(KeyChecker(path), other, other.sign(b"data")),
            self.outcome(KeyChecker(path), key, other.sign(b"data")),
            self.outcome(KeyChecker(path), key, key.sign(b"other data")),
            self.outcome(KeyChecker(path), key, b"\x00\x00\x00\xffgarbage"),
            self.outcome(KeyChecker(path), key, b"x"),
        ):
            assert isinstance(found, UnauthorizedLogin), found

    def test_a_key_that_is_struck_out_of_the_file_is_out(self, tmp_path, path, key):
        checker = KeyChecker(path)
        assert self.outcome(checker, key, key.sign(b"data")) == b"alice"
        written(tmp_path, public_line(new_key(), "bob"))
        assert isinstance(self.outcome(checker, key, key.sign(b"data")), UnauthorizedLogin)

    def test_a_file_that_others_may_write_by_now_lets_nobody_in(self, path, key):
        os.chmod(path, 0o666)
        with log_texts() as texts:
            assert isinstance(self.outcome(KeyChecker(path), key, key.sign(b"data")), UnauthorizedLogin)
        assert any("nobody can log in" in text for text in texts)


class TestLines:
    """Lines on standard input, or as the command of ssh."""

    def setup_method(self) -> None:
        self.cluster = leading(size=1, passive=2, absent=("s3",))
        verbs = Verbs(Operations(self.cluster.leader(), read_server_id=as_told, seconds=self.cluster.clock.seconds))
        self.shown = b""
        self.ended: list[int] = []
        user = User("alice", "ssh", "127.0.0.1:1")
        self.lines = PlainLines(user, verbs, self.cluster.clock, self.show, self.ended.append)

    def show(self, data: bytes) -> None:
        self.shown += data

    def test_each_line_is_carried_out_when_the_one_before_has_ended(self):
        self.lines.receive(b"add_server s2\nmembers\n")
        self.lines.finish()
        assert self.shown == b""
        assert self.cluster.run_until(lambda: bool(self.ended), 5)
        assert self.shown.count(b"s2      voter") == 2
        assert self.ended == [0]

    def test_a_last_line_needs_no_newline_and_others_may_end_in_crlf(self):
        self.lines.receive(b"wh")
        self.lines.receive(b"y\r\nwhy")
        self.lines.finish()
        assert (self.shown, self.ended) == (b"It waits for nothing.\n" * 2, [0])

    def test_the_status_is_1_if_something_was_not_done(self):
        self.lines.receive(b"remove_server s1\nwhy\n")
        self.lines.finish()
        assert self.cluster.run_until(lambda: bool(self.ended), 5)
        assert b"No voter would be left" in self.shown
        assert self.shown.endswith(b"It waits for nothing.\n")
        assert self.ended == [1]

    def test_progress_is_shown_while_it_waits(self):
        self.lines.receive(b"add_server s3")
        self.lines.finish()
        assert self.cluster.run_until(lambda: bool(self.ended), 30)
        assert b"s3 catches up: round 1" in self.shown and b"3 could not catch up" in self.shown
        assert self.ended == [1]

    def test_nothing_ends_before_standard_input_does_unless_it_says_quit(self):
        self.lines.receive(b"why\n")
        assert self.ended == []
        self.lines.receive(b"quit\nwhy\n")
        assert (self.shown, self.ended) == (b"It waits for nothing.\n", [0])

    def test_many_lines_at_once_are_no_deep_recursion(self):
        self.lines.receive(b"\n" * 20_000)
        self.lines.finish()
        assert self.ended == [0]

    def test_too_much_at_a_time_is_refused(self):
        self.lines.receive(b"add_server s3\n")
        self.lines.receive(b"x" * (MAX_WAITING_BYTES + 1))
        assert b"that is too much at a time" in self.shown
        assert self.cluster.run_until(lambda: bool(self.ended), 30)
        assert self.ended == [1]

    def test_who_goes_is_shown_nothing_more_and_what_waits_is_forgotten(self):
        self.lines.receive(b"add_server s2\nremove_server s2\n")
        self.lines.close()
        self.lines.finish()
        self.cluster.run(5)
        assert (self.shown, self.ended) == (b"", [])
        assert self.cluster.leader().raft.membership.voters == ("s1", "s2")


class TestConnections:
    """One client's connection, as far as it comes before a real client is needed."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def factory(self, tmp_path, clock) -> SSHFactory:
        key = new_key()
        surroundings = Surroundings(Verbs(Operations(leading(size=1).leader())), lambda user: None, clock)
        factory = SSHFactory(key, written(tmp_path, public_line(key)), surroundings)
        factory.doStart()
        return factory

    def test_who_does_not_log_in_is_cut_off_even_if_it_says_nothing(self, factory, clock):
        transport = StringTransport()
        factory.buildProtocol(None).makeConnection(transport)
        clock.advance(LOGIN_S - 1)
        assert not transport.disconnecting
        clock.advance(1)
        assert transport.disconnecting

    def test_who_has_logged_in_is_not_and_who_is_gone_leaves_nothing_behind(self, factory, clock):
        transport = StringTransport()
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.avatar = "somebody"
        clock.advance(LOGIN_S)
        assert not transport.disconnecting
        del protocol.avatar
        protocol.connectionLost(Failure(ConnectionDone()))
        other = factory.buildProtocol(None)
        other.makeConnection(StringTransport())
        other.connectionLost(Failure(ConnectionDone()))
        assert clock.getDelayedCalls() == []

    def test_keys_are_the_only_way_in(self, factory):
        assert list(factory.portal.listCredentialsInterfaces()) == [ISSHPrivateKey]

    def test_no_weak_cipher_is_offered(self, factory):
        protocol = factory.buildProtocol(None)
        assert b"aes256-ctr" in protocol.supportedCiphers and b"hmac-sha2-256" in protocol.supportedMACs
        offered = [*protocol.supportedCiphers, *protocol.supportedMACs]
        assert not [name for name in offered if b"cbc" in name or b"3des" in name or b"md5" in name or b"sha1" in name]

    def test_a_user_has_sessions_and_only_so_many_of_them(self, factory):
        user = ManholeUser("alice", Surroundings(None, None, None))
        user.conn = type("Connection", (), {"channels": {}})()
        assert isinstance(user.lookupChannel(b"session", 1, 1, b""), SSHSession)
        with pytest.raises(ConchError, match="unknown channel"):
            user.lookupChannel(b"direct-tcpip", 1, 1, b"")
        user.conn.channels = dict.fromkeys(range(MAX_SESSIONS))
        with pytest.raises(ConchError, match="too many sessions"):
            user.lookupChannel(b"session", 1, 1, b"")
        assert user.lookupSubsystem(b"sftp", b"") is None


@implementer(IStreamServerEndpoint)
class Port:
    """An endpoint that remembers what it serves."""

    def __init__(self) -> None:
        self.factory: Any = None
        self.is_open = False

    def listen(self, protocolFactory: Any) -> Any:
        self.factory, self.is_open = protocolFactory, True
        return succeed(self)

    def stopListening(self) -> None:
        self.is_open = False


class TestService:
    def test_a_port_has_so_many_connections_and_the_end_closes_them(self, tmp_path):
        cluster, port = leading(size=1), Port()
        manhole = Manhole(Operations(cluster.leader()), cluster.clock, "admin", max_connections=2)
        service = manhole.by_telnet(port, password_file(tmp_path), execute)
        service.startService()
        transports = [StringTransport() for _ in range(2)]
        protocols = [port.factory.buildProtocol(None) for _ in transports]
        for protocol, transport in zip(protocols, transports, strict=True):
            protocol.makeConnection(transport)
        assert port.factory.buildProtocol(None) is None
        protocols[0].connectionLost(Failure(ConnectionDone()))
        assert port.factory.buildProtocol(None) is not None
        ended: list[object] = []
        service.stopService().addCallback(ended.append)
        assert (port.is_open, transports[1].disconnecting, ended) == (False, True, [])
        protocols[1].connectionLost(Failure(ConnectionDone()))
        assert len(ended) == 1

    def test_the_host_key_is_made_as_the_service_starts_and_kept(self, tmp_path):
        cluster, path = leading(size=1), str(tmp_path / "manhole.key")
        keys = written(tmp_path, public_line(new_key()))
        manhole = Manhole(Operations(cluster.leader()), cluster.clock, "admin", max_connections=2)
        made = []
        for _ in range(2):
            service = manhole.by_ssh(Port(), path, keys)
            made.append(read_host_key(path))
            service.startService()
        assert made == [None, read_host_key(path)]
