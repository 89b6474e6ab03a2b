"""Keys of the ssh manhole, and lines without a terminal. Sessions with a real client are in test_manhole_processes."""

from __future__ import annotations

import os
import pathlib
import stat
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from manhole_support import as_told, leading, log_texts
from twisted.conch.error import ValidPublicKey
from twisted.conch.ssh.keys import Key
from twisted.cred.credentials import SSHPrivateKey
from twisted.cred.error import UnauthorizedLogin

from txraft.admin.manhole.conversation import User
from txraft.admin.manhole.keys import KeyChecker, make_host_key, read_authorized_keys, read_host_key
from txraft.admin.manhole.plain import MAX_WAITING_BYTES, PlainLines
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

    def outcome(self, path: str, key: Key, signature: bytes | None) -> Any:
        credentials = SSHPrivateKey(b"anybody", b"ssh-ed25519", key.public().blob(), b"data", signature)
        found: list[Any] = []
        KeyChecker(path).requestAvatarId(credentials).addCallbacks(found.append, lambda f: found.append(f.value))
        return found[0]

    def test_who_signs_with_a_key_is_its_owner_whatever_name_is_given(self, path, key):
        assert self.outcome(path, key, key.sign(b"data")) == b"alice"

    def test_an_authorized_key_is_worth_a_signature_and_another_is_not(self, path, key):
        assert isinstance(self.outcome(path, key, None), ValidPublicKey)
        assert isinstance(self.outcome(path, new_key(), None), UnauthorizedLogin)

    def test_another_key_a_forged_signature_and_garbage_are_refused(self, path, key):
        other = new_key()
        for found in (
            self.outcome(path, other, other.sign(b"data")),
            self.outcome(path, key, other.sign(b"data")),
            self.outcome(path, key, key.sign(b"other data")),
            self.outcome(path, key, b"\x00\x00\x00\xffgarbage"),
            self.outcome(path, key, b"x"),
        ):
            assert isinstance(found, UnauthorizedLogin), found

    def test_a_key_that_is_struck_out_of_the_file_is_out(self, tmp_path, path, key):
        written(tmp_path, public_line(new_key(), "bob"))
        assert isinstance(self.outcome(path, key, key.sign(b"data")), UnauthorizedLogin)

    def test_a_file_that_others_may_write_by_now_lets_nobody_in(self, path, key):
        os.chmod(path, 0o666)
        with log_texts() as texts:
            assert isinstance(self.outcome(path, key, key.sign(b"data")), UnauthorizedLogin)
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
