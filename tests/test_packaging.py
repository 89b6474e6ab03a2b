"""As a wheel, editable, or not installed at all: twistd finds us and a third party's plugin."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from processes import ROOT, ask, free_ports, wait_until
from readme import command

INSTALL_DEADLINE_S = 300
WITHOUT = ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_ADDOPTS")
"""What a new user's environment does not have."""


class Environment:
    """A new virtual environment, and a copy of the checkout, since building leaves traces in it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.elsewhere = directory / "elsewhere"
        self.elsewhere.mkdir()
        self.checkout = directory / "checkout"
        left_out = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "dropin.cache", "raft-d*")
        shutil.copytree(ROOT, self.checkout, ignore=left_out)
        self._bin = directory / "venv" / "bin"
        subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True, timeout=INSTALL_DEADLINE_S)

    def environ(self, path: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in WITHOUT}
        return kept | {"PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path}

    def shell(self, line: str, cwd: pathlib.Path, path: str = "") -> str:
        """Run a line to its end; what it printed."""
        result = subprocess.run(
            ["bash", "-c", line],
            cwd=cwd,
            env=self.environ(path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_DEADLINE_S,
            check=False,
        )
        assert result.returncode == 0, f"{line}\n{result.stdout}"
        return result.stdout

    def state_machines(self, path: str = "") -> list[str]:
        """What `twistd` lists, from a directory that has nothing to do with us."""
        listed = self.shell("twistd raftcore --list-state-machines", self.elsewhere, path)
        return [line.split()[0] for line in listed.splitlines()]


@pytest.fixture
def new(tmp_path: pathlib.Path) -> Environment:
    return Environment(tmp_path)


@pytest.mark.process
def test_a_wheel_serves_and_finds_a_third_partys_plugin(new: Environment) -> None:
    kv_port, rpc_port = free_ports(2)
    line = (
        command("pip install . && twistd")
        + f" --set kv_port={kv_port} --set rpc_port={rpc_port} --set http_server_port=off"
    )
    process = subprocess.Popen(["bash", "-c", line], cwd=new.checkout, env=new.environ(""), start_new_session=True)
    try:
        wait_until(lambda: ask(kv_port, "get nothing") == "OK null", "a leader", INSTALL_DEADLINE_S)
        assert ask(kv_port, "set fruit apple") == "OK null"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(INSTALL_DEADLINE_S)
    new.shell(command("pip install ./examples/counter"), new.checkout)
    assert new.state_machines() == ["counter", "kv"]
    for script in ("raftctl", "reconfigure", "log_reader"):
        assert new.shell(f"{script} --help", new.elsewhere).startswith(f"usage: {script}")
    tests = command("pip install '.[test]' && pytest")
    collected = new.shell(f"{tests} --collect-only -q", new.checkout)
    assert "test_packaging.py::" in collected


@pytest.mark.process
def test_an_editable_install_and_a_checkout_find_a_third_partys_plugin(new: Environment) -> None:
    counter = new.checkout / "examples" / "counter"
    new.shell("pip install -e . && pip install -e ./examples/counter", new.checkout)
    assert new.state_machines() == ["counter", "kv"]
    new.shell("pip uninstall -y txraft txraft-counter", new.checkout)
    assert new.state_machines(path=f"{new.checkout}{os.pathsep}{counter}") == ["counter", "kv"]
    assert new.state_machines(path=f"{new.checkout}") == ["kv"]
