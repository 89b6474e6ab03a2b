"""Real servers for tests: twistd processes on ports and in directories of their own."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

ROOT = pathlib.Path(__file__).parents[1]
DEADLINE_S = 60.0
"""How long to wait for what must happen; generous, since the machine may be busy."""
TWISTD = (sys.executable, "-c", "import sys; from twisted.scripts.twistd import run; sys.exit(run())")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def environment(*extra_paths: os.PathLike[str] | str) -> dict[str, str]:
    """In which this checkout is found, and `extra_paths` too."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(os.fspath, [ROOT, *extra_paths]))}


def run(command: Sequence[str], cwd: os.PathLike[str], *extra_paths: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command, cwd=cwd, env=environment(*extra_paths), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@contextlib.contextmanager
def started(
    command: Sequence[str], cwd: os.PathLike[str], *extra_paths: os.PathLike[str] | str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed at the end, if it still runs. Its output is in `cwd`, in the file `output`."""
    with open(pathlib.Path(cwd) / "output", "ab") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(*extra_paths),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            preexec_fn=_listen_to_ctrl_c,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _listen_to_ctrl_c() -> None:
    """A shell makes what it runs in the background ignore it, and the tests may run so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll `condition` until it is true; fails with `what` after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.05)


def converse(port: int, lines: Sequence[str]) -> list[str]:
    """Send lines to a server, one after the other's answer. Empty if nobody listens or the connection breaks."""
    answers = []
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, connection.makefile("rb") as file:
            for line in lines:
                connection.sendall(line.encode() + b"\r\n")
                answers.append(file.readline().decode().rstrip("\r\n"))
    except OSError:
        return []
    return answers


def ask(port: int, line: str) -> str:
    """The answer to one line; empty if there is none."""
    return "".join(converse(port, [line]))


def terminate(process: subprocess.Popen[bytes]) -> int:
    """Tell a process to stop, and return how it ended: minus the signal, or its status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(DEADLINE_S)
