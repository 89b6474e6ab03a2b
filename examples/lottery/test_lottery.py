from txraft.testing import simulate


def test_lottery():
    simulate("lottery_mended:plugin", seeds=20)
