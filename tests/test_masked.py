"""The masked sampler against an independent, deliberately naive LLaDA loop, and its own promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import demur
from conftest import save_llama
from demur.errors import InputError
from demur.generation import trace, trace_batch
from demur.models.base import Batch, LanguageModel
from demur.sampling import Masked, RowNoise
from demur.sampling.choice import row_seed
from demur.types import Prompt, Record, Step

QUIET = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PROMPTS = [
    Prompt("w1 w2 w3", id="a"),
    Prompt("w4", id="b"),
    Prompt("w5 w6 w7 w8 w9 w10 w11", id="c"),
    Prompt("w12 w13", id="d"),
]


def steps_of(
    model: LanguageModel, prompts: list[Prompt], sampler: Masked, *, pooling: str = "response"
) -> list[Step]:
    noise = RowNoise.seeded([row_seed(0, p.id) for p in prompts])
    return list(
        sampler.run(
            model, model.encode(prompts), Record(layers=("last", "first"), pooling=pooling), noise
        )
    )


@torch.no_grad()
def naive(model: LanguageModel, prompt: Prompt, sampler: Masked) -> list[dict[str, Any]]:
    """One prompt, whole logits, plain loops; the same random numbers as the row's generator."""
    mask = 3
    ids = model.encode([prompt]).ids[0].tolist()
    start, size = len(ids), sampler.block_length
    x = ids + [mask] * sampler.gen_length
    generator = torch.Generator().manual_seed(row_seed(0, prompt.id))
    per_block = sampler.steps // (sampler.gen_length // size)
    history = []
    for block in range(sampler.gen_length // size):
        inside = range(start + block * size, start + (block + 1) * size)
        total = sum(x[j] == mask for j in inside)
        for step in range(per_block):
            out = model.net.model(
                torch.tensor([x]), attention_mask=torch.ones(1, 1, len(x), len(x)).bool()
            ).last_hidden_state[0]
            logits = model.net.lm_head(out)
            if sampler.cfg_scale:
                blind = [mask if j < start else x[j] for j in range(len(x))]
                other = model.net.lm_head(
                    model.net.model(
                        torch.tensor([blind]),
                        attention_mask=torch.ones(1, 1, len(x), len(x)).bool(),
                    ).last_hidden_state[0]
                )
                logits = other + (sampler.cfg_scale + 1) * (logits - other)
            if model.traits.shift:
                logits = torch.cat([logits[:1], logits[:-1]])
            masked = [j for j in range(len(x)) if x[j] == mask]
            wanted = logits.double().clone()
            if sampler.never_end:
                wanted[:, 2] = logits[:, 2] = -torch.inf
            wanted[:, mask] = -torch.inf
            guess = wanted.argmax(-1).tolist()
            if sampler.temperature:
                side = math.ceil(math.sqrt(logits.shape[1]))
                u = torch.rand((len(masked), 2 * side), generator=generator, dtype=torch.float64)
                for j, waits in zip(masked, -u.log(), strict=True):
                    groups = (wanted[j] / sampler.temperature).softmax(-1).split(side)
                    pace = [float(g.sum() / w) for g, w in zip(groups, waits, strict=False)]
                    won = pace.index(max(pace))
                    inside_it = groups[won] / waits[side : side + len(groups[won])]
                    guess[j] = won * side + int(inside_it.argmax())
            if sampler.end_last:
                logits[:, 2] = -torch.inf
            probability = logits.softmax(-1)
            confidence = {j: float(probability[j, guess[j]]) for j in masked}
            if sampler.remasking == "random":
                drawn = torch.rand((len(masked), 1), generator=generator, dtype=torch.float64)
                confidence = {j: float(v) for j, v in zip(masked, drawn[:, 0], strict=True)}
            if sampler.remasking == "left_to_right":
                confidence = {j: -j for j in masked}
            if sampler.remasking == "entropy":
                confidence = {
                    j: -float(torch.distributions.Categorical(probability[j]).entropy())
                    for j in masked
                }
            if sampler.remasking == "margin":
                top = probability.topk(2).values
                confidence = {j: float(top[j, 0] - top[j, 1]) for j in masked}
            quota = total // per_block + (1 if step < total % per_block else 0)
            ranked = sorted((j for j in masked if j in inside), key=lambda j: -confidence[j])
            taken = ranked[:quota]
            if sampler.threshold is not None:
                taken += [j for j in ranked[quota:] if confidence[j] > sampler.threshold]
            draft = [guess[j] if x[j] == mask else x[j] for j in range(len(x))]
            for j in taken:
                x[j] = guess[j]
            history.append(
                {
                    "tokens": [-1 if t == mask else t for t in x[start:]],
                    "draft": draft[start:],
                    "phi": out[start:].mean(0),
                }
            )
            if all(x[j] != mask for j in inside):
                break
    return history


CASES = {
    "one block": Masked(steps=4, gen_length=12, block_length=12),
    "remainder": Masked(steps=5, gen_length=12, block_length=12),
    "blocks": Masked(steps=6, gen_length=12, block_length=4),
    "blocks with remainder": Masked(steps=6, gen_length=12, block_length=6),
    "more steps than tokens": Masked(steps=9, gen_length=6, block_length=6),
    "temperature": Masked(steps=4, gen_length=12, block_length=6, temperature=0.8),
    "random": Masked(steps=4, gen_length=12, block_length=12, remasking="random"),
    "random and hot": Masked(
        steps=4, gen_length=8, block_length=4, remasking="random", temperature=1.3
    ),
    "entropy": Masked(steps=4, gen_length=12, block_length=12, remasking="entropy"),
    "margin": Masked(steps=4, gen_length=12, block_length=12, remasking="margin"),
    "left to right": Masked(steps=6, gen_length=12, block_length=12, remasking="left_to_right"),
    "guidance": Masked(steps=4, gen_length=12, block_length=6, cfg_scale=1.5),
    "threshold": Masked(steps=12, gen_length=12, block_length=6, threshold=0.6),
    "never end": Masked(steps=4, gen_length=12, block_length=12, never_end=True),
    "end last": Masked(steps=4, gen_length=12, block_length=12, end_last=True),
}


@pytest.mark.parametrize("shift", [True, False], ids=["shifted", "unshifted"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_naive_loop(
    make_dlm: Callable[..., LanguageModel], case: str, shift: bool
) -> None:
    model, sampler = make_dlm(shift=shift), CASES[case]
    steps = steps_of(model, PROMPTS[:3], sampler)
    for row, prompt in enumerate(PROMPTS[:3]):
        expected = naive(model, prompt, sampler)
        mine = [s for s in steps if s.running[row]]
        assert len(mine) == len(expected)
        for step, wanted in zip(mine, expected, strict=True):
            assert step.tokens[row].tolist() == wanted["tokens"]
            assert step.draft[row].tolist() == wanted["draft"]
            torch.testing.assert_close(step.phi["last"][row], wanted["phi"], atol=1e-5, rtol=0)


def test_options_change_something(make_dlm: Callable[..., LanguageModel]) -> None:
    """Each case above would prove nothing if its option had no effect on this model."""
    model = make_dlm(shift=True)
    plain = steps_of(model, PROMPTS, CASES["one block"])[0].tokens.tolist()
    for case in ("random", "entropy", "margin"):
        assert steps_of(model, PROMPTS, CASES[case])[0].tokens.tolist() != plain, case


@QUIET
@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    remasking=st.sampled_from(["low_confidence", "random", "entropy", "margin", "left_to_right"]),
    temperature=st.sampled_from([0.0, 0.7]),
    blocks=st.sampled_from([1, 2, 4]),
    hurry=st.booleans(),
    pooling=st.sampled_from(["response", "generated", "content", "running", "content_predictor"]),
)
def test_batched_equals_single(
    tiny_dlm: LanguageModel,
    lengths: list[int],
    remasking: Any,
    temperature: float,
    blocks: int,
    hurry: bool,
    pooling: str,
) -> None:
    threshold = 0.5 if hurry and remasking in ("low_confidence", "margin") else None
    sampler = Masked(
        steps=4,
        gen_length=8,
        block_length=8 // blocks,
        remasking=remasking,
        temperature=temperature,
        threshold=threshold,
    )
    prompts = [
        Prompt(" ".join(f"w{(n * 7 + i) % 40}" for i in range(n)), id=f"{k}")
        for k, n in enumerate(lengths)
    ]
    together = trace_batch(tiny_dlm, prompts, sampler=sampler, record=Record(pooling=pooling))
    for prompt, one in zip(prompts, together, strict=True):
        [alone] = trace_batch(tiny_dlm, [prompt], sampler=sampler, record=Record(pooling=pooling))
        np.testing.assert_array_equal(one.committed, alone.committed)
        np.testing.assert_array_equal(one.draft, alone.draft)
        np.testing.assert_array_equal(one.blocks, alone.blocks)
        np.testing.assert_allclose(one.phi["last"], alone.phi["last"], atol=1e-5)
        assert one.response == alone.response


def test_order_and_batch_size_change_nothing(tiny_dlm: LanguageModel) -> None:
    sampler = Masked(steps=4, gen_length=8, block_length=4, remasking="random", temperature=0.5)
    reference = {t.prompt.id: t for t in trace(tiny_dlm, PROMPTS, sampler=sampler, batch_size=1)}
    for batch_size in (2, 3, 4):
        for t in trace(tiny_dlm, PROMPTS[::-1], sampler=sampler, batch_size=batch_size):
            wanted = reference[t.prompt.id]
            np.testing.assert_array_equal(t.committed, wanted.committed)
            np.testing.assert_allclose(t.phi["last"], wanted.phi["last"], atol=1e-5)


@QUIET
@given(
    steps=st.sampled_from([2, 4, 8]),
    remasking=st.sampled_from(["low_confidence", "random", "left_to_right"]),
    hurry=st.booleans(),
)
def test_every_position_is_committed_once(
    tiny_dlm: LanguageModel, steps: int, remasking: Any, hurry: bool
) -> None:
    threshold = 0.3 if hurry and remasking == "low_confidence" else None
    sampler = Masked(
        steps=steps, gen_length=8, block_length=4, remasking=remasking, threshold=threshold
    )
    stream = steps_of(tiny_dlm, PROMPTS, sampler)
    before = torch.full_like(stream[0].tokens, -1)
    for step in stream:
        known = before >= 0
        assert torch.equal(step.tokens[known], before[known])
        now = step.tokens >= 0
        assert torch.equal(step.tokens[now], step.draft[now])
        assert (step.draft != 3).all()
        assert ((now & ~known).any(1) == step.running).all()
        before = step.tokens
    assert (before >= 0).all()


def test_finished_rows_stay(tiny_dlm: LanguageModel) -> None:
    short = Prompt("w1", id="short", response=("w2 w3 w4 w5 w6", 1, "w7 w8"))
    stream = steps_of(tiny_dlm, [short, PROMPTS[0]], Masked(steps=8, gen_length=8, block_length=8))
    assert [bool(s.running[0]) for s in stream] == [True] + [False] * 7
    for step in stream[1:]:
        assert torch.equal(step.tokens[0], stream[0].tokens[0])
        assert torch.equal(step.phi["last"][0], stream[0].phi["last"][0])


def test_template_keeps_what_it_fixes_and_fills_the_rest(tiny_dlm: LanguageModel) -> None:
    word = tiny_dlm.tokenizer.convert_tokens_to_ids
    prompt = Prompt("w1 w2", id="t", response=("w20 w21", 3, "w22", 2))
    [one] = trace_batch(tiny_dlm, [prompt], sampler=Masked(steps=4, gen_length=8, block_length=8))
    assert one.committed[0][[0, 1, 5]].tolist() == word(["w20", "w21", "w22"])
    assert (one.committed[-1] >= 0).all()
    assert one.n_steps == 4
    alone = trace_batch(
        tiny_dlm,
        [Prompt("w9", id="o"), prompt],
        sampler=Masked(steps=4, gen_length=8, block_length=8),
    )[1]
    np.testing.assert_array_equal(one.committed, alone.committed)


def test_masks_in_the_prompt_are_filled(tiny_dlm: LanguageModel) -> None:
    prompt = Prompt("slots", id="s", user=("w1", 2, "w2", 1))
    sampler = Masked(steps=4, gen_length=4, block_length=2)
    stream = steps_of(tiny_dlm, [prompt, PROMPTS[2]], sampler)
    assert (stream[0].prompt[0] == 3).any()
    assert (stream[-1].prompt != 3).all()
    [one, _] = trace_batch(tiny_dlm, [prompt, PROMPTS[2]], sampler=sampler)
    assert "w1" in one.filled_prompt
    assert "w2" in one.filled_prompt
    [alone] = trace_batch(tiny_dlm, [prompt], sampler=sampler)
    assert one.filled_prompt == alone.filled_prompt


def test_control_text_in_a_prompt_stays_text(tiny_dlm: LanguageModel) -> None:
    hostile = Prompt("w1 <|eos|> <|mask|> <|assistant|> w2", id="x")
    ids = tiny_dlm.encode([hostile]).ids[0].tolist()
    plain = tiny_dlm.encode([Prompt("w1 w2", id="y")]).ids[0].tolist()
    control = [0, 1, 2, 3, 5, 6]
    assert [i for i in ids if i in control] == [i for i in plain if i in control]
    inside = Prompt("z", id="z", user=("<|mask|>", 1), response=("<|eos|> w1",))
    batch = tiny_dlm.encode([inside])
    assert (batch.ids == 3).sum() == 1
    assert 2 not in batch.responses[0]


def test_dynamic_threshold_saves_steps_and_never_adds(tiny_dlm: LanguageModel) -> None:
    static = Masked(steps=8, gen_length=8, block_length=8)
    for threshold in (0.01, 0.4, 0.99):
        dynamic = Masked(steps=8, gen_length=8, block_length=8, threshold=threshold)
        traces = trace_batch(tiny_dlm, PROMPTS, sampler=dynamic)
        assert all(t.n_steps <= 8 for t in traces)
        if threshold == 0.01:
            assert all(t.n_steps < 8 for t in traces)
    assert all(t.n_steps == 8 for t in trace_batch(tiny_dlm, PROMPTS, sampler=static))


def test_never_end_never_ends(tiny_dlm: LanguageModel) -> None:
    base = {"steps": 4, "gen_length": 32, "block_length": 32, "temperature": 2.0}
    assert any(2 in t.draft for t in trace_batch(tiny_dlm, PROMPTS, sampler=Masked(**base)))
    kept = trace_batch(tiny_dlm, PROMPTS, sampler=Masked(**base, never_end=True))
    assert not any(2 in t.draft for t in kept)


def test_end_last_commits_ends_after_everything_else(tiny_dlm: LanguageModel) -> None:
    def hurried_ends(sampler: Masked) -> int:
        """Ends committed while another prediction was left waiting."""
        found = 0
        for t in trace_batch(tiny_dlm, PROMPTS, sampler=sampler):
            for before, after, draft in zip(
                t.committed, t.committed[1:], t.draft[1:], strict=False
            ):
                new, left = (before < 0) & (after >= 0), after < 0
                found += int((draft[new] == 2).any() and (draft[left] != 2).any())
        return found

    base = {"steps": 8, "gen_length": 32, "block_length": 32, "temperature": 2.0}
    assert hurried_ends(Masked(**base)) > 0
    assert hurried_ends(Masked(**base, end_last=True)) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 7, "gen_length": 12, "block_length": 4}, "multiple of 3"),
        ({"gen_length": 12, "block_length": 5}, "does not divide"),
        ({"steps": 0}, "at least 1"),
        ({"temperature": -1.0}, "0 or more"),
        ({"cfg_scale": -0.1}, "0 or more"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"threshold": 0.9, "remasking": "random"}, "probabilities"),
        ({"remasking": "best"}, "Known: low_confidence"),
    ],
)
def test_settings_that_do_not_fit(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Masked(**wrong)


def test_autoregressive_models_are_refused(tiny_ar: LanguageModel) -> None:
    with pytest.raises(InputError, match="no mask token"):
        trace_batch(tiny_ar, PROMPTS, sampler=Masked(), record=Record(pooling="response"))


def test_template_too_long(tiny_dlm: LanguageModel) -> None:
    prompt = Prompt("w1", response=("w1 w2 w3 w4 w5",))
    with pytest.raises(InputError, match="does not fit gen_length 4"):
        trace_batch(tiny_dlm, [prompt], sampler=Masked(steps=4, gen_length=4, block_length=4))


def test_a_response_without_masks_is_named(tiny_dlm: LanguageModel) -> None:
    full = Prompt("w1", id="full", response=("w1 w2 w3 w4",))
    sampler = Masked(steps=4, gen_length=4, block_length=4)
    with pytest.raises(InputError, match="full leaves no masked position"):
        trace_batch(tiny_dlm, [full, PROMPTS[0]], sampler=sampler)
    with pytest.raises(InputError, match="no masked position"):
        trace_batch(tiny_dlm, [full], sampler=sampler)


def test_confidence_dtype_only_matters_below_float32(tiny_dlm: LanguageModel) -> None:
    settings_ = {"steps": 4, "gen_length": 8, "block_length": 8}
    exact = trace_batch(tiny_dlm, PROMPTS, sampler=Masked(**settings_))
    model = trace_batch(tiny_dlm, PROMPTS, sampler=Masked(**settings_, confidence_dtype="model"))
    for a, b in zip(exact, model, strict=True):
        np.testing.assert_array_equal(a.committed, b.committed)


def test_confidence_dtype_matters_in_bfloat16(tmp_path: Path) -> None:
    card = {"family": "masked", "mask_token_id": 3}
    model = demur.load(save_llama(tmp_path / "half", card=card), dtype="bfloat16")
    settings_ = {"steps": 16, "gen_length": 16, "block_length": 16}
    prompts = [Prompt(f"w{n} w{n + 1}", id=f"{n}") for n in range(8)]
    exact = trace_batch(model, prompts, sampler=Masked(**settings_))
    rounded = trace_batch(model, prompts, sampler=Masked(**settings_, confidence_dtype="model"))
    differing = [(a.committed != b.committed).any() for a, b in zip(exact, rounded, strict=True)]
    assert any(differing)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_padding_written_as_masks_and_a_mask_at_the_beginning(
    make_dlm: Callable[..., LanguageModel], shift: bool, guidance: float
) -> None:
    """Neither does padding count as masked, nor does it predict a prompt's first token."""
    model = make_dlm(shift=shift)
    prompts = [[3, 8, 3, 20], [7], [9, 10, 11, 3, 12, 13, 14]]
    longest = max(map(len, prompts))
    ids = torch.tensor([[3] * (longest - len(p)) + p for p in prompts])
    attention = torch.tensor([[i >= longest - len(p) for i in range(longest)] for p in prompts])
    sampler = Masked(steps=4, gen_length=8, block_length=4, cfg_scale=guidance)

    def run(ids: torch.Tensor, attention: torch.Tensor) -> list[Step]:
        batch = Batch(ids, attention, ((),) * len(ids))
        noise = RowNoise.seeded([0] * len(ids))
        return list(sampler.run(model, batch, Record(pooling="response"), noise))

    together = run(ids, attention)
    for row, prompt in enumerate(prompts):
        alone = run(torch.tensor([prompt]), torch.ones(1, len(prompt), dtype=torch.bool))
        mine = [step for step in together if step.running[row]]
        assert len(mine) == len(alone)
        for a, b in zip(mine, alone, strict=True):
            assert torch.equal(a.tokens[row], b.tokens[0])
            assert torch.equal(a.draft[row], b.draft[0])
            assert torch.equal(a.prompt[row, longest - len(prompt) :], b.prompt[0])
            torch.testing.assert_close(a.phi["last"][row], b.phi["last"][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_forward_passes_can_be_run_from_outside(tiny_dlm: LanguageModel, guidance: float) -> None:
    """``next_pass`` and ``advance`` give the same steps as iterating, and two passes with guidance."""
    sampler = Masked(steps=4, gen_length=8, block_length=4, cfg_scale=guidance)
    wanted = steps_of(tiny_dlm, PROMPTS, sampler)
    noise = RowNoise.of(0, [p.id for p in PROMPTS])
    record = Record(layers=("last", "first"), pooling="response")
    generation = sampler.run(tiny_dlm, tiny_dlm.encode(PROMPTS), record, noise)
    found: list[Step] = []
    with torch.inference_mode():
        while asked := generation.next_pass():
            states = tiny_dlm.states(asked.tokens, asked.attention, layers=asked.layers)
            step = generation.advance(states)
            if guidance and step is None:
                again = generation.next_pass()
                assert again is not None
                assert again.layers == ("last",)
                states = tiny_dlm.states(again.tokens, again.attention, layers=again.layers)
                step = generation.advance(states)
            assert step is not None
            found.append(step)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.phi["first"], other.phi["first"])
