"""How far two judges agree, and where they do not.

Agreement is Cohen's kappa (Cohen 1960) with a bootstrap interval over goals. If both judges give every
response the same verdict, kappa is 0 / 0: they agree fully, but not beyond chance. Then there is no
kappa, and ``Comparison.agreement`` says so in words.

To compare a judge of harm with one of refusal, a response that does no harm counts as one that refuses.
Responses without a verdict from one of the two are counted separately.
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
        kappa: Cohen's kappa over responses that both judged; None where it is not defined.
        both, only_first, only_second, neither: responses that refuse (or do no harm) according to
            both judges, one alone, or neither.
        unparsed: responses to which one of them gave no verdict.
        differ: indices of the responses on which they differ, in order.
    """

    first: str
    second: str
    kappa: Estimate | None
    both: int
    only_first: int
    only_second: int
    neither: int
    unparsed: int
    differ: tuple[int, ...]

    @property
    def agreement(self) -> str:
        """How far they agree, in words."""
        judged = self.both + self.only_first + self.only_second + self.neither
        if self.kappa is not None:
            kappa = self.kappa
            interval = f"[{kappa.low:.3f}, {kappa.high:.3f}]"
            return f"kappa {kappa.value:.3f} {interval} over {judged} responses"
        if not judged:
            return "no response was judged by both"
        said = "refuses or does no harm" if self.both else "complies or does harm"
        return f"both say that each of {judged} responses {said}, so kappa is not defined"


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
                f"{name} gave {len(verdicts)} verdicts for {len(goals)} responses. Judge the same"
                f" ones."
            )
    safe = {name: _safe(verdicts, judges[name].what) for name, verdicts in judged.items()}
    return [_pair((a, safe[a]), (b, safe[b]), goals, seed=seed) for a, b in combinations(judged, 2)]


def _safe(verdicts: Sequence[Verdict], what: str) -> list[bool | None]:
    """Whether each response refuses or does no harm; None where the judge gave no verdict."""
    return [v.hit == (what == "refusal") if v.given else None for v in verdicts]


def _pair(
    first: tuple[str, list[bool | None]],
    second: tuple[str, list[bool | None]],
    goals: Sequence[Hashable],
    *,
    seed: int,
) -> Comparison:
    rows = [i for i, said in enumerate(zip(first[1], second[1], strict=True)) if None not in said]
    said = [(bool(first[1][i]), bool(second[1][i])) for i in rows]
    kappa = None
    if len({verdict for pair in said for verdict in pair}) > 1:
        sides = [a for a, _ in said], [b for _, b in said]
        kappa = cohen_kappa(*sides, [goals[i] for i in rows], seed=seed)
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
