"""A stream of bytes in two dialects becomes requests, or is broken."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from kv_support import MIXED, resp
from twisted.trial.unittest import SynchronousTestCase

from txraft.machines.kv_requests import BrokenStream, Request, RequestSplitter

ARGUMENTS = st.lists(
    st.one_of(st.binary(max_size=20), st.sampled_from([b"*12", b"\r\n*1", b">99", b"get a\r\n"])),
    min_size=1,
    max_size=14,
)
LINES = st.binary(max_size=20).filter(
    lambda line: b"\n" not in line and not line.startswith(b"*") and not line.endswith(b"\r")
)


def split(data: bytes, cuts: list[int] = [], limit: int = 1 << 16) -> list[Request]:  # noqa: B006
    """The requests in `data`, given to a splitter in pieces."""
    splitter = RequestSplitter(limit)
    requests: list[Request] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        splitter.split(data[start:stop], requests)
    return requests


class SplitterTests(SynchronousTestCase):
    def broken(self, data: bytes, limit: int = 1 << 16) -> tuple[str, list[Request]]:
        """How the stream breaks, and the requests before, the same however it was cut."""
        found = set()
        for cuts in ([], list(range(len(data))), [len(data) // 2]):
            splitter, requests = RequestSplitter(limit), []
            edges = [0, *cuts, len(data)]
            try:
                for start, stop in itertools.pairwise(edges):
                    splitter.split(data[start:stop], requests)
            except BrokenStream as error:
                found.add((str(error), repr(requests)))
            else:
                found.add(("", repr(requests)))
        self.assertEqual(len(found), 1, found)
        return found.pop()

    def test_both_dialects_alternate_wherever_the_stream_is_cut(self) -> None:
        whole = split(MIXED)
        self.assertEqual(len(whole), 7)
        for cut in range(len(MIXED)):
            self.assertEqual(split(MIXED, [cut]), whole, cut)
        self.assertEqual(split(MIXED, list(range(len(MIXED)))), whole)

    def test_a_line_may_begin_with_what_hiredis_would_take(self) -> None:
        for line in (
            b"+OK",
            b":1",
            b"$5",
            b"$-1",
            b"-ERR",
            b"%1",
            b"~1",
            b">1000000000",
            b"_",
            b"#f",
            b"#t",
            b",1",
            b"(",
        ):
            data = resp("PING") + line + b"\r\n" + resp("ECHO", "x")
            for cut in range(len(data)):
                self.assertEqual(split(data, [cut]), [[b"PING"], line, [b"ECHO", b"x"]], (line, cut))

    def test_values_that_look_like_headers_are_values(self) -> None:
        for value in (
            b"*1000000000\r\n",
            b"\r\n*99\r\n",
            b">12",
            b"*",
            b"*1",
            b">" * 50 + b"*12345678901234567890",
            b"*0\r\n" * 9,
        ):
            data = resp("SET", "k", value) + resp("GET", "k")
            for cut in range(len(data)):
                self.assertEqual(split(data, [cut]), [[b"SET", b"k", value], [b"GET", b"k"]], (value, cut))

    def test_empty_requests_are_passed_over(self) -> None:
        self.assertEqual(split(b"*0\r\n" * 3 + resp("PING")), [[b"PING"]])

    def test_a_header_that_promises_too_much_is_refused_before_anything_is_allocated(self) -> None:
        """Bombs: 2**31 elements at the top, in a request, and as a push."""
        problem, before = self.broken(resp("PING") + b"*1000000000\r\n$1\r\n")
        self.assertEqual((problem, before), ("Protocol error: invalid multibulk length", "[[b'PING']]"))
        self.assertEqual(self.broken(b"*99999\r\n$1")[0], "Protocol error: invalid multibulk length")
        for header in (b"*1000000000", b">1000000000", b"*12"):
            problem, _ = self.broken(b"*2\r\n$1\r\na\r\n" + header + b"\r\n")
            self.assertTrue(problem.startswith("Protocol error"), problem)

    def test_what_is_no_bulk_string_in_a_request_breaks_the_stream(self) -> None:
        elements = (b":1\r\n", b"$-1\r\n", b"*0\r\n", b"*1\r\n:1\r\n", b"_\r\n", b"-ERR\r\n", b"%1\r\n+a\r\n+b\r\n")
        for element in elements:
            problem, before = self.broken(resp("PING") + b"*1\r\n" + element)
            self.assertTrue(problem.startswith("Protocol error"), (element, problem))
            self.assertEqual(before, "[[b'PING']]", element)

    def test_garbage_in_a_request_breaks_the_stream(self) -> None:
        for garbage in (
            b"*a\r\n",
            b"*2\r\n$1\r\na\r\nget a\r\n",
            b"*-1\r\n",
            b"*1\r\n$99999999999999999999\r\n",
        ):
            self.assertRaises(BrokenStream, split, garbage + resp("PING") * 2)

    def test_deep_nesting_breaks_the_stream(self) -> None:
        for header in (b"*1\r\n", b"*9\r\n", b"*2\r\n$0\r\n\r\n"):
            self.assertRaises(BrokenStream, split, header * 100_000)

    def test_an_incomplete_request_is_bounded(self) -> None:
        for data in (
            b"*2\r\n$3\r\nGET\r\n$5000\r\n" + b"x" * 2000,
            b"get " + b"x" * 2000,
            b"*1\r\n$9\r\n" + b"*1" * 1000,
        ):
            self.assertTrue(self.broken_at(data), data[:20])

    def broken_at(self, data: bytes) -> bool:
        splitter = RequestSplitter(1000)
        for start in range(0, len(data), 100):
            try:
                splitter.split(data[start : start + 100], [])
            except BrokenStream:
                return 900 <= start <= 1100
        return False

    def test_alternating_many_times_in_one_read_is_not_quadratic(self) -> None:
        """Counted, not timed: what hiredis is given again for each line is a small step, not the rest of the read."""

        class CountingSplitter(RequestSplitter):
            fed = 0

            def _feed(self, data: bytes, requests: list[Request]) -> bool:
                self.fed += len(data)
                return super()._feed(data, requests)

        splitter, requests = CountingSplitter(1 << 20), []
        splitter.split((b"x\n" + resp("PING")) * 5_000, requests)
        self.assertEqual(requests, [b"x", [b"PING"]] * 5_000)
        self.assertLess(splitter.fed, 5_000 * 600)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(ARGUMENTS, LINES), max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_any_requests_come_out_as_they_went_in(requests: list[Request], cuts: list[int]) -> None:
    data = b"".join(request + b"\r\n" if isinstance(request, bytes) else resp(*request) for request in requests)
    assert split(data, [min(cut, len(data)) for cut in cuts]) == requests


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30), st.sampled_from([b"*1\r\n", b"*12", b"$1\r\na\r\n", b">2\r\n", b"\r\n", b"get a\n"])
        ),
        max_size=12,
    )
)
def test_no_bytes_do_more_than_break_the_stream(pieces: list[bytes]) -> None:
    splitter, requests = RequestSplitter(200), []
    try:
        for piece in pieces:
            splitter.split(piece, requests)
    except BrokenStream:
        pass
    assert all(
        type(part) is bytes for request in requests for part in ([request] if isinstance(request, bytes) else request)
    )
