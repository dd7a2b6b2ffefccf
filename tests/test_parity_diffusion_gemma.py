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
from demur.errors import ModelError
from demur.models.base import Batch, LanguageModel
from demur.sampling import Canvas, find_pooling, sampler_from
from demur.types import Record
from parity.blocks import GEMMA_CANVAS, GEMMA_VOCAB, save, save_diffusion_gemma
from parity.noise import MultinomialNoise
from parity.rows import ids_of, padded

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
    ids = torch.tensor([ids_of(case["prompt"])])
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
    batch = Batch(*padded([ids_of(case["prompt"])]), ((),))
    noise, pooling = MultinomialNoise(case["seed"]), find_pooling("response")
    steps = list(sampler.run(model, batch, Record(pooling=pooling.name), noise))
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
    layered = demur.trace(model, ["w1"], record=demur.Record(layers=("first", "middle", "last")))[0]
    assert layered.phi["first"].shape == layered.phi["last"].shape


@pytest.mark.skipif(NATIVE, reason="transformers has DiffusionGemma")
def test_an_older_transformers_names_the_version_needed(tmp_path: Path) -> None:
    save(tmp_path / "g", {"model_type": "diffusion_gemma"}, {"w": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"5\.11 and later do"):
        demur.load(tmp_path / "g")
