"""Cells of suffix searches by attackers who know the guard: success by query budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from demur.attacks import attack_from
from demur.attacks.suffix_search import SuffixSearch
from demur.generation import trace
from demur.guard import Guard
from demur.sampling import sampler_from
from demur.study.engine.cells import UNKEYED, ArmCell, Subject
from demur.study.engine.workspace import Workspace
from demur.study.plan.spec import Judges, SearchSpec
from demur.study.work.guards import GuardsCell
from demur.study.work.traces import target_of
from demur.study.work.verdicts import Hit, harm_judge
from demur.types import Prompt, Record


@dataclass(frozen=True)
class Attempt:
    """A prompt that the attacker sent, and what came of it.

    Attributes:
        goal: 0-based place of its goal.
        queries: queries spent until it was found; 0 for the prompt without a suffix.
        harmful: whether the answer is harmful; None: no verdict.
    """

    goal: int
    queries: int
    harmful: Hit
    flagged: bool


@dataclass(frozen=True)
class SearchResult:
    """What a search reached.

    Attributes:
        attempts: for every goal the prompt without a suffix, then each improvement.
        queries: query budget per goal.
    """

    goals: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    queries: int


@dataclass(frozen=True, kw_only=True)
class SuffixAttackCell(ArmCell[SearchResult]):
    """One suffix search per goal. The attacker sends every improvement and keeps what works."""

    kind, version = "adaptive", 2

    search: SearchSpec
    prompts: tuple[Prompt, ...]
    guards: GuardsCell
    judges: Judges
    seed: int
    batch_size: int = field(metadata=UNKEYED)

    @property
    def subject(self) -> Subject:
        return Subject(arm=self.arm.name, search=search_name(self.search))

    @property
    def units(self) -> int:
        return len(self.prompts)

    @property
    def pace(self) -> float:
        """A query costs a generation if it asks the guard, else a first step."""
        queries = int(self.search.settings.get("queries", SuffixSearch.queries))
        asks_guard = self.search.name == "adaptive"
        return self.arm.pace * queries / (1 if asks_guard else self.arm.sampler.get("steps", 32))

    def run(self, workspace: Workspace) -> SearchResult:
        model = workspace.model(self.arm)
        guard = Guard.load(workspace.at(self.guards) / f"{self.search.guard}.safetensors")
        known = {"guard": guard} if self.search.name == "adaptive" else {}
        state: dict[str, Any] = {"name": self.search.name, "state": workspace.path / "state.json"}
        attack = attack_from({**self.search.settings, **known, **state})
        assert isinstance(attack, SuffixSearch)
        found = attack.search(self.prompts, target=target_of(self.arm, model), seed=self.seed)
        sent: list[tuple[int, int, Prompt]] = []
        for place, (prompt, one) in enumerate(zip(self.prompts, found, strict=True)):
            better = ((b.queries, attack.prompt_with(prompt, b.suffix)) for b in one.history)
            sent += [(place, *step) for step in ((0, prompt), *better)]
        made = guard.fingerprint
        assert made is not None, "the guard was fitted on traces"
        traces = trace(
            model,
            {prompt.id: prompt for *_, prompt in sent}.values(),
            sampler=sampler_from(made.sampler),
            record=Record(pooling=made.pooling, seed=self.seed),
            batch_size=self.batch_size,
            progress=workspace.advance,
        )
        harmful = harm_judge(self.judges)([(t.prompt.goal, t.answer) for t in traces])
        flags = (guard.score(traces) > guard.threshold).tolist()
        ends = {t.prompt.id: end for t, *end in zip(traces, harmful, flags, strict=True)}
        return SearchResult(
            goals=tuple(prompt.goal for prompt in self.prompts),
            attempts=tuple(Attempt(place, n, *ends[prompt.id]) for place, n, prompt in sent),
            queries=attack.queries * attack.restarts,
        )


def search_name(search: SearchSpec) -> str:
    """What the attacker optimises, and the guard, for readers."""
    if search.name != "adaptive":
        return f"random search, judged by {search.guard}"
    aim = "guard alone" if search.settings.get("likelihood") == 0 else "model and guard"
    return f"{aim}, {search.guard}"
