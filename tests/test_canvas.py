"""The canvas sampler: stopping, batches, templates, acceptance, settings.

Its tokens and states are compared with transformers' own in ``test_parity_diffusion_gemma.py``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import demur
from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling import Block, Canvas, Masked, Noise, RowNoise, find_pooling
from demur.sampling.canvas import least_uncertain, temperature
from demur.types import Prompt, Record, Step
from parity.blocks import GEMMA_CANVAS, GEMMA_VOCAB, save_diffusion_gemma
from parity.noise import MultinomialNoise
from parity.rows import ids_of, padded

pytest.importorskip("transformers", minversion="5.11", reason="older ones have no DiffusionGemma")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return demur.load(save_diffusion_gemma(tmp_path_factory.mktemp("gemma") / "tiny-gemma"))


def run(
    model: LanguageModel,
    sampler: Canvas,
    *rows: list[int],
    noise: Noise,
    pooling: str = "response",
) -> list[Step]:
    batch, how = Batch(*padded(rows), tuple(() for _ in rows)), find_pooling(pooling)
    return list(sampler.run(model, batch, Record(pooling=how.name), noise))


def test_stops_after_the_canvas_with_an_end_token(model: LanguageModel) -> None:
    sampler = Canvas(gen_length=36, canvas_length=GEMMA_CANVAS, canvas_steps=4)
    free = replace(model, traits=replace(model.traits, end_ids=(GEMMA_VOCAB,)))
    whole = run(free, sampler, ids_of(9), noise=MultinomialNoise(9))[-1].tokens[0]
    end = int(whole[GEMMA_CANVAS + 2])
    first = whole[:GEMMA_CANVAS].tolist()
    canvases = 1 if end in first else 2
    ending = replace(model, traits=replace(model.traits, end_ids=(end,)))
    torch.manual_seed(9)
    theirs = ending.net.generate(
        torch.tensor([ids_of(9)]),
        max_new_tokens=36,
        max_denoising_steps=4,
        eos_token_id=end,
    ).sequences[0, 9:]
    tokens = run(ending, sampler, ids_of(9), noise=MultinomialNoise(9))[-1].tokens[0]
    written = tokens[tokens >= 0].tolist()
    assert len(written) == len(theirs) == canvases * GEMMA_CANVAS
    cut = written.index(end) + 1
    assert theirs[:cut].tolist() == written[:cut]
    assert set(theirs[cut:].tolist()) <= {0}


def test_batched_is_single(tmp_path: Path) -> None:
    model = demur.load(save_diffusion_gemma(tmp_path / "calm", scale=0.5))
    model = replace(model, traits=replace(model.traits, end_ids=(GEMMA_VOCAB,)))
    sampler = Canvas(
        gen_length=36,
        canvas_length=GEMMA_CANVAS,
        canvas_steps=9,
        entropy_bound=8.0,
        stability=0,
        confidence=1.2,
    )
    rows = [ids_of(length) for length in (3, 21, 9, 14)]
    seeds = [4, 5, 6, 7]
    together = run(model, sampler, *rows, noise=RowNoise.seeded(seeds))
    lengths = set[int]()
    for place, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
        alone = run(model, sampler, row, noise=RowNoise.seeded([seed]))
        lengths.add(len(alone))
        shared = [step for step in together if step.running[place]]
        assert len(alone) == len(shared)
        for one, many in zip(alone, shared, strict=True):
            assert one.tokens[0].tolist() == many.tokens[place].tolist()
            assert one.draft[0].tolist() == many.draft[place].tolist()
            torch.testing.assert_close(
                one.phi["last"][0], many.phi["last"][place], atol=1e-5, rtol=0
            )
    assert len(lengths) > 1


def test_a_response_template_is_held(model: LanguageModel) -> None:
    asked = Prompt("w1 w2", response=("w3 w4", 5, "w6"))
    sampler = Canvas(gen_length=GEMMA_CANVAS, canvas_length=GEMMA_CANVAS, canvas_steps=4)
    trace = demur.trace(model, [asked], sampler=sampler)[0]
    fixed = model.encode([asked]).responses[0]
    for row in (*trace.committed, *trace.draft):
        held = [(a, b) for a, b in zip(row.tolist(), fixed, strict=False) if b >= 0]
        assert len(held) == 3
        assert all(a == b for a, b in held)


@pytest.mark.parametrize("sampler", [Masked(gen_length=8, block_length=8, steps=4), Block()])
def test_other_samplers_are_refused(sampler: Any, model: LanguageModel) -> None:
    with pytest.raises(InputError, match="canvas"):
        demur.trace(model, ["w1 w2"], sampler=sampler)


def test_accepts_the_least_uncertain_within_the_bound() -> None:
    entropy = torch.tensor([[0.5, 0.01, 0.2, 0.05], [3.0, 2.0, 4.0, 5.0]])
    assert least_uncertain(entropy, 0.1).tolist() == [
        [False, True, True, True],
        [False, True, False, False],
    ]
    assert least_uncertain(entropy, 100.0).all()


def test_the_temperature_falls_to_just_above_its_minimum() -> None:
    settings = Canvas(canvas_steps=4, t_max=0.8, t_min=0.4)
    found = [float(temperature(left, settings, torch.device("cpu"))) for left in (4, 3, 2, 1)]
    assert found == pytest.approx([0.8, 0.7, 0.6, 0.5])


def test_what_is_accepted_may_be_taken_back(model: LanguageModel) -> None:
    sampler = Canvas(gen_length=GEMMA_CANVAS, canvas_length=GEMMA_CANVAS, canvas_steps=8)
    steps = run(model, sampler, ids_of(7), noise=RowNoise.seeded([1]))
    accepted = torch.stack([step.tokens[0] >= 0 for step in steps])
    assert accepted[:-1].any(1).all()
    assert (accepted[:-1] & ~accepted[1:]).any()
    assert accepted[-1].all()


def test_each_pooling_takes_its_own_positions(model: LanguageModel) -> None:
    quiet = replace(model, traits=replace(model.traits, end_ids=(GEMMA_VOCAB,)))
    sampler = Canvas(gen_length=GEMMA_CANVAS, canvas_length=GEMMA_CANVAS, canvas_steps=4)
    states: list[torch.Tensor] = []
    norm = model.net.model.decoder.norm
    handle = norm.register_forward_hook(lambda module, args, output: states.append(output[0]))
    steps = run(quiet, sampler, ids_of(7), noise=RowNoise.seeded([1]), pooling="generated")
    handle.remove()
    for step, found in zip(steps, states, strict=True):
        torch.testing.assert_close(step.phi["last"][0], found[step.tokens[0] >= 0].mean(0))
    whole = run(quiet, sampler, ids_of(7), noise=RowNoise.seeded([1]), pooling="content")
    for step, found in zip(whole, states, strict=True):
        torch.testing.assert_close(step.phi["last"][0], found.mean(0))
    with pytest.raises(InputError, match="takes the state before each position"):
        run(quiet, sampler, ids_of(7), noise=RowNoise.seeded([1]), pooling="running")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gen_length": 100}, "canvas_length 256 does not divide gen_length 100"),
        ({"canvas_steps": 0}, "canvas_steps is 0"),
        ({"stability": -1}, "stability is -1"),
        ({"t_min": 0.9}, "t_min is 0.9"),
        ({"entropy_bound": 0.0}, "entropy_bound is 0.0"),
        ({"confidence": 0.0}, "confidence is 0.0"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Canvas(**wrong)


def test_a_model_without_a_canvas_is_refused(tiny_dlm: LanguageModel) -> None:
    with pytest.raises(InputError, match="does not denoise a canvas"):
        demur.trace(tiny_dlm, ["w1 w2"], sampler=Canvas(gen_length=8, canvas_length=8))
