"""The manhole in raft.conf: off unless it is asked for, and no start without those who may log in."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from manhole_support import leading, password_file
from processes import ROOT, environment
from test_config import parse, problems_of
from twisted.internet.task import Clock

from txraft.admin.manhole.conversation import User
from txraft.admin.manhole.python_mode import PythonTerminal
from txraft.admin.manhole.terminal import AdminTerminal
from txraft.admin.manhole.verbs import Verbs
from txraft.admin.operations import Operations
from txraft.config import KEYS
from txraft.tap import Options, make_manholes

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice\n"


def refusal(directory: pathlib.Path, text: str, *overrides: str) -> str:
    """How `--check-config` ends."""
    path = directory / "raft.conf"
    path.write_text(f"servers=127.0.0.1\n{text}")
    settings = [word for override in overrides for word in ("--set", override)]
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--config", str(path), "--check-config", *settings])
    return str(caught.value.code).replace(f"{directory}/", "")


def test_there_is_no_manhole_unless_it_is_asked_for():
    assert make_manholes(parse(""), None, None) == []
    config = parse("")
    assert (config.manhole_port, config.manhole_ssh_port, config.manhole_mode) == (None, None, "admin")


def test_telnet_without_passwords_is_refused_with_its_line():
    assert problems_of("\nmanhole_port=2323") == [
        "raft.conf:2: manhole_port = 2323 against manhole_password_file = nothing: nobody can log in by telnet without "
        "it; raftctl manhole-password makes one"
    ]


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "localhost", "eth0", "127.0.0.1.evil"])
def test_telnet_elsewhere_than_on_loopback_is_refused_with_its_line(address):
    [problem] = problems_of(f"manhole_port=2323\nmanhole_password_file=x\nmanhole_bind_ip={address}")
    assert problem.startswith("raft.conf:3: manhole_bind_ip: expected ")


def test_ssh_without_keys_is_refused_with_its_line():
    assert problems_of("manhole_ssh_port=2222") == [
        "raft.conf:1: manhole_ssh_port = 2222 against manhole_authorized_keys = nothing: nobody can log in by ssh "
        "without it"
    ]


def test_ssh_may_be_bound_elsewhere_and_is_not_unless_asked():
    assert parse("manhole_ssh_bind_ip=0.0.0.0").manhole_ssh_bind_ip == "0.0.0.0"
    assert parse("").manhole_ssh_bind_ip == "127.0.0.1"


def makers(directory: pathlib.Path, text: str) -> list[tuple[str, int, Callable[[], Any]]]:
    """For each way into the manhole that `text` asks for: host, port, and what makes the factory that serves it."""
    password_file(directory)
    (directory / "keys").write_text(KEY)
    config = parse(
        f"data_dir={directory}\nmanhole_port=2323\nmanhole_password_file={directory}/passwords\n"
        f"manhole_ssh_port=2222\nmanhole_authorized_keys={directory}/keys\n{text}"
    )
    found = make_manholes(config, Operations(leading(size=1).leader()), Clock())
    return [(port._host, port._port, service._make_factory) for port, service, _ in found]


def test_each_port_is_bound_where_raft_conf_says(tmp_path):
    assert [way[:2] for way in makers(tmp_path, "")] == [("127.0.0.1", 2323), ("127.0.0.1", 2222)]
    elsewhere = "manhole_bind_ip=127.0.0.9\nmanhole_ssh_bind_ip=10.0.0.1"
    assert [way[:2] for way in makers(tmp_path, elsewhere)] == [("127.0.0.9", 2323), ("10.0.0.1", 2222)]


@pytest.mark.parametrize(
    ("text", "terminal"),
    [("", AdminTerminal), ("manhole_mode=admin", AdminTerminal), ("manhole_mode=python", PythonTerminal)],
)
def test_both_ways_lead_to_the_prompt_of_the_mode_and_that_is_admin_unless_python_is_asked_for(
    tmp_path, text, terminal
):
    [(_, _, make_telnet), (_, _, make_ssh)] = makers(tmp_path, text)
    user = User("alice", "telnet", "127.0.0.1:1")
    by_telnet = make_telnet().buildProtocol(None)._make_terminal(user)
    by_ssh = make_ssh().portal.realm._surroundings.make_terminal(user)
    assert [type(by_telnet), type(by_ssh)] == [terminal, terminal]


def test_another_mode_is_refused():
    assert problems_of("manhole_mode=full") == ["raft.conf:1: manhole_mode: expected admin or python, not 'full'"]


def test_files_are_beside_raft_conf_and_the_host_key_is_in_the_data_directory():
    config = parse("data_dir=data\nmanhole_password_file=people\nmanhole_authorized_keys=/etc/keys")
    assert config.manhole_password_file == "/etc/raft/people"
    assert config.manhole_authorized_keys == "/etc/keys"
    assert config.manhole_host_key == "/etc/raft/data/manhole.key"


def test_files_that_cannot_be_used_are_blamed_on_their_line(tmp_path):
    telnet = "manhole_port=2323\nmanhole_password_file=passwords\n"
    assert refusal(tmp_path, telnet) == (
        "raft.conf:3: manhole_password_file: passwords cannot be read: No such file or directory"
    )
    os.chmod(password_file(tmp_path), 0o644)
    assert refusal(tmp_path, telnet).startswith(
        "raft.conf:3: manhole_password_file: passwords must not be read or written by others: chmod 600"
    )
    password_file(tmp_path)
    assert refusal(tmp_path, telnet) == "0"
    ssh = "manhole_ssh_port=2222\nmanhole_authorized_keys=keys\nmanhole_host_key=../key\n"
    assert refusal(tmp_path, ssh).startswith("raft.conf:3: manhole_authorized_keys: keys cannot be read")
    (tmp_path / "keys").write_text(KEY)
    (tmp_path / "key").write_text("nonsense")
    (tmp_path / "key").chmod(0o600)
    assert refusal(tmp_path, ssh).startswith("raft.conf:4: manhole_host_key: key is no private key")


def test_a_check_makes_no_host_key(tmp_path):
    (tmp_path / "keys").write_text(KEY)
    assert refusal(tmp_path, "manhole_ssh_port=2222\nmanhole_authorized_keys=keys\n") == "0"
    assert sorted(os.listdir(tmp_path)) == ["keys", "raft.conf"]


def test_without_the_extra_ssh_is_refused_with_what_to_install_and_telnet_works(tmp_path):
    password_file(tmp_path)
    (tmp_path / "keys").write_text(KEY)
    (tmp_path / "raft.conf").write_text(
        "servers=127.0.0.1\nmanhole_password_file=passwords\nmanhole_authorized_keys=keys"
    )
    without = (
        "import sys; sys.modules |= dict.fromkeys(['bcrypt', 'cryptography']);"
        "from txraft.tap import Options;"
        "Options().parseOptions(['--config', 'raft.conf', '--check-config', *sys.argv[1:]])"
    )

    def check(setting: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", without, "--set", setting]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)

    assert check("manhole_port=2323").returncode == 0
    refused = check("manhole_ssh_port=2222")
    assert refused.returncode == 1
    assert refused.stderr == (
        "--set manhole_ssh_port: manhole_ssh_port: cryptography is not installed: pip install 'txraft[ssh]'\n"
    )


def test_the_guide_names_every_key_and_every_verb_and_no_other():
    guide = (ROOT / "docs" / "manhole.md").read_text()
    keys = {key for key in KEYS if key.startswith("manhole_")}
    assert set(re.findall(r"\bmanhole_\w+", guide)) == keys
    verbs = Verbs(Operations(leading(size=1).leader()))
    table = [line.split("|")[1].strip() for line in guide.splitlines() if line.startswith("| `")]
    usages = [verbs._verbs[name].usage for name in verbs.names()]
    assert table == [f"`{usage}`" for usage in [*usages, "quit"]]
