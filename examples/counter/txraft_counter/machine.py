from zope.interface import implementer

from txraft.interfaces import ISimulatedPlugin, IStateMachine, IStateMachinePlugin


@implementer(IStateMachine)
class Counter:
    total = 0

    def apply(self, first_index, commands, time_ms):
        return [self.add(int(command)) for command in commands]

    def add(self, amount):
        self.total += amount
        return self.total

    def query(self, request):
        return self.total

    def snapshot(self):
        return [b"%d" % self.total]

    def restore(self, chunks):
        self.total = int(b"".join(chunks))


@implementer(IStateMachinePlugin, ISimulatedPlugin)
class CounterPlugin:
    name = "counter"
    description = "A number that clients add to; an example of a state machine."

    def build(self, options):
        return Counter()

    def service(self, node, machine, options):
        from txraft_counter.server import counter_service

        return counter_service(node, options.get("counter_port", "8900"))

    def command(self, rng):
        return b"%d" % rng.randrange(-9, 100)

    def query(self, rng):
        return b""

    def check(self, machine):
        assert type(machine.total) is int, machine.total
