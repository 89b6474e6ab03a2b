"""Users and passwords of the telnet manhole: the file, the comparison, and how often one may try."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import sys

import pytest
from manhole_support import PASSWORD, USER, log_texts, password_file
from processes import environment
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from txraft.admin.manhole.login import FREE_FAILURES, MAX_NAMES, MAX_WAIT_S, Gatekeeper, Lockout, LoginRefused
from txraft.admin.manhole.passwords import PasswordHash, read_passwords, write_password
from txraft.errors import ConfigError

CHEAP = str(PasswordHash.of(b"x", cost=2))


def outcome(deferred: Deferred[str]) -> object:
    found: list[object] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    [result] = found
    return result


def problem(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_passwords(path)
    return caught.value.problem


def test_a_hash_fits_its_password_and_no_other():
    kept = PasswordHash.parse(str(PasswordHash.of(PASSWORD)))
    assert kept.fits(PASSWORD)
    assert not kept.fits(PASSWORD + b"x") and not kept.fits(b"")
    assert PASSWORD.decode() not in str(kept) + repr(kept)


def test_the_same_password_has_another_hash_each_time():
    assert str(PasswordHash.of(b"x", cost=2)) != str(PasswordHash.of(b"x", cost=2))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_read_or_write_is_refused_and_the_remedy_said(tmp_path, mode):
    path = password_file(tmp_path)
    os.chmod(path, mode)
    assert problem(path) == (f"manhole_password_file: {path} must not be read or written by others: chmod 600 {path}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no user"),
        ("# nobody\n", "has no user"),
        ("\nalice:secret", "line 2: expected scrypt$N$r$p$salt$key"),
        ("secret", "line 1: expected scrypt$N$r$p$salt$key"),
        (f"al ice:{CHEAP}", "line 1: a user is 1 to 64 of"),
        (f"alice:{CHEAP}\nalice:{CHEAP}", "line 2: alice is there twice"),
        ("alice:scrypt$32768$8$1$AAAA$AAAA", "line 1: salt and key have 16 bytes or more"),
        ("alice:scrypt$3$8$1$AAAA$AAAA", "line 1: N=3, r=8, p=1 cannot be used"),
        ("alice:scrypt$1073741824$8$1$AAAA$AAAA", "line 1: expected"),
        ("alice:scrypt$536870912$8$1$AAAA$AAAA", "line 1: N=536870912, r=8, p=1 cannot be used"),
        ("alice:scrypt$2$8$1$A$AAAA", "line 1: salt and key are base64"),
    ],
)
def test_a_line_that_is_no_user_is_named_and_not_repeated(tmp_path, text, words):
    found = problem(password_file(tmp_path, text))
    assert words in found
    assert "secret" not in found


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path):
    path = str(tmp_path / "none")
    assert problem(path) == f"manhole_password_file: {path} cannot be read: No such file or directory"


def test_a_user_gets_a_password_and_the_others_keep_theirs(tmp_path):
    path = password_file(tmp_path)
    write_password(path, "bob", b"another one")
    write_password(path, "bob", b"yet another")
    users = read_passwords(path)
    assert sorted(users) == ["alice", "bob"]
    assert users["alice"].fits(PASSWORD) and users["bob"].fits(b"yet another")
    assert pathlib.Path(path).read_text().startswith("# people\n")
    assert os.listdir(tmp_path) == ["passwords"]


def test_a_new_file_is_for_its_owner_only(tmp_path):
    path = str(tmp_path / "new")
    write_password(path, "bob", b"another one")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "typed", "status", "said"),
    [
        (["bob"], "correct horse\n", 0, "bob can log in"),
        (["b:b"], "correct horse\n", 2, "a user is"),
        (["bob"], "short\n", 2, "a password has 8 to 256 bytes"),
        (["bob"], "", 2, "a password has 8 to 256 bytes"),
    ],
)
def test_raftctl_writes_the_file(tmp_path, arguments, typed, status, said):
    path = str(tmp_path / "new")
    command = [sys.executable, "-m", "txraft.admin.raftctl", "manhole-password", path, *arguments]
    result = subprocess.run(command, input=typed, capture_output=True, text=True, env=environment(), check=False)
    assert (result.returncode, said in result.stdout + result.stderr) == (status, True), result
    assert typed.strip() not in result.stdout or not typed
    if status == 0:
        assert read_passwords(path)["bob"].fits(typed.strip().encode())
    else:
        assert not os.path.exists(path)


class TestGatekeeper:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def gatekeeper(self, tmp_path: pathlib.Path, clock: Clock) -> Gatekeeper:
        return Gatekeeper(password_file(tmp_path), clock, execute)

    def attempt(self, gatekeeper: Gatekeeper, user: bytes, password: bytes) -> object:
        return outcome(gatekeeper.login(user, password, "127.0.0.1:1"))

    def test_the_right_password_is_the_way_in(self, gatekeeper):
        assert self.attempt(gatekeeper, USER.encode(), PASSWORD) == USER

    def test_a_wrong_password_and_an_unknown_user_are_answered_alike(self, gatekeeper):
        wrong = self.attempt(gatekeeper, USER.encode(), b"wrong")
        unknown = self.attempt(gatekeeper, b"mallory", b"wrong")
        assert isinstance(wrong, LoginRefused) and isinstance(unknown, LoginRefused)
        assert str(wrong) == str(unknown)

    def test_an_unknown_user_takes_as_much_work_as_a_known_one(self, gatekeeper, monkeypatch):
        derived = []
        derive = PasswordHash._derive
        monkeypatch.setattr(PasswordHash, "_derive", lambda self, word: derived.append(word) or derive(self, word))
        self.attempt(gatekeeper, b"mallory", b"wrong")
        assert b"wrong" in derived

    def test_after_three_failures_the_right_password_does_not_help_until_time_has_passed(self, gatekeeper, clock):
        for _ in range(FREE_FAILURES):
            self.attempt(gatekeeper, USER.encode(), b"wrong")
        assert str(self.attempt(gatekeeper, USER.encode(), PASSWORD)) == "Too many failures: wait 2 s."
        clock.advance(2)
        assert self.attempt(gatekeeper, USER.encode(), PASSWORD) == USER

    def test_who_guesses_names_locks_nobody_out(self, gatekeeper):
        for number in range(5):
            self.attempt(gatekeeper, b"guess%d" % number, b"wrong")
        assert self.attempt(gatekeeper, USER.encode(), PASSWORD) == USER

    def test_how_long_to_wait_does_not_tell_whether_there_is_such_a_user(self, gatekeeper):
        answers = {
            user: [str(self.attempt(gatekeeper, user, b"wrong")) for _ in range(FREE_FAILURES + 1)]
            for user in (USER.encode(), b"mallory")
        }
        assert answers[USER.encode()] == answers[b"mallory"]
        assert "Too many failures" in answers[b"mallory"][-1]

    def test_who_is_struck_out_of_the_file_is_out(self, gatekeeper, tmp_path):
        assert self.attempt(gatekeeper, USER.encode(), PASSWORD) == USER
        password_file(tmp_path, f"bob:{CHEAP}\n")
        assert isinstance(self.attempt(gatekeeper, USER.encode(), PASSWORD), LoginRefused)

    def test_a_file_that_others_may_read_by_now_lets_nobody_in(self, gatekeeper, tmp_path):
        os.chmod(tmp_path / "passwords", 0o644)
        with log_texts() as texts:
            assert "nobody can log in" in str(self.attempt(gatekeeper, USER.encode(), PASSWORD)).lower()
        assert any("must not be read or written by others" in text for text in texts)

    def test_the_log_says_who_and_never_a_password(self, gatekeeper):
        """Nor what was typed for a user that there is not: it may be a password."""
        with log_texts() as texts:
            self.attempt(gatekeeper, USER.encode(), b"hunter2hunter2")
            self.attempt(gatekeeper, b"hunter2hunter2", b"hunter2hunter2")
            self.attempt(gatekeeper, USER.encode(), PASSWORD)
        said = "\n".join(texts)
        assert f"wrong password for {USER} from 127.0.0.1:1" in said
        assert "wrong password for an unknown user from 127.0.0.1:1" in said
        assert f"{USER} has logged in by telnet from 127.0.0.1:1" in said
        assert "hunter2" not in said and PASSWORD.decode() not in said

    def test_one_password_is_compared_at_a_time(self, tmp_path, clock):
        running: list[Deferred[bool]] = []

        def later(function: object, *arguments: object) -> Deferred[bool]:
            running.append(Deferred())
            return running[-1]

        gatekeeper = Gatekeeper(password_file(tmp_path), clock, later)
        found: list[str] = []
        for _ in range(3):
            gatekeeper.login(USER.encode(), PASSWORD, "").addCallback(found.append)
        assert len(running) == 1
        running[0].callback(True)
        assert (found, len(running)) == ([USER], 2)


def test_the_wait_doubles_up_to_a_bound_and_a_success_ends_it():
    clock = Clock()
    lockout = Lockout(clock)
    waits = []
    for _ in range(14):
        lockout.failed("a")
        waits.append(lockout.wait_s("a"))
    assert waits[:6] == [0, 0, 2, 4, 8, 16]
    assert waits[-1] == MAX_WAIT_S
    assert lockout.wait_s("b") == 0
    lockout.succeeded("a")
    assert lockout.wait_s("a") == 0


def test_so_many_names_are_remembered_and_the_newest_are():
    lockout = Lockout(Clock())
    for number in range(MAX_NAMES + 5):
        for _ in range(FREE_FAILURES):
            lockout.failed(str(number))
    waiting = [number for number in range(MAX_NAMES + 5) if lockout.wait_s(str(number))]
    assert waiting == list(range(5, MAX_NAMES + 5))
