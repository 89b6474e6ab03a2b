"""One server: what people embed. `RaftNode` does the work; `NodeSettings` and `NodeStatus` are plain values."""

from txraft.node.raft_node import RaftNode
from txraft.node.settings import NodeSettings
from txraft.node.status import MemberStatus, NodeStatus

__all__ = ["MemberStatus", "NodeSettings", "NodeStatus", "RaftNode"]
