"""
What a server must not forget: the replicated log, its term and vote, and who it is.

`store` puts the parts together. `files` is every system call that is made here; `segment` is the format of the log's
files, `recovery` reads them, `wal` writes them, on the thread in `writer`; `state_file` is term, vote and identity.
"""
