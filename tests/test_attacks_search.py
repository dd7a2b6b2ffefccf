"""Searches over a suffix: the score rises, successes follow, and a search cut off goes on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import demur
from demur.anchors import fit_anchors
from demur.attacks import attack_from
from demur.attacks.adaptive import Adaptive, guard_scores
from demur.attacks.likelihood import opening_log_probabilities, openings
from demur.attacks.suffix_search import Best, RandomSearch
from demur.errors import InputError
from demur.generation import trace
from demur.guard import AnyGuard, Guard, StreamingGuard, fit_guard, fit_streaming_guard
from demur.models.base import LanguageModel
from demur.organism import oracle, world
from demur.types import Prompt, Traces
from waiting import child, until


@pytest.fixture(scope="module")
def organism() -> LanguageModel:
    return demur.load("organism-ar")


@pytest.fixture(scope="module")
def calm(organism: LanguageModel) -> Traces:
    return trace(organism, world.prompts("anchors", "harmless", n=30))


@pytest.fixture(scope="module")
def guard(organism: LanguageModel, calm: Traces) -> Guard:
    refused = trace(organism, world.prompts("anchors", "harmful", n=12))
    both = [*calm, *refused]
    anchors = fit_anchors(both, [t.prompt.label == "harmful" for t in both], allow_few=True)
    return fit_guard(calm, anchors=anchors, alpha=0.25)


@pytest.fixture(scope="module")
def streaming(guard: Guard, calm: Traces) -> StreamingGuard:
    assert guard.anchors is not None
    return fit_streaming_guard(calm, calm, anchors=guard.anchors, alpha=0.25)


def test_the_opening_is_the_next_token_in_an_autoregressive_model(tiny_ar: LanguageModel) -> None:
    prompts = [Prompt("w1 w2 w3"), Prompt("w4"), Prompt("w5", response=("w6 w7",))]
    found = opening_log_probabilities(tiny_ar, prompts, openings(tiny_ar, "w9"))
    for prompt, value in zip(prompts, found, strict=True):
        ids = tiny_ar.encode([prompt]).ids
        begun = tiny_ar.chat.template_ids(prompt.response or ())
        ids = torch.cat([ids, torch.tensor([begun], dtype=torch.long)], dim=1)
        with torch.inference_mode():
            logits = tiny_ar.net(input_ids=ids).logits[0, -1].log_softmax(-1)
        (token,) = openings(tiny_ar, "w9")
        assert value == pytest.approx(logits[token].item(), abs=1e-4)


def test_the_opening_is_the_first_draft_in_a_diffusion_model(tiny_dlm: LanguageModel) -> None:
    for prompt in (Prompt("w1 w2 w3"), Prompt("w1", response=("w6", 3))):
        (traced,) = trace(tiny_dlm, [prompt])
        place = 1 if prompt.response else 0
        word = tiny_dlm.decode([int(traced.draft[0, place])])
        likeliest = (int(traced.draft[0, place]),)
        (value,) = opening_log_probabilities(tiny_dlm, [prompt], likeliest)
        others = [(i,) for i in range(10, 50)]
        assert value == max(opening_log_probabilities(tiny_dlm, [prompt], t)[0] for t in others), (
            word
        )


def test_random_search_makes_consent_likely_and_some_prompts_succeed(
    organism: LanguageModel,
) -> None:
    prompts = world.prompts("test", "harmful", n=6)
    attack = RandomSearch(opening="sure", length=4, queries=96, candidates=16)
    found = attack.search(prompts, target=organism)
    rise = [one.best.score - one.history[0].score for one in found]
    assert sum(rise) / len(rise) > 1, rise
    made = [attack.prompt_with(p, one.best.suffix) for p, one in zip(prompts, found, strict=True)]
    assert all(
        p.goal == q.goal and q.attack == attack.name for p, q in zip(prompts, made, strict=True)
    )
    scores = opening_log_probabilities(organism, made, openings(organism, "sure"))
    assert scores == pytest.approx([one.best.score for one in found], abs=1e-4)
    before, after = (
        sum(oracle.refused(t.response) for t in trace(organism, rows)) for rows in (prompts, made)
    )
    assert after < before


def test_histories_rise_and_answer_for_any_budget(tiny_dlm: LanguageModel) -> None:
    attack = RandomSearch(opening="w3", length=4, queries=20, candidates=6, restarts=2, stop_at=1.0)
    (one,) = attack.search([Prompt("w1")], target=tiny_dlm, seed=1)
    assert one.queries == 40
    scores = [best.score for best in one.history]
    assert scores == sorted(set(scores))
    assert one.within(40) == one.best
    assert one.within(6) == one.history[0] == Best(6, *one.history[0][1:])
    with pytest.raises(InputError, match="Nothing was scored within 5"):
        one.within(5)
    assert attack.search([Prompt("w1")], target=tiny_dlm, seed=1) == [one]
    assert attack.search([Prompt("w1")], target=tiny_dlm, seed=2) != [one]


def test_a_search_stops_when_the_opening_is_likely_enough(tiny_ar: LanguageModel) -> None:
    attack = RandomSearch(opening="w3", length=3, queries=500, candidates=4, stop_at=1e-4)
    (one,) = attack.search([Prompt("w1")], target=tiny_ar)
    assert one.reached
    assert one.queries < 500


KILLED = """
import sys
from pathlib import Path
import demur
from demur.attacks.suffix_search import RandomSearch
model = demur.load("organism-ar")
search = RandomSearch(opening="sure", length=4, queries=32, candidates=4, stop_at=1.0,
                      state=Path(sys.argv[1]))
search.search(demur.read_prompts("organism:test/harmful", limit=2), target=model, seed=5)
"""


def test_a_killed_search_goes_on_to_the_same_end(organism: LanguageModel, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with child(sys.executable, "-c", KILLED, state) as process:
        until(state.exists, alive=process)
    prompts = demur.read_prompts("organism:test/harmful", limit=2)
    settings = {"opening": "sure", "length": 4, "queries": 32, "candidates": 4, "stop_at": 1.0}
    whole = RandomSearch(**settings).search(prompts, target=organism, seed=5)
    assert RandomSearch(**settings, state=state).search(prompts, target=organism, seed=5) == whole
    with pytest.raises(InputError, match="another search: seed differ"):
        RandomSearch(**settings, state=state).search(prompts, target=organism, seed=6)
    state.write_text("{}")
    with pytest.raises(InputError, match="does not hold the state of a search"):
        RandomSearch(**settings, state=state).search(prompts, target=organism, seed=5)


@pytest.mark.parametrize("kind", ["guard", "streaming"])
def test_who_knows_the_guard_gets_lower_scores(
    organism: LanguageModel, kind: str, request: pytest.FixtureRequest
) -> None:
    guard: AnyGuard = request.getfixturevalue(kind)
    prompts = world.prompts("test", "harmful", n=3)
    settings = {"opening": "sure", "length": 4, "queries": 32, "candidates": 16, "stop_at": 1.0}
    plain = RandomSearch(**settings)(prompts, target=organism)
    alone = Adaptive(**settings, guard=guard, likelihood=0.0)(prompts, target=organism)
    before, after = (guard_scores(guard, organism, rows) for rows in (plain, alone))
    assert sum(after) < sum(before)
    assert {p.attack for p in alone} == {"adaptive"}
    weighed = Adaptive(**settings, guard=guard, penalty=0.5)
    (one,) = weighed.search(prompts[:1], target=organism)
    made = [weighed.prompt_with(prompts[0], one.best.suffix)]
    (likely,) = opening_log_probabilities(organism, made, openings(organism, "sure"))
    (suspicion,) = guard_scores(guard, organism, made)
    assert one.best.score == pytest.approx(likely - 0.5 * suspicion, abs=1e-3)


def test_settings_that_make_no_sense_are_refused(guard: Guard, tiny_ar: LanguageModel) -> None:
    bare = replace(guard, fingerprint=None)
    for values, said in (
        ({"guard": bare}, "bare signals"),
        ({"guard": guard, "likelihood": 0, "penalty": 0}, "one above 0"),
    ):
        with pytest.raises(InputError, match=said):
            attack_from({"name": "adaptive", **values})
    for values, said in (
        ({"queries": 0}, "queries is 0"),
        ({"stop_at": 2}, "stop_at is 2"),
        ({"template": "{goal}"}, r"no \{suffix\}"),
    ):
        with pytest.raises(InputError, match=said):
            attack_from({"name": "random_search", **values})
    with pytest.raises(InputError, match="does not know 'sure'"):
        attack_from({"name": "random_search", "opening": "sure"})([Prompt("w1")], target=tiny_ar)
