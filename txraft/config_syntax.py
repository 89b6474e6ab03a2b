"""
The syntax of raft.conf: lines of `key=value`, and the kinds of value there are. What the keys mean is in `config`.

Blank lines may stand anywhere; a line whose first character that is no space is `#` is a comment; spaces around key and
value do not count.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from txraft.errors import ConfigError

_SIZE = re.compile(r"([0-9]{1,15})\s*(KiB|MiB|GiB)?")
_SIZE_FACTORS = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@attrs.frozen
class Setting:
    """One `key=value`. `where` is `file:line`, or `--set key` for one from the command line."""

    name: str
    value: str
    where: str


@attrs.frozen
class Kind:
    """A kind of value: the words for it in raft.conf, and its parser, which raises `ValueError`."""

    words: str
    parse: Callable[[str], Any]


def read_lines(text: str, file: str, problems: list[ConfigError]) -> list[Setting]:
    """The settings in `text`, in order; a line that is none of `key=value`, comment and blank goes to `problems`."""
    settings: list[Setting] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            _append_setting(settings, stripped, f"{file}:{number}", problems)
    return settings


def read_overrides(overrides: Iterable[str], problems: list[ConfigError]) -> list[Setting]:
    """The settings of the command line's `--set key=value`."""
    settings: list[Setting] = []
    for override in overrides:
        where = f"--set {override.partition('=')[0].strip()}"
        _append_setting(settings, override, where, problems)
    return settings


def _append_setting(settings: list[Setting], line: str, where: str, problems: list[ConfigError]) -> None:
    name, equals, value = (part.strip() for part in line.partition("="))
    if not equals or not name:
        problems.append(ConfigError(f"expected key=value, not {line!r}", where))
    elif re.search(r"\s#", value):
        # Taken as a part of the value it would name a directory "raft-data # here".
        problems.append(ConfigError(f"{name}: a comment needs a line of its own", where))
    else:
        settings.append(Setting(name, value, where))


def by_name(settings: Sequence[Setting], problems: list[ConfigError]) -> dict[str, Setting]:
    """The settings by their key; a key that is there twice goes to `problems`."""
    found: dict[str, Setting] = {}
    for setting in settings:
        if setting.name in found:
            first = found[setting.name].where
            problems.append(ConfigError(f"{setting.name} is set twice, first at {first}", setting.where))
        else:
            found[setting.name] = setting
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the one of `known` that is spelt most like `name`; empty if none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _parse_whole(text: str, minimum: int, maximum: int) -> int:
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or not minimum <= int(text) <= maximum:
        raise ValueError(f"expected a whole number from {minimum} to {maximum}")
    return int(text)


def whole(unit: str, minimum: int = 1, maximum: int = 10**9) -> Kind:
    """Whole numbers of `unit` in [minimum, maximum]."""
    return Kind(f"{unit}, from {minimum} to {maximum}", lambda text: _parse_whole(text, minimum, maximum))


def size(minimum: int, maximum: int = 1 << 40) -> Kind:
    """Numbers of bytes in [minimum, maximum], which may end in KiB, MiB or GiB."""

    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text)
        value = int(match[1]) * _SIZE_FACTORS[match[2]] if match else -1
        if not minimum <= value <= maximum:
            raise ValueError(
                f"expected bytes, from {show_size(minimum)} to {show_size(maximum)}, such as 4096, 64 KiB or 1 MiB"
            )
        return value

    return Kind(f"bytes, from {show_size(minimum)} to {show_size(maximum)}", parse)


def show_size(count: int) -> str:
    """`count` bytes, in the largest unit that divides it, as raft.conf spells it."""
    for unit in ("GiB", "MiB", "KiB"):
        factor = _SIZE_FACTORS[unit]
        if count and count % factor == 0:
            return f"{count // factor} {unit}"
    return str(count)


def _parse_yes_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("expected yes or no")
    return text == "yes"


def _parse_text(text: str) -> str:
    if not text:
        raise ValueError("expected a value")
    return text


def _parse_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("expected 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return text


def _parse_list(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise ValueError("expected a list with commas between its parts")
    return parts


def _parse_ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("expected an IP address") from None


def _parse_loopback(text: str) -> str:
    if not ipaddress.ip_address(_parse_ip(text)).is_loopback:
        raise ValueError("expected a loopback address, 127.0.0.1 or ::1, as nothing is encrypted there")
    return text


def one_of(*words: str) -> Kind:
    """One of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {' or '.join(words)}")
        return text

    return Kind(" or ".join(words), parse)


MILLISECONDS = whole("ms", 1, 3_600_000)
PORT = whole("port number", 1, 65535)
PORT_OR_OFF = Kind(
    "port number, from 1 to 65535, or off", lambda text: None if text == "off" else _parse_whole(text, 1, 65535)
)
YES_NO = Kind("yes or no", _parse_yes_no)
TEXT = Kind("text", _parse_text)
NAME = Kind("1 to 64 of A-Z a-z 0-9 _ . -", _parse_name)
PATH = Kind("path", _parse_text)
ADDRESS = Kind("address", _parse_text)
IP_ADDRESS = Kind("IP address", _parse_ip)
LOOPBACK_ADDRESS = Kind("loopback IP address", _parse_loopback)
ADDRESS_LIST = Kind("addresses, with commas between them", _parse_list)
