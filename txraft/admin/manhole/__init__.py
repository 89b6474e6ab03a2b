"""
The manhole: a prompt inside of a running server, by telnet or ssh, off unless raft.conf asks for it.

What is typed and who types it are told apart: `telnet` and `ssh` find out who it is, `terminal` and `plain` carry lines
to and fro, `conversation` carries out what a user asks for and writes it to the log, `verbs` is what can be asked.
"""
