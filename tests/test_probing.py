"""Whether a server could be talked to, found out without becoming its peer."""

from __future__ import annotations

from memory_links import Network, Server, log_lines, vote

from txraft.net.dialling import CONNECT_S
from txraft.net.links import HANDSHAKE_S


def probed(network: Network, asker: Server, server_id: str, seconds: float = 0, address: str = "") -> str:
    found: list[str] = []
    asker.transport.probe(server_id, address or server_id).addCallback(found.append)
    network.run()
    if seconds:
        assert not found
        network.advance(seconds)
        network.run()
    assert len(found) == 1
    return found[0]


def test_a_passive_server_is_reachable_and_has_not_become_a_peer():
    network = Network()
    asker, passive = Server(network, "s1", "s1"), Server(network, "s2", cluster_id="")
    assert probed(network, asker, "s2") == "reachable"
    assert (asker.transport.link_status("s2"), passive.received) == ("not a peer", [])
    network.advance(2)
    assert network.ends == [], "nothing is left of it"


def test_a_peer_is_asked_nothing_as_its_link_says_it_already():
    network = Network()
    asker, _ = Server(network, "s1", "s1 s2"), Server(network, "s2", "s1 s2")
    network.run()
    attempts = len(network.attempts)
    assert probed(network, asker, "s2") == "reachable"
    assert len(network.attempts) == attempts
    Server(network, "s4", "s4 s5")
    lonely = Server(network, "s3", "s3 s9")
    network.run()
    assert probed(network, lonely, "s9").startswith("cannot connect")


def test_who_is_not_there_is_not_reachable():
    network = Network()
    assert probed(network, Server(network, "s1", "s1"), "s2").startswith("cannot connect: ")


def test_who_does_not_answer_is_given_up():
    """N12: a name that is never resolved, a connection that is never made."""
    network = Network()
    asker = Server(network, "s1", "s1")
    network.silent.add("s2")
    assert "no answer within" in probed(network, asker, "s2", CONNECT_S + 1)


def test_who_takes_the_connection_and_says_nothing_is_given_up():
    network = Network()
    asker = Server(network, "s1", "s1")
    Server(network, "s2", cluster_id="")
    found: list[str] = []
    asker.transport.probe("s2", "s2").addCallback(found.append)
    waiting, network.waiting = network.waiting, []
    for attempt in waiting:
        network.complete(*attempt)
    network.link("s1", "s2").other.stalled = True
    network.advance(HANDSHAKE_S + 2)
    assert found == [f"no handshake within {HANDSHAKE_S:g} s"]


def test_a_server_of_another_cluster_or_with_another_name_is_not_the_one_that_is_meant():
    network = Network()
    asker = Server(network, "s1", "s1")
    Server(network, "s2", cluster_id="other")
    assert "belongs to cluster" in probed(network, asker, "s2")
    other = Server(network, "s3", cluster_id="")
    network.listening["s4"] = network.listening["s3"]
    assert "s3" in probed(network, asker, "s4")
    assert other.received == []


def test_a_probe_is_no_news_for_the_log_of_who_asks():
    network = Network()
    asker = Server(network, "s1", "s1")
    with log_lines() as lines:
        probed(network, asker, "s2")
    assert lines == []


def test_a_peer_that_moves_is_looked_for_where_it_will_be():
    network = Network()
    asker, mover = Server(network, "s1", "s1 s2"), Server(network, "s2", "s1 s2")
    network.run()
    assert probed(network, asker, "s2", address="elsewhere").startswith("cannot connect")
    network.listening["elsewhere"] = network.listening["s2"]
    assert probed(network, asker, "s2", address="elsewhere") == "reachable"
    network.advance(2)
    mover.send("s1", vote(3))
    network.run()
    assert asker.terms() == [3], "the links are there, or there again"
