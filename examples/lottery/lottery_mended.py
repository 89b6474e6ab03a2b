"""The same lottery without the bug: `raftctl simulate --machine lottery_mended:plugin`"""

import random

from lottery import Lottery, LotteryPlugin


class MendedLottery(Lottery):
    def draw(self, index):
        # The index of the command is the same on every server, so this generator gives the same on all of them.
        return random.Random(index).choice(self.tickets)


plugin = LotteryPlugin(MendedLottery)
