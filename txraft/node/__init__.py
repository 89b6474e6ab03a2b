"""
One server: what people embed. `RaftNode` does the work, a `Session` is a client's, and the others are plain values.
"""

from txraft.node.raft_node import RaftNode
from txraft.node.session import Session
from txraft.node.settings import NodeSettings
from txraft.node.status import MemberStatus, NodeStatus

__all__ = ["MemberStatus", "NodeSettings", "NodeStatus", "RaftNode", "Session"]
