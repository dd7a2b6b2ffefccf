"""The block sampler against a naive restatement that recomputes everything at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import demur
from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling import Autoregressive, Block, Masked, RowNoise
from demur.types import Prompt, Record, Step
from parity.blocks import SDAR_MASK, SDAR_VOCAB, save_llada2, save_sdar
from parity.rows import ids_of, padded

LAYERS = ("first", "2", "last")
QUICK = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return demur.load(save_sdar(tmp_path_factory.mktemp("block") / "tiny-sdar"))


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return demur.load(save_llada2(tmp_path_factory.mktemp("block") / "tiny-llada2"))


def ending(model: LanguageModel, *ends: int) -> LanguageModel:
    """The model with other end tokens; none that it can say by default."""
    return replace(model, traits=replace(model.traits, end_ids=ends or (SDAR_VOCAB,)))


def batch_of(
    rows: Sequence[Sequence[int]], responses: Sequence[tuple[int, ...]] | None = None
) -> Batch:
    return Batch(*padded(rows), tuple(responses or [() for _ in rows]))


def run(
    model: LanguageModel,
    sampler: Block,
    batch: Batch,
    *,
    pooling: str = "response",
    seeds: Sequence[int] | None = None,
) -> list[Step]:
    noise = RowNoise.seeded(list(seeds or range(len(batch.ids))))
    found = sampler.run(model, batch, Record(layers=LAYERS, pooling=pooling), noise)
    return list(found)


# ---------------------------------------------------------------------- the naive restatement


@dataclass
class Naive:
    tokens: list[int]
    draft: list[int]
    phi: dict[str, Tensor]


@torch.no_grad()
def naive(
    model: LanguageModel,
    sampler: Block,
    prompt: list[int],
    *,
    pooling: str = "response",
    response: tuple[int, ...] = (),
) -> list[Naive]:
    """Greedy low-confidence generation of one row: no cache, no batch, one position at a time."""
    size, length = sampler.block_length, len(prompt)
    total = -(-(length + sampler.gen_length) // size) * size
    x = prompt + [SDAR_MASK if t < 0 else t for t in response]
    x += [SDAR_MASK] * (total - len(x))
    shown = range(length, length + sampler.gen_length)
    steps: list[Naive] = []
    block, taken = -1, 0
    while any(x[j] == SDAR_MASK for j in [*range(length), *shown]):
        now = x.index(SDAR_MASK) // size
        if any(x[j] in model.traits.end_ids for j in shown if j < now * size):
            break
        block, taken = now, (taken + 1 if now == block else 0)
        inside, end = range(now * size, (now + 1) * size), (now + 1) * size
        states = whole_states(model, x[:end], size)
        scores: dict[int, float] = {}
        draft = list(x)
        for j in inside:
            if x[j] == SDAR_MASK:
                logits = model.logits(states["last"][j])
                chances = logits.softmax(-1)
                logits[SDAR_MASK] = -torch.inf
                draft[j] = int(logits.argmax())
                scores[j] = float(chances[draft[j]])
        share = size // sampler.block_steps + (taken < size % sampler.block_steps)
        best = sorted(scores, key=lambda j: (-scores[j], j))[:share]
        if sampler.threshold is not None:
            best += [j for j in scores if scores[j] > sampler.threshold]
        for j in best:
            x[j] = draft[j]
        begun = [j for j in shown if j < end]
        if pooling == "generated":
            begun = [j for j in begun if x[j] != SDAR_MASK]
        if pooling == "content":
            ends = [j for j in begun if draft[j] in model.traits.end_ids]
            begun = [j for j in begun if not ends or j < ends[0]]
        phi = {k: v[begun or list(inside)].mean(0) for k, v in states.items()}
        steps.append(Naive(blank(x, shown), blank(draft, shown), phi))
    return steps


@torch.no_grad()
def whole_states(model: LanguageModel, x: list[int], size: int) -> dict[str, Tensor]:
    columns = torch.arange(len(x))
    attention = (columns // size <= columns[:, None] // size)[None, None]
    states = model.states(torch.tensor([x]), attention, layers=LAYERS, positions=columns[None])
    return {layer: value[0].clone() for layer, value in states.items()}


def blank(x: list[int], shown: range) -> list[int]:
    return [-1 if x[j] == SDAR_MASK else x[j] for j in shown]


def same(step: Step, row: int, expected: Naive) -> None:
    assert step.tokens[row].tolist() == expected.tokens
    assert step.draft[row].tolist() == expected.draft
    for layer in LAYERS:
        torch.testing.assert_close(step.phi[layer][row], expected.phi[layer], atol=1e-5, rtol=0)


# ---------------------------------------------------------------------- the tests


@pytest.mark.parametrize("pooling", ["response", "generated", "content"])
@pytest.mark.parametrize(
    "sampler",
    [
        Block(gen_length=14, threshold=None),
        Block(gen_length=14, threshold=0.4),
        Block(gen_length=13, block_length=6, block_steps=4, threshold=None),
        Block(gen_length=1, block_length=8, block_steps=8, threshold=None),
        Block(gen_length=5, block_length=2, block_steps=9),
    ],
)
def test_cached_is_recomputed(model: LanguageModel, sampler: Block, pooling: str) -> None:
    for length in (1, 4, 7, 18):
        quiet = ending(model, 5) if pooling == "content" else ending(model)
        found = run(quiet, sampler, batch_of([ids_of(length)]), pooling=pooling)
        expected = naive(quiet, sampler, ids_of(length), pooling=pooling)
        assert len(found) == len(expected) <= sampler.steps
        for step, one in zip(found, expected, strict=True):
            same(step, 0, one)


@QUICK
@given(
    lengths=st.lists(st.integers(1, 23), min_size=2, max_size=5),
    size=st.sampled_from([2, 4, 5]),
    threshold=st.sampled_from([None, 0.3, 0.6]),
    temperature=st.sampled_from([0.0, 0.9]),
    edit=st.sampled_from([None, 0.4]),
)
def test_batched_is_single(
    model: LanguageModel,
    lengths: list[int],
    size: int,
    threshold: float | None,
    temperature: float,
    edit: float | None,
) -> None:
    sampler = Block(
        gen_length=9,
        block_length=size,
        block_steps=size,
        threshold=threshold,
        temperature=temperature,
        top_k=9,
        top_p=0.9,
        edit_threshold=edit,
        edit_steps=3,
    )
    quiet = ending(model, 5, 13)
    rows = [ids_of(length) for length in lengths]
    together = run(quiet, sampler, batch_of(rows))
    for place, row in enumerate(rows):
        alone = run(quiet, sampler, batch_of([row]), seeds=[place])
        shared = [step for step in together if step.running[place]]
        assert len(alone) == len(shared)
        for one, many in zip(alone, shared, strict=True):
            assert one.tokens[0].tolist() == many.tokens[place].tolist()
            assert one.draft[0].tolist() == many.draft[place].tolist()
            assert one.block is not None
            assert many.block is not None
            assert one.block[0] == many.block[place]
            assert one.prompt[0].tolist() == many.prompt[place][-len(row) :].tolist()
            for layer in LAYERS:
                torch.testing.assert_close(
                    one.phi[layer][0], many.phi[layer][place], atol=1e-5, rtol=0
                )


def test_batched_is_single_with_experts(experts: LanguageModel) -> None:
    rows = [f"w{i} " * i for i in (2, 9, 5)]
    sampler = Block(gen_length=20, block_length=8, block_steps=8, threshold=0.6)
    together = demur.trace(experts, rows, sampler=sampler)
    for place, row in enumerate(rows):
        alone = demur.trace(experts, [row], sampler=sampler)[0]
        assert (alone.committed == together[place].committed).all()
        torch.testing.assert_close(
            torch.from_numpy(alone.phi["last"]),
            torch.from_numpy(together[place].phi["last"]),
            atol=1e-5,
            rtol=0,
        )


def test_each_position_is_committed_once_block_after_block(model: LanguageModel) -> None:
    steps = run(ending(model), Block(gen_length=14, threshold=0.4), batch_of([ids_of(6)]))
    before = torch.full((14,), -1)
    for step in steps:
        now = step.tokens[0]
        assert step.block is not None
        assert ((now == before) | (before == -1)).all()
        assert (now != before).any()
        begin = max(0, 4 * int(step.block[0]) - 2)
        assert (now[:begin] >= 0).all()
        assert (now[begin + 4 :] == -1).all()
        assert (step.draft[0, : min(14, 4 * int(step.block[0]) + 2)] >= 0).all()
        before = now
    assert (before >= 0).all()


def test_a_finished_block_costs_no_pass_of_its_own(model: LanguageModel) -> None:
    widths: list[int] = []
    handle = model.net.model.norm.register_forward_hook(
        lambda module, args, output: widths.append(output.shape[1])
    )
    steps = run(ending(model), Block(gen_length=12, threshold=None), batch_of([ids_of(8)]))
    handle.remove()
    assert len(widths) == len(steps) == 12
    assert widths == [12, 4, 4, 4, 8, 4, 4, 4, 8, 4, 4, 4]


def test_stops_after_the_block_with_an_end_token(model: LanguageModel) -> None:
    sampler = Block(gen_length=16, threshold=None)
    whole = run(ending(model), sampler, batch_of([ids_of(4)]))[-1].tokens[0].tolist()
    end = whole[9]
    place = whole.index(end)
    steps = run(ending(model, end), sampler, batch_of([ids_of(4), ids_of(9)]))
    tokens = [step for step in steps if step.running[0]][-1].tokens[0].tolist()
    finished = 4 * (place // 4 + 1)
    assert tokens[:finished] == whole[:finished]
    assert tokens[finished:] == [-1] * (16 - finished)


def test_fixed_parts_of_a_response_stay_and_slots_are_filled(model: LanguageModel) -> None:
    quiet, sampler = ending(model), Block(gen_length=14, threshold=0.4)
    template = (20, 21, -1, -1, -1, -1, -1, 22, 23, 24, 25, 26, 27, -1)
    rows = batch_of([ids_of(6), ids_of(3)], [template, ()])
    steps = run(quiet, sampler, rows)
    expected = naive(quiet, sampler, ids_of(6), response=template)
    own = [step for step in steps if step.running[0]]
    assert len(own) == len(expected)
    for step, one in zip(own, expected, strict=True):
        same(step, 0, one)
    last = own[-1].tokens[0].tolist()
    assert [t for t, f in zip(last, template, strict=True) if f >= 0] == [
        f for f in template if f >= 0
    ]


def test_slots_inside_the_prompt_are_filled_first(model: LanguageModel) -> None:
    quiet, sampler = ending(model), Block(gen_length=6, threshold=None)
    prompt = [20, 21, SDAR_MASK, SDAR_MASK, 22, 23, 24, 25, 26, 27, SDAR_MASK]
    steps = run(quiet, sampler, batch_of([prompt, ids_of(14)]))
    own = [step for step in steps if step.running[0]]
    for step, one in zip(own, naive(quiet, sampler, prompt), strict=True):
        same(step, 0, one)
    filled = own[-1].prompt[0].tolist()
    assert filled[:3] == [0, 0, 0]
    assert SDAR_MASK not in filled
    assert [f for f, p in zip(filled[3:], prompt, strict=True) if p != SDAR_MASK] == [
        p for p in prompt if p != SDAR_MASK
    ]
    trace = demur.trace(model, [Prompt("x", user=("w1 w2", 2, "w3"))], sampler=sampler)[0]
    assert "w1 w2" in trace.filled_prompt


def test_left_to_right_commits_the_leftmost(model: LanguageModel) -> None:
    sampler = Block(gen_length=8, threshold=None, remasking="left_to_right")
    steps = run(ending(model), sampler, batch_of([ids_of(6)]))
    assert [int((step.tokens[0] >= 0).sum()) for step in steps] == list(range(1, 9))
    for count, step in enumerate(steps, start=1):
        assert (step.tokens[0, :count] >= 0).all()


@pytest.mark.parametrize("rule", ["random", "entropy", "margin"])
def test_other_rules_fill_everything(model: LanguageModel, rule: str) -> None:
    sampler = Block(gen_length=8, threshold=None, remasking=rule)  # type: ignore[arg-type]
    first = run(ending(model), sampler, batch_of([ids_of(6)]), seeds=[3])
    again = run(ending(model), sampler, batch_of([ids_of(6)]), seeds=[3])
    assert (first[-1].tokens >= 0).all()
    assert [s.tokens.tolist() for s in first] == [s.tokens.tolist() for s in again]


def test_random_remasking_commits_any_position_first(model: LanguageModel) -> None:
    """Of 200 rows about 50 begin at each position of the block."""
    sampler = Block(gen_length=4, threshold=None, remasking="random")
    [first, *_] = run(ending(model), sampler, batch_of([ids_of(8)] * 200), seeds=list(range(200)))
    begun = (first.tokens >= 0).sum(0)
    assert begun.sum() == 200
    assert ((begun > 25) & (begun < 75)).all()


def test_top_k_one_is_greedy_and_the_draw_follows_the_probabilities(model: LanguageModel) -> None:
    greedy = run(ending(model), Block(gen_length=8, threshold=None), batch_of([ids_of(6)]))
    sampler = Block(
        gen_length=8, threshold=None, temperature=3.0, top_k=1, remasking="left_to_right"
    )
    in_order = Block(gen_length=8, threshold=None, remasking="left_to_right")
    one = run(ending(model), sampler, batch_of([ids_of(6)]))[-1].tokens
    assert one.tolist() == run(ending(model), in_order, batch_of([ids_of(6)]))[-1].tokens.tolist()
    assert greedy[-1].tokens.shape == one.shape
    free = Block(gen_length=1, threshold=None, temperature=1.0)
    drawn = run(ending(model), free, batch_of([ids_of(6)] * 400))[0].draft[:, 0]
    states = whole_states(model, [*ids_of(6), SDAR_MASK, SDAR_MASK], 4)["last"]
    with torch.no_grad():
        chances = model.logits(states[6]).softmax(-1)
    found = torch.bincount(drawn, minlength=SDAR_VOCAB) / 400
    assert (found - chances).abs().max() < 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gen_length": 0}, "gen_length is 0"),
        ({"block_length": 0}, "block_length is 0"),
        ({"block_steps": -1}, "block_steps is -1"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"edit_threshold": 1.0}, "edit_threshold is 1.0"),
        ({"edit_steps": 0}, "edit_steps is 0"),
        ({"remasking": "best"}, "Unknown remasking 'best'"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Block(**wrong)  # type: ignore[arg-type]


def test_editing_takes_back_what_was_committed_but_never_what_was_given(
    model: LanguageModel,
) -> None:
    sampler = Block(gen_length=12, threshold=0.4, edit_threshold=0.2, edit_steps=4)
    template = (20, -1, -1, -1, 21, -1, -1, -1, -1, -1, -1, -1)
    steps = run(ending(model), sampler, batch_of([ids_of(6)], [template]))
    tokens = torch.stack([step.tokens[0] for step in steps])
    changed = (tokens[1:] != tokens[:-1]) & (tokens[:-1] >= 0)
    assert changed.any()
    assert (tokens[:, 0] == 20).all()
    assert (tokens[:, 4] == 21).all()
    assert (tokens[-1] >= 0).all()
    assert len(steps) <= sampler.steps
    assert all(step.prompt[0].tolist() == ids_of(6) for step in steps)


def test_other_pairs_are_refused(
    model: LanguageModel, tiny_dlm: LanguageModel, tiny_ar: LanguageModel
) -> None:
    for other in (tiny_dlm, tiny_ar):
        with pytest.raises(InputError, match="was not trained with blocks"):
            demur.trace(other, ["w1"], sampler=Block(gen_length=8))
    for sampler in (Masked(gen_length=8, block_length=8, steps=4), Autoregressive(steps=4)):
        with pytest.raises(InputError, match="Use --sampler block"):
            demur.trace(model, ["w1"], sampler=sampler, record=demur.Record(pooling="generated"))
    with pytest.raises(InputError, match="takes the state before each position"):
        demur.trace(
            model,
            ["w1"],
            sampler=Block(gen_length=8),
            record=demur.Record(pooling="response_predictor"),
        )
    asked = Prompt("w1", response=("w1 w2 w3",))
    with pytest.raises(InputError, match="does not fit gen_length 2"):
        demur.trace(model, [asked], sampler=Block(gen_length=2))


def test_records_like_any_other_sampler(model: LanguageModel, tmp_path: Path) -> None:
    traces = demur.trace(model, ["w1 w2"])
    sampler = traces.fingerprint.sampler
    assert sampler["name"] == "block"
    assert sampler["block_length"] == 4
    assert traces.states("last", steps=8).shape == (1, 8, 16)
