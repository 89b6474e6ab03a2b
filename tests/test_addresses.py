"""Addresses have one spelling each, and nonsense is refused with a reason."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txraft.net import addresses
from txraft.net.addresses import format_address, interface_address, parse_address

PORTS = st.integers(1, 65535)
HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,20}[a-z0-9])?){0,3}", fullmatch=True),
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:29922", ("10.0.0.1", 29922)),
        ("10.0.0.1", ("10.0.0.1", 44497)),
        ("node-1.example.org:1", ("node-1.example.org", 1)),
        ("localhost", ("localhost", 44497)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::1]", ("::1", 44497)),
        ("::1", ("::1", 44497)),
        ("2001:db8::1:8877", ("2001:db8::1:8877", 44497)),
        # One server, one id, however it is written.
        ("Node-1.Example.ORG.:1", ("node-1.example.org", 1)),
        ("[2001:DB8:0:0::1]:7", ("2001:db8::1", 7)),
        ("10.0.0.1:00007", ("10.0.0.1", 7)),
    ],
)
def test_an_address_is_read_in_its_canonical_form(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, 44497) == address


@given(host=HOSTS, port=PORTS)
def test_what_is_formatted_is_read_back(host: str, port: int) -> None:
    assert parse_address(format_address(host, port), None) == (host, port)


@given(text=st.text(max_size=20))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, port = parse_address(text, 1)
    except ValueError:
        return
    assert parse_address(format_address(host, port), None) == (host, port)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "host name"),
        (":80", "host name"),
        ("a b:80", "host name"),
        ("-a:80", "host name"),
        ("a..b:80", "host name"),
        ("1.2.3:80", "host name"),
        ("300.1.1.1:80", "host name"),
        ("a" * 64, "host name"),
        ("a." * 128, "host name"),
        ("a:", "port ''"),
        ("a:0", "port '0'"),
        ("a:65536", "port '65536'"),
        ("a:+1", r"port '\+1'"),
        ("a:١", "port '١'"),
        ("[::1", "IPv6"),
        ("[::1]80", "IPv6"),
        ("[10.0.0.1]:80", "IPv6"),
        ("[::g]:80", "host name"),
        ("a\n:80", "host name"),
    ],
)
def test_a_bad_address_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(text, 44497)


def test_an_address_without_port_is_refused_where_there_is_no_default() -> None:
    with pytest.raises(ValueError, match="'node1' has no port"):
        parse_address("node1", None)


def test_an_interface_name_means_its_address() -> None:
    assert interface_address("lo") == "127.0.0.1"


def test_an_interface_without_ipv4_has_its_first_global_ipv6_address(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    table.write_text(
        "20010db8000000000000000000000009 03 40 00 80     eth1\n"
        "fe800000000000000000000000000001 02 40 20 80     eth0\n"
        "20010db8000000000000000000000007 02 40 00 80     eth0\n"
    )
    assert addresses._ipv6_address("eth0", table) == "2001:db8::7"


def test_an_interface_without_any_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'eth0' has no address"):
        addresses._ipv6_address("eth0", tmp_path / "absent")


@pytest.mark.parametrize(("name", "host"), [("10.0.0.7", "10.0.0.7"), ("::1", "::1"), ("LocalHost", "localhost")])
def test_a_literal_and_a_host_name_stay_what_they_are(name: str, host: str) -> None:
    assert interface_address(name) == host


@pytest.mark.parametrize("name", ["0.0.0.0", "::", "0::0"])
def test_every_address_at_once_is_no_address_to_be_reached_at(name: str) -> None:
    with pytest.raises(ValueError, match="every address of this machine"):
        interface_address(name)


def test_a_name_that_means_nothing_is_unresolvable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ValueError, match=r"'eth9' is no network interface here, and unresolvable"):
        interface_address("eth9")
