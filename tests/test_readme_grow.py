"""
README.md, "Grow, shrink and hand over", from its first command to its last.

Its machines are addresses of the loopback network, so that ports are the usual ones; all else is as it stands there.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
import re
import subprocess

import pytest
from processes import ask, run, started, wait_until
from readme import Shell, blocks, command, transcript


class Machines:
    """10.0.0.1 to 10.0.0.4, each with a directory of its own, in which its server runs."""

    def __init__(self, directory: pathlib.Path, shell: Shell, stack: contextlib.ExitStack) -> None:
        rng = random.SystemRandom()
        self._network = f"127.{rng.randrange(1, 255)}.{rng.randrange(1, 255)}"
        self._directory = directory
        self._shell = shell
        self._stack = stack
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def here(self, text: str) -> str:
        return text.replace("10.0.0", self._network)

    def there(self, text: str) -> str:
        return text.replace(self._network, "10.0.0")

    def start(self, number: int, raft_conf: str) -> None:
        directory = self._directory / str(number)
        directory.mkdir()
        (directory / "raft.conf").write_text(self.here(raft_conf))
        (directory / "admin-token").write_bytes((self._directory / "admin-token").read_bytes())
        (directory / "admin-token").chmod(0o600)
        line = "twistd -n --pidfile= raftcore --config raft.conf"
        self._processes[number] = self._stack.enter_context(started(self._shell(line), directory))

    def lose(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].wait()

    def do(self, start: str) -> str:
        """Carry out, on the first machine, the command of README.md that starts so; what it prints there."""
        result = run(self._shell(self.here(command(start))), self._directory / "1")
        assert result.returncode == 0, result.stdout + result.stderr
        return self.there(result.stdout)

    def kv(self, number: int, line: str) -> str:
        return ask(8877, line, self.here(f"10.0.0.{number}"))

    def voters(self) -> list[str]:
        return re.findall(r"(?m)^(\S+):29922 +(?:voter|leader) ", self.do("raftctl members"))


@pytest.mark.process
def test_four_machines_as_the_readme_has_them(shell: Shell, tmp_path: pathlib.Path) -> None:
    [first] = blocks("ini")
    passive = re.sub(r"(?m)^servers=.*\n", "", first)
    with contextlib.ExitStack() as stack:
        machines = Machines(tmp_path, shell, stack)
        subprocess.run(["/bin/sh", "-c", command("(umask 077; head")], cwd=tmp_path, check=True)
        machines.start(1, first)
        for number in (2, 3, 4):
            machines.start(number, passive.replace("10.0.0.1", f"10.0.0.{number}"))
        wait_until(lambda: machines.kv(1, "set fruit apple").startswith("OK"), "the first leads")
        wait_until(lambda: "NOT REACHABLE" not in plan_of(machines), "the others have started")
        shown = [line.split() for line in plan_of(machines).splitlines()]
        assert shown == [line.split() for line in transcript("raftctl add --plan")]
        machines.do("raftctl add 10.0.0.2")
        assert machines.voters() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        assert machines.do("reconfigure -l").count("succeed") == 2, "it is so already"
        machines.do("raftctl transfer")
        machines.lose(3)
        machines.do("raftctl replace")
        assert machines.voters() == ["10.0.0.1", "10.0.0.2", "10.0.0.4"]
        machines.do("raftctl remove")
        assert machines.voters() == ["10.0.0.1", "10.0.0.4"]
        wait_until(lambda: "It waits for nothing." in machines.do("raftctl why"), "another leads")
        assert re.search(r"(?m)^server +10\.0\.0\.4:29922$", machines.do("raftctl status"))
        assert "state-of-today has everything up to entry" in machines.do("raftctl backup")
        assert "10.0.0.5:29922 is a new cluster of its own" in machines.do("raftctl restore")
        assert (tmp_path / "1" / "new-data" / "raft.state").exists()
        assert "OK apple" in [machines.kv(number, "get fruit") for number in (1, 4)]


def plan_of(machines: Machines) -> str:
    """While a server cannot be reached yet, the plan is one that would fail."""
    with contextlib.suppress(AssertionError):
        return machines.do("raftctl add --plan")
    return "NOT REACHABLE"
