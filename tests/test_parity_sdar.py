"""SDAR's own code against ours, on the same tiny weights: every step's tokens and states.

The fixture is made by ``parity/freeze_sdar.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import demur
from demur.errors import ModelError
from demur.models.base import Batch, LanguageModel
from demur.sampling import Block, find_pooling, sampler_from
from demur.types import Prompt, Record, Step
from parity.blocks import SDAR, SDAR_MASK, SDAR_VOCAB, save, save_sdar, sdar_weights
from parity.noise import MultinomialNoise
from parity.rows import ids_of, padded

FIXTURE = json.loads((Path(__file__).parent / "parity" / "sdar.json").read_text())
RUNS = FIXTURE["runs"]


@pytest.fixture(scope="module")
def tiny_sdar(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return demur.load(save_sdar(tmp_path_factory.mktemp("sdar") / "tiny-sdar"))


def settings(case: dict[str, Any]) -> Block:
    """The block sampler that a case describes."""
    if not case["sampled"]:
        threshold = case["threshold"] if case["threshold"] < 1 else None
        steps = case["denoising_steps"]
        return Block(gen_length=case["gen_length"], block_steps=steps, threshold=threshold)
    rule = case["remasking_strategy"]
    return Block(
        gen_length=case["gen_length"],
        remasking="left_to_right" if rule == "sequential" else "low_confidence",
        threshold=case.get("confidence_threshold", 0.85) if rule.endswith("dynamic") else None,
        temperature=case.get("temperature", 1.0),
        top_k=case.get("top_k", 0),
        top_p=case.get("top_p", 1.0),
    )


def generate(model: LanguageModel, case: dict[str, Any]) -> list[Step]:
    """Our steps for a case."""
    batch = Batch(*padded([ids_of(case["prompt"])]), ((),))
    noise = MultinomialNoise(11)
    pooling = find_pooling("response")
    return list(settings(case).run(model, batch, Record(pooling=pooling.name), noise))


def upstream_steps(run: dict[str, Any]) -> Iterator[tuple[list[int], Tensor]]:
    """After each denoising pass: shown response tokens (-1 masked) and the pooled states."""
    start, length = run["case"]["prompt"], run["case"]["gen_length"]
    finished: dict[int, Tensor] = {}
    shown = torch.full((length,), -1)
    for place, one in enumerate(run["passes"]):
        columns = range(one["first"], one["first"] + len(one["ids"]))
        inside = [c for c in columns if start <= c < start + length]
        states = {c: torch.tensor(one["states"][c - one["first"]]) for c in inside}
        if one["kind"] == "store":
            finished |= states
            continue
        after = run["passes"][place + 1]["ids"]
        for c in inside:
            token = after[c - one["first"]]
            shown[c - start] = -1 if token == SDAR_MASK else token
        yield shown.tolist(), torch.stack([*(finished | states).values()]).mean(0)


@pytest.mark.parametrize("run", RUNS, ids=[str(i) for i in range(len(RUNS))])
def test_every_step_is_upstreams(run: dict[str, Any], tiny_sdar: LanguageModel) -> None:
    ends = (run["case"].get("ends", SDAR_VOCAB),)
    model = replace(tiny_sdar, traits=replace(tiny_sdar.traits, end_ids=ends))
    ours = generate(model, run["case"])
    theirs = list(upstream_steps(run))
    assert len(ours) >= 2
    for step, (tokens, state) in zip(ours, theirs, strict=False):
        assert step.tokens[0].tolist() == tokens
        torch.testing.assert_close(step.phi["last"][0], state, atol=1e-5, rtol=0)
    # What upstream does after our last step lies past gen_length.
    assert all(tokens == theirs[len(ours) - 1][0] for tokens, _ in theirs[len(ours) :])


def test_declares_what_the_release_has(tiny_sdar: LanguageModel) -> None:
    traits = tiny_sdar.traits
    assert (traits.attention, traits.mask_id, traits.shift) == ("block", SDAR_MASK, False)
    assert traits.end_ids == (2, 0)
    assert traits.pooling == "response"
    assert sampler_from(traits.sampler) == Block(block_length=4, block_steps=4, threshold=0.85)
    ids = tiny_sdar.encode([Prompt("w1 <|MASK|> w2")]).ids[0]
    assert SDAR_MASK not in ids
    text = tiny_sdar.decode(ids.tolist(), special=True)
    assert text.startswith("<|im_start|>")
    assert text.count("<|im_end|>") == 2


def test_the_mask_token_may_come_from_the_tokenizer(tmp_path: Path) -> None:
    folder = save_sdar(tmp_path / "sdar", mask_token_id=None)
    assert demur.load(folder).traits.mask_id == SDAR_MASK
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    del tokenizer["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="151669 in the released ones"):
        demur.load(folder)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = save_sdar(tmp_path / "sdar")
    tensors = sdar_weights()
    tensors["model.layers.0.self_attn.b_proj.weight"] = tensors.pop("model.norm.weight")
    save(folder, SDAR, tensors)
    with pytest.raises(ModelError, match="does not fit"):
        demur.load(folder)
