"""Registers `twistd raftcore`."""

from twisted.application.service import ServiceMaker

raftcore = ServiceMaker("txraft", "txraft.tap", "A server of a Raft cluster.", "raftcore")
