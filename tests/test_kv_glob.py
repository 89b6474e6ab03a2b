"""Patterns of keys, as Redis has them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.machines.kv_glob import glob_matcher


class GlobTests(SynchronousTestCase):
    def test_patterns_match_as_in_redis(self) -> None:
        for pattern, matching, others in [
            (b"*", [b"", b"a", b"\n\x00\xff"], []),
            (b"", [b""], [b"a"]),
            (b"a", [b"a"], [b"", b"A", b"aa"]),
            (b"h?llo", [b"hello", b"h\nllo"], [b"hllo", b"heello"]),
            (b"h*llo", [b"hllo", b"heeeello"], [b"hell"]),
            (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo"]),
            (b"h[^e]llo", [b"hallo"], [b"hello"]),
            (b"h[!e]llo", [b"h!llo", b"hello"], [b"hallo"]),
            (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
            (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
            (b"[\\^a]", [b"^", b"a"], [b"\\", b"b"]),
            (b"[\\]a]", [b"]", b"a"], [b"\\"]),
            (b"[a", [b"a"], [b"[a", b"b"]),
            (b"[]", [], [b"", b"a", b"[]"]),
            (b"[^]", [b"a", b"^"], [b""]),
            # The bracket ends the range, not the class.
            (b"[a-]", [b"a", b"]", b"_"], [b"b", b"-"]),
            (b"\\*", [b"*"], [b"a", b"\\*"]),
            (b"a\\", [b"a\\"], [b"a"]),
            (b"a.b", [b"a.b"], [b"axb"]),
            (b"a*b*c", [b"abc", b"abbcc", b"a--b--c--c"], [b"ab", b"acb", b"abcd"]),
            (b"**a**", [b"a", b"xax"], [b"x"]),
            (b"*a*a", [b"aa", b"baba"], [b"a"]),
            (b"*ab*ab", [b"abab"], [b"aab", b"ab"]),
        ]:
            matches = glob_matcher(pattern)
            self.assertEqual([key for key in matching if not matches(key)], [], pattern)
            self.assertEqual([key for key in others if matches(key)], [], pattern)

    def test_many_stars_take_no_exponential_time(self) -> None:
        self.assertFalse(glob_matcher(b"*a" * 400 + b"b")(b"a" * 5000))
