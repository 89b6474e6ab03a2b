"""Makes the counter known to twistd. Name such a file after your project: of two with one name, one is lost."""

from txraft_counter.machine import CounterPlugin

counter = CounterPlugin()
