"""Raft consensus as a Twisted service, with state machines that you write."""

__version__ = "0.1.0"
