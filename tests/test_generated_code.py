"""The checked-in protobuf module is what protoc makes of `proto/raft.proto`, byte for byte."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    """Made by the protoc that the `test` extra pins; its absence is a failure, not a skip."""
    output = tmp_path_factory.mktemp("proto")
    protoc = Path(sysconfig.get_path("scripts"), "protoc")
    arguments = ["-Itxraft/_proto=proto", f"--python_out={output}", f"--pyi_out={output}", "txraft/_proto/raft.proto"]
    subprocess.run([protoc, *arguments], cwd=ROOT, check=True, timeout=60)
    return output


@pytest.mark.parametrize("name", ["raft_pb2.py", "raft_pb2.pyi"])
def test_generated_code_is_up_to_date(regenerated, name):
    path = Path("txraft", "_proto", name)
    assert (regenerated / path).read_text() == (ROOT / path).read_text()
