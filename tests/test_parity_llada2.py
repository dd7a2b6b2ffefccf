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
from demur.errors import ModelError
from demur.models.base import Batch, LanguageModel
from demur.sampling import Block, find_pooling, sampler_from
from demur.types import Prompt, Record, Step
from parity.blocks import LLADA2, LLADA2_MASK, llada2_weights, save, save_llada2
from parity.noise import MultinomialNoise
from parity.rows import ids_of, padded

FIXTURE = json.loads((Path(__file__).parent / "parity" / "llada2.json").read_text())
RUNS = [*FIXTURE["runs"], *FIXTURE["edits"]]


@pytest.fixture(scope="module")
def tiny_llada2(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return demur.load(save_llada2(tmp_path_factory.mktemp("llada2") / "tiny-llada2"))


def generate(model: LanguageModel, case: dict[str, Any]) -> list[Step]:
    """Our steps for a case."""
    sampler = Block(
        gen_length=case["gen_length"],
        block_length=case["block_length"],
        block_steps=case.get("steps", case["block_length"]),
        threshold=case["threshold"],
        edit_threshold=case.get("editing_threshold"),
        edit_steps=case.get("max_post_steps", 16),
        temperature=case.get("temperature", 0.0),
        top_k=case.get("top_k", 0),
        top_p=case.get("top_p", 1.0),
    )
    batch = Batch(*padded([ids_of(case["prompt"])]), ((),))
    pooling = find_pooling("response")
    noise = MultinomialNoise(11)
    return list(sampler.run(model, batch, Record(pooling=pooling.name), noise))


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


def test_declares_what_the_release_has(tiny_llada2: LanguageModel) -> None:
    traits = tiny_llada2.traits
    assert (traits.attention, traits.mask_id, traits.shift) == ("block", LLADA2_MASK, False)
    assert traits.end_ids == (0,)
    assert traits.pooling == "response"
    sampler = sampler_from(traits.sampler)
    assert sampler == Block(block_length=32, block_steps=32, threshold=0.95)
    text = tiny_llada2.decode(tiny_llada2.encode([Prompt("w1")]).ids[0].tolist(), special=True)
    assert text.startswith("<role>")
    assert text.endswith("</role>")


@pytest.mark.parametrize(
    ("name", "model_type"), [("own", "llada21_moe"), ("LLaDA2.1-mini", "llada2_moe")]
)
def test_a_checkpoint_of_2_1_edits(name: str, model_type: str, tmp_path: Path) -> None:
    model = demur.load(save_llada2(tmp_path / name, model_type=model_type))
    sampler = sampler_from(model.traits.sampler)
    assert sampler == Block(block_length=32, block_steps=32, threshold=0.7, edit_threshold=0.5)


def test_runs_no_code_of_the_checkpoint(tmp_path: Path) -> None:
    folder = save_llada2(tmp_path / "llada2")
    (folder / "modeling_llada2_moe.py").write_text("raise SystemExit('ran')")
    (folder / "configuration_llada2_moe.py").write_text("raise SystemExit('ran')")
    assert demur.load(folder).traits.family == "llada2"


@pytest.mark.parametrize(
    "odd", [{"use_bias": True}, {"norm_head": True}, {"num_shared_experts": 0}]
)
def test_an_option_without_a_native_class_is_refused(odd: dict[str, Any], tmp_path: Path) -> None:
    folder = save_llada2(tmp_path / "llada2", **odd)
    with pytest.raises(ModelError, match=next(iter(odd))):
        demur.load(folder)


def test_weights_that_are_missing_odd_or_cut_are_refused(tmp_path: Path) -> None:
    folder = save_llada2(tmp_path / "llada2")
    weights = llada2_weights()
    del weights["model.layers.1.mlp.experts.3.up_proj.weight"]
    save(folder, LLADA2, weights)
    with pytest.raises(ModelError, match=r"missing: model\.layers\.1\.mlp\.experts\.3\.up_proj"):
        demur.load(folder)
    save(folder, LLADA2, {**llada2_weights(), "model.layers.9.norm.weight": torch.ones(16)})
    with pytest.raises(ModelError, match=r"unexpected: model\.layers\.9"):
        demur.load(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:5000])
    with pytest.raises(ModelError, match="Could not read the weights"):
        demur.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors file"):
        demur.load(folder)
