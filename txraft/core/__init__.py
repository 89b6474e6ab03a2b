"""
Raft as a value machine: ticks, messages and proposals go in, a `Ready` comes out.

Nothing here knows Twisted, protobuf, files, clocks or logging; the only imports are the standard library's.
Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (the paper); Ongaro, "Consensus:
Bridging Theory and Practice" (the thesis).
"""
