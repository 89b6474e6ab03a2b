"""What all commands that ask a running cluster have in common: whom they ask, what they print, and how they end."""

from __future__ import annotations

import argparse
import functools
import ipaddress
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TextIO

import attrs
from twisted.internet.defer import CancelledError, Deferred

from txraft.admin import tables
from txraft.admin.asking import Answer, Asker, problem_in
from txraft.admin.client import DEFAULT_PORT, AdminClient
from txraft.admin.http_gate import read_token
from txraft.admin.progress import ProgressBar
from txraft.config import Config
from txraft.config_reading import load_config
from txraft.errors import ConfigError, TxraftError
from txraft.net.addresses import format_address, is_wildcard, parse_address
from txraft.plugins import find_state_machine

CONNECT_TIMEOUT_S = 5.0
PROGRESS_LINE_EVERY_S = 5.0
"""Where there is no terminal to draw on, a change that goes on is told of so often."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say whom to ask, and how to answer."""
    parser.add_argument(
        "--server",
        type=admin_address,
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help=f"a server's admin port (default: that of --config, else localhost:{DEFAULT_PORT}); may be repeated: the "
        "first that answers is asked, and tells who leads",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the raft.conf of a server on this machine: it says where to ask"
    )
    add_asking_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print what the server answers, as JSON")


def add_asking_arguments(parser: argparse.ArgumentParser) -> None:
    """How any server is asked."""
    parser.add_argument("--token-file", metavar="FILE", help="the token, if the servers have an admin_token_file")
    parser.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="S", help="give a silent server up after it (default: 10)"
    )


def admin_address(text: str) -> str:
    """The address of an admin port, of `host` or `host:port`; for argparse."""
    return _address(text, DEFAULT_PORT)


def server_id(text: str) -> str:
    """`host` or `host:rpc-port`, as it stands: the leader knows what port a host alone means; for argparse."""
    _address(text, 1)
    return text


def _address(text: str, default_port: int) -> str:
    try:
        return format_address(*parse_address(text, default_port))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, not {text!r}")
    return value


@attrs.frozen
class Target:
    """Whom to ask: addresses of admin ports, and the token, empty if there is none."""

    servers: tuple[str, ...]
    token: str = attrs.field(default="", repr=False)


def find_target(servers: Sequence[str], config_path: str | None, token_path: str | None) -> Target:
    """
    What the command line says of whom to ask.

    @raise ExceptionGroup: of `ConfigError`: raft.conf cannot be used.
    @raise ConfigError: the file of the token cannot be used, or that server has no admin HTTP.
    """
    found = tuple(servers)
    token = read_token(token_path, "--token-file").decode() if token_path else ""
    if config_path is not None:
        # As twistd does it, the state machine may be here; last, so that nothing else is found here.
        sys.path.append(os.getcwd())
        find = functools.cache(find_state_machine)
        config = load_config(config_path, (), lambda wanted: str(find(wanted).name))
        found = found or (_address_in(config),)
        if not token and config.admin_token_file is not None:
            token = read_token(config.admin_token_file).decode()
    return Target(found or (f"localhost:{DEFAULT_PORT}",), token)


def _address_in(config: Config) -> str:
    """Where the server with that configuration is asked from its own machine."""
    if config.http_server_port is None:
        raise ConfigError("http_server_port is off: say with --server whom to ask", config.file)
    host = config.http_bind_ip
    return format_address(_loopback(host) if is_wildcard(host) else host, config.http_server_port)


def _loopback(wildcard: str) -> str:
    return "::1" if ipaddress.ip_address(wildcard).version == 6 else "127.0.0.1"


class ProgressLine:
    """How far a change has come: one line that is drawn over itself on a terminal; elsewhere a line now and then."""

    def __init__(self, stream: TextIO, is_terminal: bool, seconds: Callable[[], float]) -> None:
        self._stream = stream
        self._is_terminal = is_terminal
        self._seconds = seconds
        self._shown = ""
        self._next = 0.0

    def show(self, progress: Answer) -> None:
        """Show what `/v1/progress` has answered."""
        text = tables.progress(progress)
        if not text or text == self._shown:
            return
        if self._is_terminal:
            self._stream.write(f"\r{text:{len(self._shown)}}")
        elif not self._shown or self._seconds() >= self._next:
            self._next = self._seconds() + PROGRESS_LINE_EVERY_S
            self._stream.write(f"{text}\n")
        self._stream.flush()
        self._shown = text

    def end(self) -> None:
        """Something else is to be shown."""
        if self._is_terminal and self._shown:
            self._stream.write("\n")
        self._shown = ""


class Screen:
    """Where a command's answer goes, and what is said on the way."""

    def __init__(
        self, out: TextIO, err: TextIO, is_json: bool = False, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self.progress = ProgressLine(err, err.isatty(), seconds)
        self._out = out
        self._err = err
        self._is_json = is_json
        self._seconds = seconds

    def answer(self, answer: Answer, lines: Sequence[str]) -> None:
        """The answer, as JSON if that was asked for, else as these lines."""
        self.progress.end()
        text = json.dumps(answer, indent=2) if self._is_json else "\n".join(lines)
        print(text, file=self._out, flush=True)

    def line(self, text: str) -> None:
        """A line for people among others."""
        self.progress.end()
        print(tables.printable(text), file=self._out, flush=True)

    def bar(self, total: int) -> ProgressBar:
        """Of something that has `total` bytes."""
        return ProgressBar(self._err, total, self._seconds)

    def say(self, sentence: str) -> None:
        """Something on the way."""
        self.progress.end()
        print(tables.printable(sentence), file=self._err, flush=True)

    def failed(self, error: TxraftError) -> None:
        """What was asked did not happen, or nobody knows."""
        problem = problem_in(error)
        if self._is_json:
            self.answer(problem.as_json(), ())
        self.say(problem.sentence)


Work = Callable[[AdminClient, Screen], Awaitable[int]]
"""What a command does with a client; returns the exit status. `TxraftError` is told and is status 1."""


def run(options: argparse.Namespace, work: Work) -> int:
    """Do `work` with the cluster that `options` name, with a reactor of its own. Returns the exit status."""
    screen = Screen(sys.stdout, sys.stderr, options.json)
    try:
        target = find_target(options.server, options.config, options.token_file)
    except ExceptionGroup as problems:
        for problem in problems.exceptions:
            screen.say(str(problem))
        return 2
    except ConfigError as error:
        screen.say(str(error))
        return 2
    return run_reactor(lambda http, reactor: carry_out(work, target, screen, http, reactor, options.timeout), screen)


def run_reactor(work: Callable[[Any, Any], Deferred[int]], screen: Screen) -> int:
    """Run the reactor until `work` has its exit status, and return that; 1 if it is interrupted."""
    from treq.client import HTTPClient
    from twisted.internet import reactor
    from twisted.internet.task import react
    from twisted.web.client import Agent

    ended: list[int] = []

    def main(_: Any) -> Deferred[None]:
        working = work(HTTPClient(Agent(reactor, connectTimeout=CONNECT_TIMEOUT_S)), reactor)
        # Before connections are closed, which would look as if the servers did it.
        reactor.addSystemEventTrigger("before", "shutdown", working.cancel)
        return working.addCallbacks(ended.append, lambda failure: failure.trap(CancelledError) and None)

    try:
        react(main, _reactor=reactor)
    except SystemExit as end:
        if not ended and not end.code:
            screen.say("Interrupted: if it was a change, it may still happen.")
    return ended[0] if ended else 1


def carry_out(work: Work, target: Target, screen: Screen, http: Any, clock: Any, timeout_s: float) -> Deferred[int]:
    """Do `work`; fires with the exit status."""
    asker = Asker(http, clock, target.token)
    client = AdminClient(asker, target.servers, timeout_s, screen.progress.show, screen.say)

    async def to_the_end() -> int:
        try:
            return await work(client, screen)
        except TxraftError as error:
            screen.failed(error)
            return 1
        except BrokenPipeError:
            # Whoever read the answer has enough of it. Nor is there anybody to tell at the interpreter's end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1

    return Deferred.fromCoroutine(to_the_end())
