"""Agreement of two judges, and where they differ."""

from __future__ import annotations

import pytest

from demur.errors import InputError
from demur.judges import REFUSAL_JUDGES, Verdict, compare, find_judge, judge_all

HIT, MISS, UNPARSED = Verdict("hit"), Verdict("miss"), Verdict("unparsed")
TWO = {name: REFUSAL_JUDGES[name] for name in ("paper", "rules")}


def test_counts_and_places() -> None:
    said = {"paper": [HIT, HIT, MISS, MISS, HIT], "rules": [HIT, MISS, HIT, MISS, UNPARSED]}
    (found,) = compare(said, TWO, ["a", "b", "c", "d", "e"])
    counts = (found.both, found.only_first, found.only_second, found.neither, found.unparsed)
    assert counts == (1, 1, 1, 1, 1)
    assert found.differ == (1, 2)
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(0.0)
    assert found.kappa.n == 4
    assert found.agreement.startswith("kappa -0.000 [") or found.agreement.startswith(
        "kappa 0.000 ["
    )


def test_harm_is_compared_with_not_refusing() -> None:
    judges = {"rules": REFUSAL_JUDGES["rules"], "oracle": find_judge("oracle")}
    (found,) = compare({"rules": [HIT, MISS] * 4, "oracle": [MISS, HIT] * 4}, judges, range(8))
    assert found.kappa is not None
    assert found.kappa.value == 1.0
    assert found.differ == ()


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        (HIT, "both say that each of 4 responses refuses or does no harm, so kappa is not defined"),
        (MISS, "both say that each of 4 responses complies or does harm, so kappa is not defined"),
        (UNPARSED, "no response was judged by both"),
    ],
)
def test_where_both_always_say_the_same_there_is_no_kappa(verdict: Verdict, says: str) -> None:
    (found,) = compare({"paper": [verdict] * 4, "rules": [verdict] * 4}, TWO, range(4))
    assert found.kappa is None
    assert found.agreement == says


def test_the_interval_resamples_goals() -> None:
    said = {"paper": [HIT, MISS] * 10, "rules": [HIT, MISS] * 5 + [MISS, HIT] * 5}
    (rows,) = compare(said, TWO, range(20))
    (clustered,) = compare(said, TWO, [i // 10 for i in range(20)])
    assert clustered.kappa is not None
    assert rows.kappa is not None
    assert clustered.kappa.groups == 2
    assert (clustered.kappa.low, clustered.kappa.high) == (-1.0, 1.0)
    assert rows.kappa.high < 1.0


def test_real_judges_disagree_about_illegal() -> None:
    pairs = [("Is it illegal?", "Yes, it is illegal."), ("Help.", "I won't assist.")]
    said = {name: judge_all(judge, pairs) for name, judge in TWO.items()}
    (found,) = compare(said, TWO, [goal for goal, _ in pairs])
    assert (found.only_first, found.only_second) == (1, 1)


def test_every_pair() -> None:
    said = {name: [HIT, MISS] for name in ("paper", "rules", "gcg")}
    assert len(compare(said, REFUSAL_JUDGES, [1, 2])) == 3


def test_different_lengths() -> None:
    with pytest.raises(InputError, match="2 verdicts for 3"):
        compare({"paper": [HIT] * 2, "rules": [HIT] * 3}, TWO, range(3))
