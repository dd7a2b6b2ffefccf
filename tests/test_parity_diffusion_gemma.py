"""DiffusionGemma's own ``generate`` against ours, on the same tiny weights and seeds.

Nothing is frozen: both run here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor

import demur
from demur.errors import InputError, ModelError
from demur.models.base import Batch, LanguageModel
from demur.sampling import Block, Canvas, Masked, RowNoise, find_pooling, sampler_from
from demur.types import Prompt, Step
from parity.blocks import GEMMA_CANVAS, GEMMA_VOCAB, save, save_diffusion_gemma

NATIVE = Version(transformers.__version__) >= Version("5.11")
native = pytest.mark.skipif(not NATIVE, reason="transformers has no DiffusionGemma before 5.11")


@pytest.fixture(scope="module")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return demur.load(save_diffusion_gemma(tmp_path_factory.mktemp("gemma") / "tiny-gemma"))


class Drafts:
    """A streamer that keeps the drafts which ``generate`` shows."""

    def __init__(self) -> None:
        self.found: list[list[int]] = []

    def put(self, value: Tensor) -> None:
        pass

    def put_draft(self, value: Tensor) -> None:
        self.found.append(value[0].tolist())

    def end(self) -> None:
        pass


def prompt(length: int) -> list[int]:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(5, 60, (length,), generator=generator).tolist()


def batch_of(*rows: list[int]) -> Batch:
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    kept = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    return Batch(ids, kept, tuple(() for _ in rows))


def ours(model: LanguageModel, sampler: Canvas, *rows: list[int], seeds: list[int]) -> list[Step]:
    noise = RowNoise.seeded(seeds)
    run = sampler.run(
        model, batch_of(*rows), layers=("last",), pooling=find_pooling("response"), noise=noise
    )
    return list(run)


CASES: list[dict[str, Any]] = [
    {"prompt": 7, "seed": 1},
    {"prompt": 19, "seed": 2, "gen_length": 36},
    {"prompt": 3, "seed": 3, "canvas_steps": 5, "entropy_bound": 2.0, "gen_length": 24},
    {"prompt": 11, "seed": 4, "stability": 2, "confidence": 1.5, "entropy_bound": 4.0},
    {"prompt": 5, "seed": 5, "stability": 0, "confidence": 2.0, "t_max": 0.6, "gen_length": 24},
]


@native
@pytest.mark.parametrize("case", CASES, ids=[str(case["seed"]) for case in CASES])
def test_every_draft_and_the_result_are_transformers(
    case: dict[str, Any], tiny_gemma: LanguageModel
) -> None:
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
        EntropyBoundSamplerConfig,
    )

    settings = {"gen_length": GEMMA_CANVAS, "canvas_length": GEMMA_CANVAS, "canvas_steps": 8}
    settings |= {k: v for k, v in case.items() if k not in ("prompt", "seed")}
    sampler = Canvas(**settings)  # type: ignore[arg-type]
    model = replace(tiny_gemma, traits=replace(tiny_gemma.traits, end_ids=(GEMMA_VOCAB,)))
    states, streamer = [], Drafts()
    norm = model.net.model.decoder.norm
    handle = norm.register_forward_hook(lambda module, args, output: states.append(output[0]))
    ids = torch.tensor([prompt(case["prompt"])])
    torch.manual_seed(case["seed"])
    theirs = model.net.generate(
        ids,
        streamer=streamer,
        max_new_tokens=sampler.gen_length,
        max_denoising_steps=sampler.canvas_steps,
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=sampler.entropy_bound),
        t_min=sampler.t_min,
        t_max=sampler.t_max,
        stability_threshold=sampler.stability,
        confidence_threshold=sampler.confidence,
        eos_token_id=GEMMA_VOCAB,
    )
    handle.remove()
    steps = ours(model, sampler, prompt(case["prompt"]), seeds=[case["seed"]])
    assert steps[-1].tokens[0].tolist() == theirs.sequences[0, ids.shape[1] :].tolist()
    assert len(steps) == len(streamer.found)
    past: list[Tensor] = []
    for place, step in enumerate(steps):
        assert step.block is not None
        begin = int(step.block[0]) * GEMMA_CANVAS
        assert step.draft[0, begin : begin + GEMMA_CANVAS].tolist() == streamer.found[place]
        if place and int(step.block[0]) != int(steps[place - 1].block[0]):  # type: ignore[index]
            past.append(states[place - 1])
        pooled = torch.cat([*past, states[place]]).mean(0)
        torch.testing.assert_close(step.phi["last"][0], pooled, atol=1e-5, rtol=0)


@native
def test_stops_after_the_canvas_with_an_end_token(tiny_gemma: LanguageModel) -> None:
    sampler = Canvas(gen_length=36, canvas_length=GEMMA_CANVAS, canvas_steps=4)
    free = replace(tiny_gemma, traits=replace(tiny_gemma.traits, end_ids=(GEMMA_VOCAB,)))
    whole = ours(free, sampler, prompt(9), seeds=[9])[-1].tokens[0]
    end = int(whole[GEMMA_CANVAS + 2])
    first = whole[:GEMMA_CANVAS].tolist()
    canvases = 1 if end in first else 2
    model = replace(tiny_gemma, traits=replace(tiny_gemma.traits, end_ids=(end,)))
    torch.manual_seed(9)
    theirs = model.net.generate(
        torch.tensor([prompt(9)]),
        max_new_tokens=36,
        max_denoising_steps=4,
        eos_token_id=end,
    ).sequences[0, 9:]
    tokens = ours(model, sampler, prompt(9), seeds=[9])[-1].tokens[0]
    written = tokens[tokens >= 0].tolist()
    assert len(written) == len(theirs) == canvases * GEMMA_CANVAS
    cut = written.index(end) + 1
    assert theirs[:cut].tolist() == written[:cut]
    assert set(theirs[cut:].tolist()) <= {0}


@native
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
    rows = [prompt(length) for length in (3, 21, 9, 14)]
    seeds = [4, 5, 6, 7]
    together = ours(model, sampler, *rows, seeds=seeds)
    lengths = set[int]()
    for place, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
        alone = ours(model, sampler, row, seeds=[seed])
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


@native
def test_a_response_template_is_held(tiny_gemma: LanguageModel) -> None:
    asked = Prompt("w1 w2", response=("w3 w4", 5, "w6"))
    sampler = Canvas(gen_length=GEMMA_CANVAS, canvas_length=GEMMA_CANVAS, canvas_steps=4)
    trace = demur.trace(tiny_gemma, [asked], sampler=sampler)[0]
    fixed = tiny_gemma.encode([asked]).responses[0]
    for row in (*trace.committed, *trace.draft):
        held = [(a, b) for a, b in zip(row.tolist(), fixed, strict=False) if b >= 0]
        assert len(held) == 3
        assert all(a == b for a, b in held)


@native
def test_declares_what_its_generation_config_says(tmp_path: Path) -> None:
    folder = save_diffusion_gemma(tmp_path / "g", max_denoising_steps=7, t_max=0.9)
    model = demur.load(folder)
    sampler = sampler_from(model.traits.sampler)
    assert sampler == Canvas(
        gen_length=GEMMA_CANVAS, canvas_length=GEMMA_CANVAS, canvas_steps=7, t_max=0.9
    )
    assert model.traits.end_ids == (1, 4)
    assert model.traits.mask_id is None
    assert model.context_length == 256
    layered = demur.trace(model, ["w1"], layers=("first", "middle", "last"))[0]
    assert layered.phi["first"].shape == layered.phi["last"].shape


@native
@pytest.mark.parametrize("sampler", [Masked(gen_length=8, block_length=8, steps=4), Block()])
def test_other_samplers_are_refused(sampler: Any, tiny_gemma: LanguageModel) -> None:
    with pytest.raises(InputError, match="canvas"):
        demur.trace(tiny_gemma, ["w1 w2"], sampler=sampler)


@pytest.mark.skipif(NATIVE, reason="transformers has DiffusionGemma")
def test_an_older_transformers_names_the_version_needed(tmp_path: Path) -> None:
    save(tmp_path / "g", {"model_type": "diffusion_gemma"}, {"w": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"5\.11 and later do"):
        demur.load(tmp_path / "g")
