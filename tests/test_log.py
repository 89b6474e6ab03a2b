"""The log as a value: runs, slices, truncation."""

from __future__ import annotations

import itertools
import random

from core_text import make_log, show

from txraft.core.log import EntryKind, Log, LogSlice


class TestLog:
    def test_terms_are_found_in_and_around_every_run(self):
        log = make_log("1:a 1:b 2:c 4:d 4:e")
        assert [log.term(index) for index in range(7)] == [0, 1, 1, 2, 4, 4, None]

    def test_a_run_is_split_and_joined_at_any_index(self):
        log = Log()
        log.append(1, 0, 5, [b"a", b"b", b"c", b"d"])
        for first, stop in itertools.combinations(range(1, 6), 2):
            (run,) = log.runs(first, stop)
            assert (run.first_index, run.commands) == (first, [b"a", b"b", b"c", b"d"][first - 1 : stop - 1])

    def test_truncation_forgets_runs_memory_and_durability(self):
        log = make_log("1:a 2:b 2:c")
        log.truncate(1)
        assert (show(log), log.last_term, log.durable_index, log.written_index) == ("1:a", 1, 1, 1)

    def test_time_never_goes_back(self):
        log = Log()
        log.append(1, 0, 50, [b"a"])
        log.append(1, 0, 20, [b"b"])
        assert [run.time_ms for run in log.runs(1, 3)] == [50]

    def test_the_first_conflict_is_found_wherever_it_is(self):
        mine = make_log("1:a 1:b 2:c 3:d")
        for text, expected in [
            ("1:a 1:b 2:c 3:d", None),
            ("1:a 1:b", None),
            ("1:a 1:b 2:c 3:d 3:e", 5),
            ("1:a 1:b 3:c", 3),
            ("2:a", 1),
        ]:
            other = make_log(text)
            entries = LogSlice(1, other.runs(1, other.last_index + 1))
            assert mine.first_conflict(entries) == expected, text

    def test_a_slice_weighs_what_was_asked_for_wherever_it_begins(self):
        rng = random.Random(4)
        for _ in range(300):
            log = Log()
            for time_ms in range(rng.randint(1, 8)):
                log.append(
                    1, EntryKind.COMMAND, time_ms, [bytes(rng.randint(0, 300)) for _ in range(rng.randint(1, 9))]
                )
            first, most = rng.randint(1, log.last_index), rng.randint(0, 5000)
            entries = log.slice(first, most)
            assert entries.first_index == first and len(entries) >= 1
            assert log.weight(entries) <= most or len(entries) == 1
            if entries.last_index < log.last_index:
                longer = LogSlice(first, log.runs(first, entries.stop_index + 1))
                assert log.weight(longer) > most
