"""A lottery with a bug: a winner that each server draws for itself. `raftctl simulate --machine lottery:plugin`"""

import random

from zope.interface import implementer

from txraft.interfaces import ISimulatedPlugin, IStateMachine, IStateMachinePlugin

NAMES = [b"ann", b"bob", b"cleo", b"dan"]


@implementer(IStateMachine)
class Lottery:
    def __init__(self):
        self.tickets = []
        self.winners = []

    def apply(self, first_index, commands, time_ms):
        return [self.carry_out(index, command) for index, command in enumerate(commands, first_index)]

    def carry_out(self, index, command):
        if command != b"draw":
            self.tickets.append(command)
            return len(self.tickets)
        if not self.tickets:
            return None
        winner = self.draw(index)
        self.tickets.remove(winner)
        self.winners.append(winner)
        return winner

    def draw(self, index):
        # The bug: other servers, and this one after a restart, draw others.
        return random.choice(self.tickets)

    def query(self, request):
        return list(self.winners)

    def snapshot(self):
        return [b" ".join(self.tickets), b" ".join(self.winners)]

    def restore(self, chunks):
        self.tickets, self.winners = [chunk.split() for chunk in chunks]


@implementer(IStateMachinePlugin, ISimulatedPlugin)
class LotteryPlugin:
    name = "lottery"
    description = "Names are put in, and drawn; an example for the simulation."

    def __init__(self, machine):
        self.machine = machine

    def build(self, options):
        return self.machine()

    def service(self, node, machine, options):
        return None

    def command(self, rng):
        return rng.choice([*NAMES, b"draw"])

    def query(self, rng):
        return b"winners"

    def check(self, machine):
        assert set(machine.winners) <= set(NAMES), machine.winners


plugin = LotteryPlugin(Lottery)
