"""LLaDA-2's own code against ours, on the same tiny weights: every step's tokens and states.

The fixture is made by ``parity/freeze_llada2.py``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import demur
from demur.models.base import Batch, LanguageModel
from demur.sampling import Block, find_pooling
from demur.types import Step
from parity.blocks import LLADA2_MASK, save_llada2
from parity.noise import MultinomialNoise
from parity.rows import ids_of, padded

FIXTURE = json.loads((Path(__file__).parent / "parity" / "llada2.json").read_text())
RUNS = FIXTURE["runs"]


@pytest.fixture(scope="module")
def tiny_llada2(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return demur.load(save_llada2(tmp_path_factory.mktemp("llada2") / "tiny-llada2"))


def generate(model: LanguageModel, case: dict[str, Any]) -> list[Step]:
    """Our steps for a case."""
    sampler = Block(
        gen_length=case["gen_length"],
        block_length=case["block_length"],
        block_steps=case["steps"],
        threshold=case["threshold"],
        temperature=case.get("temperature", 0.0),
        top_k=case.get("top_k", 0),
        top_p=case.get("top_p", 1.0),
    )
    batch = Batch(*padded([ids_of(case["prompt"])]), ((),))
    pooling = find_pooling("response")
    noise = MultinomialNoise(11)
    return list(sampler.run(model, batch, layers=("last",), pooling=pooling, noise=noise))


def test_native_class_gives_upstreams_states(tiny_llada2: LanguageModel) -> None:
    ids = torch.tensor([ids_of(24)])
    block = torch.arange(24) // 8
    attention = (block <= block[:, None])[None, None]
    with torch.inference_mode():
        states = tiny_llada2.states(ids, attention, positions=torch.arange(24)[None])["last"][0]
    torch.testing.assert_close(states, torch.tensor(FIXTURE["states"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("run", RUNS, ids=[str(i) for i in range(len(RUNS))])
def test_every_step_is_upstreams(run: dict[str, Any], tiny_llada2: LanguageModel) -> None:
    case, passes = run["case"], run["passes"]
    model = replace(tiny_llada2, traits=replace(tiny_llada2.traits, end_ids=(case["end"],)))
    ours = generate(model, case)
    assert len(ours) <= len(passes)
    masked = [-1] * case["gen_length"]
    for place, one in enumerate(passes[: len(ours)]):
        before = ours[place - 1].tokens[0].tolist() if place else masked
        read = [-1 if token == LLADA2_MASK else token for token in one["read"]]
        assert before[: len(read)] == read
        torch.testing.assert_close(
            ours[place].phi["last"][0], torch.tensor(one["mean"]), atol=1e-5, rtol=0
        )
    assert ours[-1].tokens[0].tolist()[: len(run["tokens"])] == run["tokens"]
    # What upstream does after our last step lies past gen_length.
    for one in passes[len(ours) :]:
        assert one["read"] == ours[-1].tokens[0].tolist()
