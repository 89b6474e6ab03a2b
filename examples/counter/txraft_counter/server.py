"""The counter's clients: every line is a number to add, and is answered with the new total; "?" only asks for it."""

from twisted.application.strports import service
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver


class CounterProtocol(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 18

    def __init__(self, node):
        self.node = node

    def lineReceived(self, line):
        try:
            # Checked here: a command that makes `apply` raise would stop every server.
            answer = self.node.read(b"") if line.strip() == b"?" else self.node.propose(b"%d" % int(line))
        except ValueError:
            self.sendLine(b"expected a number or ?")
        else:
            answer.addCallbacks(str, lambda failure: failure.getErrorMessage())
            answer.addCallback(lambda text: self.sendLine(text.encode()))


def counter_service(node, port):
    return service(f"tcp:{port}:interface=127.0.0.1", Factory.forProtocol(lambda: CounterProtocol(node)))
