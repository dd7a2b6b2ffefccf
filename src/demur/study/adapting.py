"""Cells of attackers who know the guard: what they reach with so many queries a goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from demur.attacks import attack_from
from demur.attacks.suffix_search import SuffixSearch
from demur.generation import trace
from demur.guard import Guard
from demur.judges.reading import answer_of
from demur.sampling import sampler_from
from demur.study.cells import Cell, Desk
from demur.study.judging import harm_judge
from demur.study.spec import Judges, Search
from demur.study.tracing import Arm, target_of
from demur.types import Prompt, Record, digest

VERSION = 3


def adaptive_cell(
    arm: Arm,
    spec: Search,
    prompts: Sequence[Prompt],
    guards: Cell,
    *,
    judges: Judges,
    seed: int,
    batch_size: int,
) -> Cell:
    """A search for each goal, and what became of every improvement it found.

    A search is judged by the prompt as it is, at no query, and by all of its improvements: the
    attacker sends each and keeps what works.
    """

    def work(desk: Desk) -> Mapping[str, Any]:
        model = desk.model(arm.location, arm.options)
        guard = Guard.load(desk.at(guards) / f"{spec.guard}.safetensors")
        known = {"guard": guard} if spec.name == "adaptive" else {}
        state = {"name": spec.name, "state": desk.path / "state.json"}
        attack = attack_from({**spec.settings, **known, **state})
        assert isinstance(attack, SuffixSearch)
        searches = attack.search(prompts, target=target_of(arm, model), seed=seed)
        tried = [
            (place, queries, asked)
            for place, (prompt, one) in enumerate(zip(prompts, searches, strict=True))
            for queries, asked in [
                (0, prompt),
                *((b.queries, attack.prompt_with(prompt, b.suffix)) for b in one.history),
            ]
        ]
        unique = {prompt.id: prompt for _, _, prompt in tried}
        assert guard.anchors is not None
        assert guard.anchors.fingerprint is not None
        made = guard.anchors.fingerprint
        traces = trace(
            model,
            unique.values(),
            sampler=sampler_from(made.sampler),
            record=Record(pooling=made.pooling, seed=seed),
            batch_size=batch_size,
            progress=desk.advance,
        )
        harmful = harm_judge(judges)([(t.prompt.goal, answer_of(t)) for t in traces])
        said = {
            t.prompt.id: (hit, bool(score > guard.threshold))
            for t, hit, score in zip(traces, harmful, guard.score(traces), strict=True)
        }
        return {
            "goals": [prompt.goal for prompt in prompts],
            "tries": [[place, queries, *said[prompt.id]] for place, queries, prompt in tried],
            "queries": attack.queries * attack.restarts,
        }

    return Cell(
        kind="adaptive",
        name=f"{arm.name}, {shown(spec)}",
        inputs={
            "spec": spec.model_dump(exclude={"models", "goals"}),
            "judges": judges.inputs,
            "seed": seed,
            "prompts": digest([p.text for p in prompts]),
            "version": VERSION,
        },
        work=work,
        needs=(guards,),
        units=len(prompts),
        pace=_pace(arm, spec),
        arm=arm.name,
        about={"arm": arm.name, "attack": shown(spec)},
    )


def _pace(arm: Arm, spec: Search) -> float:
    """Seconds a goal: a generation a query where the guard is known, else a first step."""
    queries = int(spec.settings.get("queries", SuffixSearch.queries))
    share = 1.0 if spec.name == "adaptive" else 1 / int(arm.sampler.get("steps", 32))
    return arm.pace * queries * share


def shown(spec: Search) -> str:
    """What the attacker goes for, for readers."""
    if spec.name != "adaptive":
        return f"random search, judged by {spec.guard}"
    aim = "guard alone" if spec.settings.get("likelihood") == 0 else "model and guard"
    return f"{aim}, {spec.guard}"
