"""Real servers for tests: twistd processes on ports and in directories of their own."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
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
RAFTCTL = (sys.executable, "-m", "txraft.admin.raftctl")
RECONFIGURE = (sys.executable, "-m", "txraft.admin.reconfigure")


# Below the range from which the system takes the ports of outgoing connections: one of those may take any port there at
# any time, also one that was free a moment ago.
_OUR_PORTS = range(10_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().choice(_OUR_PORTS)
        if port not in ports and _are_free([port]):
            ports.append(port)
    return ports


def free_base_port(servers: int = 3) -> int:
    """A port for `raftctl dev --base-port`: it takes some from there on, and 100 and 200 above that."""
    while True:
        base_port = random.SystemRandom().choice(_OUR_PORTS)
        if _are_free([base_port + more + number for more in (0, 100, 200) for number in range(servers)]):
            return base_port


def _are_free(ports: Sequence[int]) -> bool:
    with contextlib.ExitStack() as stack:
        try:
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        except OSError:
            return False
    return True


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


def children() -> set[str]:
    """The processes that this thread has started and that are there yet; those of earlier tests, too."""
    return set(pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll `condition` until it is true; fails with `what` after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.05)


def converse(port: int, lines: Sequence[str], host: str = "127.0.0.1") -> list[str]:
    """Send lines to a server, one after the other's answer. Empty if nobody listens or the connection breaks."""
    answers = []
    try:
        with socket.create_connection((host, port), timeout=10) as connection, connection.makefile("rb") as file:
            for line in lines:
                connection.sendall(line.encode() + b"\r\n")
                answers.append(file.readline().decode().rstrip("\r\n"))
    except OSError:
        return []
    return answers


def ask(port: int, line: str, host: str = "127.0.0.1") -> str:
    """The answer to one line; empty if there is none."""
    return "".join(converse(port, [line], host))


def terminate(process: subprocess.Popen[bytes]) -> int:
    """Tell a process to stop, and return how it ended: minus the signal, or its status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(DEADLINE_S)
