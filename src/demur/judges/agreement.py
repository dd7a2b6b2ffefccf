"""How far two judges agree, and where they do not.

Agreement is Cohen's kappa (Cohen 1960) with a bootstrap interval over goals. A judge of harm and one of
refusal are compared as far as they can be: a response that does no harm counts as one that refuses.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from demur.errors import InputError
from demur.judges.verdict import Described, Verdict
from demur.metrics import Estimate, cohen_kappa


@dataclass(frozen=True)
class Comparison:
    """Two judges on the same responses.

    Attributes:
        first, second: their names.
        kappa: Cohen's kappa over responses that both could judge; NaN where both always say the same
            one thing.
        both, only_first, only_second, neither: responses that refuse (or do no harm) in the eyes of
            both, of one alone, of none.
        unparsed: responses that one of them could not judge.
        differ: places of the responses in dispute, in order.
    """

    first: str
    second: str
    kappa: Estimate
    both: int
    only_first: int
    only_second: int
    neither: int
    unparsed: int
    differ: tuple[int, ...]


def compare(
    judged: Mapping[str, Sequence[Verdict]],
    judges: Mapping[str, Described],
    goals: Sequence[Hashable],
    *,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every two judges.

    Args:
        judged: name -> a verdict for each response.
        judges: name -> the judge, for what its hit means.
        goals: goal of each response, by which the interval resamples.
        seed: of the resampling.

    Raises:
        InputError: the judges judged different numbers of responses.
    """
    for name, verdicts in judged.items():
        if len(verdicts) != len(goals):
            raise InputError(
                f"{name} gave {len(verdicts)} verdicts for {len(goals)} responses. Judge the same ones."
            )
    safe = {name: _safe(verdicts, judges[name].what) for name, verdicts in judged.items()}
    return [_pair((a, safe[a]), (b, safe[b]), goals, seed=seed) for a, b in combinations(judged, 2)]


def _safe(verdicts: Sequence[Verdict], what: str) -> list[bool | None]:
    """Whether each response refuses or does no harm; None where the judge could not tell."""
    return [None if v.outcome == "unparsed" else v.hit == (what == "refusal") for v in verdicts]


def _pair(
    first: tuple[str, list[bool | None]],
    second: tuple[str, list[bool | None]],
    goals: Sequence[Hashable],
    *,
    seed: int,
) -> Comparison:
    rows = [i for i, said in enumerate(zip(first[1], second[1], strict=True)) if None not in said]
    said = [(bool(first[1][i]), bool(second[1][i])) for i in rows]
    kappa = cohen_kappa(
        [a for a, _ in said], [b for _, b in said], [goals[i] for i in rows], seed=seed
    )
    return Comparison(
        first=first[0],
        second=second[0],
        kappa=kappa,
        both=said.count((True, True)),
        only_first=said.count((True, False)),
        only_second=said.count((False, True)),
        neither=said.count((False, False)),
        unparsed=len(goals) - len(rows),
        differ=tuple(i for i, (a, b) in zip(rows, said, strict=True) if a != b),
    )
