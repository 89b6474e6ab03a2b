"""`raftctl manhole-password`: a user and a password for the telnet manhole."""

from __future__ import annotations

import argparse
import getpass
import sys

from txraft.admin.manhole.passwords import MAX_PASSWORD_BYTES, MIN_PASSWORD_BYTES, USER, write_password
from txraft.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Gives a user a password for the telnet manhole. It is asked for twice; if standard input is no terminal, its "
        "first line is taken."
    )
    parser.add_argument("file", help="what manhole_password_file names; made if it is not there")
    parser.add_argument("user", help="1 to 64 of A-Z a-z 0-9 _ . -")


def run(options: argparse.Namespace) -> int:
    """The exit status: 0 the password is in the file, 1 it is not, 2 it cannot be one."""
    try:
        if not USER.fullmatch(options.user):
            raise ValueError("a user is 1 to 64 of A-Z a-z 0-9 _ . -")
        password = _ask(options.user)
        if not MIN_PASSWORD_BYTES <= len(password) <= MAX_PASSWORD_BYTES:
            raise ValueError(f"a password has {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes")
        write_password(options.file, options.user, password)
    except ValueError as error:
        print(f"raftctl: {error}", file=sys.stderr)
        return 2
    except (ConfigError, OSError) as error:
        print(f"raftctl: {error}", file=sys.stderr)
        return 1
    print(f"{options.user} can log in with that password, as {options.file} says.")
    return 0


def _ask(user: str) -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n").encode()
    first = getpass.getpass(f"Password of {user}: ")
    if getpass.getpass("Again: ") != first:
        raise ValueError("these are two passwords")
    return first.encode()
