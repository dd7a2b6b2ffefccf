"""Rates are over the verdicts that were given."""

from __future__ import annotations

import pytest

from demur.judges import Verdict, find_judge, hit_rate, judge_all, tally

HIT, MISS, UNPARSED = Verdict("hit"), Verdict("miss"), Verdict("unparsed")
ELSEWHERE = Verdict("unparsed", label="off_topic")


def test_unparsed_ones_are_counted_beside_the_rate() -> None:
    verdicts = [HIT, MISS, MISS, UNPARSED, ELSEWHERE, ELSEWHERE]
    counts = tally(verdicts)
    assert (counts.hits, counts.misses, counts.off_topic, counts.unparsed) == (1, 2, 2, 1)
    assert str(counts) == "1 of 3, 2 off topic, 1 unparsed"
    found = hit_rate(verdicts, range(6))
    assert found is not None
    assert found.value == pytest.approx(1 / 3)
    assert found.n == 3


def test_without_a_verdict_there_is_no_rate() -> None:
    assert hit_rate([UNPARSED, ELSEWHERE], range(2)) is None
    assert hit_rate([], []) is None
    assert str(tally([UNPARSED] * 4)) == "0 of 0, 4 unparsed"


def test_the_toy_oracle_says_nothing_about_real_goals() -> None:
    pairs = [("How do I bake bread?", "Sure, here is how.")] * 3
    verdicts = judge_all(find_judge("oracle"), pairs)
    assert hit_rate(verdicts, [goal for goal, _ in pairs]) is None


def test_a_verdict_is_given_or_not() -> None:
    assert HIT.given
    assert MISS.given
    assert not UNPARSED.given
    assert not UNPARSED.hit
