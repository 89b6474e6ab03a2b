"""The prompt of the manhole by telnet, over whole servers on simulated time: login, verbs, and what is no verb."""

from __future__ import annotations

import random
import re

import pytest
from manhole_support import PASSWORD, USER, Telnet, leading, log_texts, password_file, seen
from twisted.conch.telnet import DO, DONT, ECHO, IAC, NAWS, SB, SE, SGA, WILL
from twisted.internet.defer import Deferred

from txraft.admin.manhole.conversation import MAX_RUNNING
from txraft.admin.manhole.grammar import MAX_LINE_CHARACTERS
from txraft.admin.manhole.login import Gatekeeper
from txraft.admin.manhole.python_mode import PythonTerminal, without_strings
from txraft.admin.manhole.telnet import FAILURE_DELAY_S, LOGIN_S, MAX_AHEAD_BYTES, MAX_FAILURES
from txraft.admin.manhole.terminal import MAX_HISTORY_LINES


@pytest.fixture
def cluster():
    return leading(size=1, passive=2, absent=("s3",))


@pytest.fixture
def telnet(tmp_path, cluster):
    """At the login."""
    return Telnet(tmp_path, cluster)


@pytest.fixture
def prompt(telnet):
    """At the prompt of the leader."""
    telnet.log_in()
    return telnet


class TestLogin:
    def test_user_and_password_lead_to_the_prompt(self, telnet):
        assert seen(telnet.transport.value()) == "user: "
        assert telnet.type(b"alice\r\n") == "password: "
        assert telnet.type(PASSWORD + b"\r\n") == "\nServer s1. Type help, or quit.\ntxraft> "

    def test_a_wrong_password_is_answered_late_and_asked_for_again(self, telnet, cluster):
        assert telnet.type(b"alice\r\nwrong\r\n") == "password: \n"
        cluster.run(FAILURE_DELAY_S / 2)
        assert telnet.type(b"") == ""
        assert telnet.wait("user: ") == "That is not right.\nuser: "
        assert telnet.log_in().endswith("txraft> ")

    def test_after_three_wrong_passwords_the_connection_is_closed(self, telnet):
        for _ in range(MAX_FAILURES):
            assert telnet.is_open
            telnet.type(b"alice\r\nwrong\r\n")
            telnet.wait("That is not right.")
        assert not telnet.is_open

    def test_a_locked_out_user_is_told_how_long_to_wait(self, tmp_path, telnet, cluster):
        for _ in range(MAX_FAILURES):
            telnet.type(b"alice\r\nwrong\r\n")
            telnet.wait("That is not right.")
        other = Telnet(tmp_path, cluster, gatekeeper=telnet.gatekeeper)
        other.log_in()
        assert "Too many failures: wait 1 s." in other.wait("Too many")

    def test_who_does_not_log_in_is_cut_off(self, telnet, cluster):
        cluster.run(LOGIN_S - 1)
        assert telnet.is_open
        telnet.wait("That took too long.", 2)
        assert not telnet.is_open

    def test_who_has_logged_in_is_not(self, prompt, cluster):
        cluster.run(LOGIN_S + 1)
        assert prompt.is_open

    def test_what_is_typed_shows_unless_it_is_a_password_if_the_other_end_leaves_that_to_us(self, telnet):
        telnet.type(IAC + DO + ECHO + IAC + DO + SGA)
        assert telnet.type(b"alicf\x7fe\r\0") == "alicf\b \be\npassword: "
        assert telnet.type(b"secret") == ""

    def test_a_client_that_refuses_every_option_can_log_in(self, telnet):
        telnet.type(IAC + DONT + ECHO + IAC + DONT + SGA)
        assert telnet.log_in().endswith("txraft> ")

    def test_what_is_typed_ahead_of_the_prompt_is_carried_out_there(self, telnet):
        shown = telnet.type(b"alice\r\n" + PASSWORD + b"\r\nwhy\r\n")
        assert shown.endswith("txraft> why\nIt waits for nothing.\ntxraft> ")

    def test_nothing_is_taken_for_a_command_before_the_login(self, telnet):
        with log_texts() as texts:
            telnet.type(b"status()\r\nmembers()\r\n")
            telnet.wait("That is not right.")
        assert not any("status" in text for text in texts)

    @pytest.mark.parametrize("garbage", [b"x" * 300, b"x" * (MAX_AHEAD_BYTES + 1), b"\x04", b"\x03"])
    def test_too_long_a_name_and_control_d_end_it(self, telnet, garbage):
        telnet.type(garbage)
        assert not telnet.is_open

    def test_who_goes_while_the_password_is_compared_leaves_nothing_behind(self, tmp_path, cluster):
        comparing: Deferred[bool] = Deferred()
        gatekeeper = Gatekeeper(password_file(tmp_path), cluster.clock, lambda *arguments: comparing)
        telnet = Telnet(tmp_path, cluster, gatekeeper=gatekeeper)
        telnet.log_in()
        telnet.console.connectionLost()
        telnet.transport.clear()
        comparing.callback(True)
        assert telnet.transport.value() == b""

    def test_so_much_may_be_typed_ahead_while_it_is_compared(self, tmp_path, cluster):
        gatekeeper = Gatekeeper(password_file(tmp_path), cluster.clock, lambda *arguments: Deferred())
        telnet = Telnet(tmp_path, cluster, gatekeeper=gatekeeper)
        telnet.log_in()
        telnet.type(b"x" * MAX_AHEAD_BYTES)
        assert telnet.is_open
        telnet.type(b"x")
        assert not telnet.is_open

    def test_what_was_typed_ahead_of_a_wrong_password_is_forgotten(self, telnet, cluster):
        telnet.type(b"alice\r\nwrong\r\nmembers\r\n")
        telnet.wait("That is not right.")
        assert telnet.type(b"alice\r\n") == "password: "

    @pytest.mark.parametrize("seed", range(30))
    def test_garbage_harms_nobody(self, tmp_path, cluster, seed):
        """Before the login or after it: at worst this one connection is closed."""
        rng = random.Random(seed)
        telnet = Telnet(tmp_path, cluster)
        if seed % 2:
            telnet.log_in()
        words = [IAC, WILL, DO, DONT, SB, SE, ECHO, NAWS, b"\x1b[", b"\x1b", b"\r", b"\n", b"\x00", b"status", b"\x7f"]
        with log_texts() as texts:
            for _ in range(60):
                if telnet.is_open:
                    word = rng.choice([rng.choice(words), rng.randbytes(rng.randrange(1, 9))])
                    telnet.type(word)
        assert not any("a mistake of ours" in text or "Traceback" in text for text in texts), texts
        assert Telnet(tmp_path, cluster).log_in().endswith("txraft> ")


class TestVerbs:
    def test_help_names_every_verb_and_tells_more_of_one(self, prompt):
        text = prompt.ask("help")
        for verb in prompt.console._screen.terminalProtocol.conversation.verbs.names():
            assert f"{verb}(" in text
            assert prompt.ask(f"help {verb}").startswith(f"{verb}(")
        assert "quit" in text

    def test_what_this_server_does_is_shown(self, prompt):
        assert "role        leader\n" in prompt.ask("status()")
        assert prompt.ask("status") == prompt.ask("status()")
        assert prompt.ask("why") == "It waits for nothing.\n"
        assert "s1      leader  this server" in prompt.ask("members()")

    def test_the_log_is_shown_in_pages_and_without_what_is_in_it(self, prompt, cluster):
        cluster.leader().propose(b"secret command")
        cluster.run(1)
        text = prompt.ask("log")
        assert "command" in text and "secret" not in text
        last = cluster.leader().status().last_index
        assert f"Entries 1 to {last}; committed up to {last}." in prompt.ask("log(2, 1)")
        assert prompt.ask("log 2 1") == prompt.ask("log(first=2, count=1)")
        assert "count: expected a number from 1 to 1000" in prompt.ask("log(1, 5000)").replace("Count", "count")

    def test_a_server_is_added_and_removed_and_the_prompt_comes_back_meanwhile(self, prompt):
        assert prompt.ask('add_server("s2")') == "#1 runs; its result will be shown here.\n"
        text = prompt.wait("#1 is done:")
        assert "s2      voter" in text and text.endswith("txraft> ")
        prompt.ask("remove_server s2")
        assert "s2" not in prompt.wait("#2 is done:").partition("is done")[2]

    def test_a_server_that_has_moved_is_said_to_be_elsewhere(self, prompt):
        """M19."""
        prompt.ask("add_learner s2")
        prompt.wait("#1 is done:")
        prompt.ask('move_server("s2", "elsewhere")')
        assert "s2 at elsewhere  learner" in prompt.wait("#2 is done:").partition("#2 is done")[2]

    def test_a_server_is_replaced_and_the_leadership_handed_over(self, prompt, cluster):
        cluster.start("s3")
        prompt.ask("add_learner s2")
        assert "s2      learner" in prompt.wait("#1 is done:")
        prompt.ask("replace_server s2 s3")
        assert "s3      learner" in prompt.wait("#2 is done:")
        prompt.ask("add_server s3")
        prompt.wait("#3 is done:")
        prompt.ask('transfer("s3")')
        assert "s3      leader" in prompt.wait("#4 is done:")

    def test_a_snapshot_is_taken_when_asked_for(self, prompt, cluster):
        last = cluster.leader().status().applied_index
        asked = prompt.ask("snapshot")
        shown = asked if "up to entry" in asked else prompt.wait("#1 is done:")
        assert re.search(
            rf"Everything up to entry {last} is in it: \d+ bytes, taken in ",
            shown,
        )

    def test_a_change_that_takes_long_shows_how_far_it_is_and_ends_in_a_sentence(self, prompt):
        prompt.ask("add_server s3")
        assert prompt.wait("s3 catches up: round 1 of at most 10", 5)
        failure = prompt.wait("#1 has failed:")
        assert "3 could not catch up" in failure and "Everything is as if nobody had asked." in failure

    def test_progress_is_shown_again_only_if_there_is_some(self, prompt):
        prompt.ask("add_server s3")
        assert prompt.wait("#1 has failed:").count("s3 catches up") == 1
        assert not prompt.console._screen.terminalProtocol.conversation._looking.running

    def test_output_goes_above_the_line_that_is_being_typed(self, prompt):
        prompt.ask("add_server s2")
        prompt.type(b"memb")
        assert prompt.wait("#1 is done:").endswith("\ntxraft> memb")
        assert "s2      voter" in prompt.type(b"ers\r\n")

    def test_another_server_says_who_leads(self, tmp_path, prompt, cluster):
        prompt.ask("add_server s2")
        prompt.wait("#1 is done:")
        other = Telnet(tmp_path, cluster, "s2")
        other.log_in()
        assert "it is s1" in other.ask("remove_server s2")

    def test_a_change_goes_on_when_the_user_goes(self, prompt, cluster):
        prompt.ask("add_server s2")
        prompt.console.connectionLost()
        prompt.transport.clear()
        with log_texts() as texts:
            cluster.run(5)
        assert cluster.leader().raft.membership.voters == ("s1", "s2")
        assert any("add_server('s2') of alice has ended: ok" in text for text in texts)
        assert prompt.transport.value() == b""

    def test_so_many_requests_of_one_user_run_at_a_time(self, prompt):
        for _ in range(MAX_RUNNING):
            prompt.ask("add_server s3")
        assert "8 requests run already" in prompt.ask("add_server s3")


class TestRefusals:
    @pytest.mark.parametrize(
        "line",
        [
            "__import__('os')",
            "import os",
            "status().__class__",
            "add_server(status())",
            "[x for x in (1, 2)]",
            "add_server(x for x in 'ab')",
            "add_server('s2'",
            "print('x')",
            "exec('1')",
            "node.stopService()",
        ],
    )
    def test_python_is_refused_with_a_sentence(self, prompt, cluster, line):
        """T09"""
        before = cluster.leader().status().last_index
        text = prompt.ask(line)
        assert text.endswith("Nothing was done.\n") and text.count("\n") == 1, text
        assert cluster.leader().status().last_index == before

    def test_other_arguments_than_the_verb_takes_are_refused(self, prompt):
        assert prompt.ask("status(1)") == "Expected status(). Nothing was done.\n"
        assert prompt.ask("log('x')") == "Expected log(first, count). Nothing was done.\n"
        assert prompt.ask("add_server(1)") == 'Expected add_server("host:port", ...). Nothing was done.\n'
        assert prompt.ask("replace_server s1").startswith("Expected replace_server(")
        assert prompt.ask("transfer(name='s2')").startswith("Expected transfer(")
        assert prompt.ask("add_server").startswith("No server is named.")

    def test_a_line_and_the_history_are_bounded(self, prompt):
        shown = prompt.type(b"x" * (MAX_LINE_CHARACTERS + 10))
        assert shown.count("x") == MAX_LINE_CHARACTERS
        prompt.type(b"\x15")
        for number in range(MAX_HISTORY_LINES + 20):
            prompt.type(b"why %d\r\n" % number)
        assert len(prompt.console._screen.terminalProtocol.historyLines) == MAX_HISTORY_LINES

    def test_a_control_sequence_without_end_is_forgotten(self, prompt):
        prompt.type(b"\x1b[" + b"1" * 10_000)
        assert prompt.console._screen.state == b"data"
        assert prompt.ask("why") == "It waits for nothing.\n"

    def test_quit_and_control_d_close_the_connection(self, tmp_path, cluster):
        for leave in (b"quit\r\n", b"exit()\r\n", b"\x04"):
            telnet = Telnet(tmp_path, cluster)
            telnet.log_in()
            telnet.type(leave)
            assert not telnet.is_open

    def test_control_c_forgets_the_line(self, prompt):
        assert prompt.type(b"remove_server s1\x03").endswith("\ntxraft> ")
        assert prompt.ask("why") == "It waits for nothing.\n"

    def test_the_window_size_is_taken_and_the_screen_left_as_it_is(self, prompt):
        prompt.transport.clear()
        prompt.console.dataReceived(IAC + WILL + NAWS + IAC + SB + NAWS + b"\0\x64\0\x20" + IAC + SE)
        terminal = prompt.console._screen.terminalProtocol
        assert (terminal.width, terminal.height) == (100, 32)
        assert b"\x1b[2J" not in prompt.transport.value()


class TestLog:
    def test_every_request_is_in_the_log_with_its_user_and_its_end(self, prompt):
        with log_texts() as texts:
            prompt.ask("members")
            prompt.ask("remove_server('s2')")
            prompt.wait("#1 is done")
        said = "\n".join(texts)
        assert "manhole: alice, by telnet from " in said
        assert "members()" in said and "remove_server('s2')" in said
        assert "remove_server('s2') of alice has ended: ok" in said
        assert "('user', \"'alice'\")" in said, "it is structured"

    def test_what_is_not_understood_is_in_the_log_without_its_text(self, prompt):
        """It may be a password, typed at the wrong prompt."""
        with log_texts() as texts:
            for line in ("hunter2", "hunter2 x", "status hunter2", "status('hunter2')", "'hunter2", "help('hunter2')"):
                prompt.ask(line)
        said = "\n".join(text for text in texts if "help('hunter2')" not in text)
        assert "alice" in said and "hunter2" not in said


class TestPythonMode:
    @pytest.fixture
    def python(self, tmp_path, cluster):
        telnet = Telnet(tmp_path, cluster, mode=PythonTerminal)
        assert telnet.log_in().endswith(">>> ")
        return telnet

    def test_python_runs_with_the_verbs_in_its_namespace(self, python):
        assert python.type(b"1 + 1\r\n").endswith("\n2\n>>> ")
        assert "s1      leader" in python.type(b"members()\r\n")
        assert python.type(b"node.raft.term\r\n").split("\n")[1].isdigit()
        assert python.type(b"[len(v) for v in [members(), why()]]\r\n").count(",") >= 1
        assert "There is no such verb" in python.type(b"help('x')\r\n")
        # The greeting says to type that.
        assert '\nhelp("verb"): what can be typed here; of a verb: more about it.\n' in python.type(b"help\r\n")

    def test_a_deferred_shows_when_it_fires_and_a_failure_is_a_sentence(self, python):
        assert "<Deferred #0>" in python.type(b"add_server('s2')\r\n")
        assert "s2      voter" in python.wait("Deferred #0 called back:")
        python.type(b"add_server('s3')\r\n")
        assert "s3 catches up" in python.wait("catches up")
        assert "3 could not catch up" in python.wait("Deferred #1 failed:")

    def test_any_other_failure_shows_what_it_is(self, python):
        python.type(b"from twisted.internet.defer import Deferred; d = Deferred()\r\n")
        python.type(b"d\r\n")
        assert "failed: ValueError: no" in python.type(b"d.errback(ValueError('no'))\r\n")

    def test_several_lines_make_one_statement(self, python):
        assert python.type(b"for i in range(2):\r\n").endswith("... ")
        python.type(b"    print(i + 40)\r\n")
        assert "40\n41\n" in python.type(b"\r\n")

    def test_exit_ends_the_prompt_and_not_the_server(self, tmp_path, cluster, python):
        for leave in (b"raise SystemExit\r\n", b"quit()\r\n", b"exit\r\n"):
            telnet = Telnet(tmp_path, cluster, mode=PythonTerminal)
            telnet.log_in()
            telnet.type(leave)
            assert not telnet.is_open

    def test_what_runs_is_in_the_log_without_what_is_in_its_strings(self, python):
        with log_texts() as texts:
            python.type(b"x = len(b'payload') + len('secret') + len(f'{1}secret')\r\n")
            python.type(b"'secret\r\n")
            python.type(b"node.propose(b'payload')\r\n")
        said = "\n".join(texts)
        assert "x = len(...) + len(...) + len(...)" in said and "node.propose(...)" in said
        assert "payload" not in said and "secret" not in said

    def test_strings_are_left_out_wherever_they_are(self):
        assert without_strings("def f(x='a'):\n    'doc'\n    return x['k']") == (
            "def f(x=...):;     ...;     return x[...]"
        )
        assert without_strings("'open") == "Python that cannot be parsed"

    def test_a_password_at_the_login_is_not_python(self, tmp_path, cluster):
        telnet = Telnet(tmp_path, cluster, mode=PythonTerminal)
        telnet.type(USER.encode() + b"\r\n1 + 1\r\n")
        assert "2" not in telnet.wait("That is not right.")
