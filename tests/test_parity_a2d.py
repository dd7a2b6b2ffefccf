"""A2D against its own modeling file, under LLaDA's sampler and (bd3lm) its own block sampler: tokens,
commits and states.

The numbers are frozen by ``tests/parity/freeze_a2d.py``, which names the upstream commits.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling import Block, Masked, RowNoise, Sampler
from demur.types import Prompt, Record
from parity import tiny

FROZEN = json.loads((Path(__file__).parent / "parity" / "a2d.json").read_text())["cases"]
MASK = 105
BLOCKS = [case for case in FROZEN if case.startswith("bd3lm")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The checkpoint, through the real loading code."""
    return demur.load(tiny.a2d(tmp_path_factory.mktemp("a2d") / "a2d"))


@pytest.fixture(scope="module")
def block_model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The same weights, named as the block-causal variants are."""
    return demur.load(tiny.a2d(tmp_path_factory.mktemp("a2d") / "tiny-bd3lm"))


def block_sampler(args: dict[str, int]) -> Block:
    """Upstream's settings as ours: its steps are those of all blocks together."""
    blocks = args["max_new_tokens"] // args["block_size"]
    return Block(
        gen_length=args["max_new_tokens"],
        block_length=args["block_size"],
        block_steps=-(-args["steps"] // blocks),
        threshold=None,
        counted_from="response",
    )


@pytest.mark.parametrize("padded", [False, True], ids=["alone", "padded"])
@pytest.mark.parametrize("case", [case for case in FROZEN if case not in BLOCKS])
def test_equals_upstream(model: LanguageModel, case: str, padded: bool) -> None:
    compare(model, Masked(**FROZEN[case]["args"]), FROZEN[case]["rows"], padded=padded)


@pytest.mark.parametrize("padded", [False, True], ids=["alone", "padded"])
@pytest.mark.parametrize("case", BLOCKS)
def test_blocks_equal_upstream(block_model: LanguageModel, case: str, padded: bool) -> None:
    endless = replace(block_model, traits=replace(block_model.traits, end_ids=()))
    sampler = block_sampler(FROZEN[case]["args"])
    compare(endless, sampler, FROZEN[case]["rows"], padded=padded)


def compare(model: LanguageModel, sampler: Sampler, rows: list[Any], *, padded: bool) -> None:
    """Every step's response tokens and pooled states, alone or beside a longer prompt."""
    for row in rows:
        prompts = [row["prompt"], [101] * 9] if padded else [row["prompt"]]
        longest = max(map(len, prompts))
        ids = torch.tensor([[100] * (longest - len(p)) + p for p in prompts])
        attention = torch.tensor([[i >= longest - len(p) for i in range(longest)] for p in prompts])
        steps = list(
            sampler.run(
                model,
                Batch(ids, attention, ((),) * len(prompts)),
                Record(pooling="response"),
                RowNoise.seeded([0] * len(prompts)),
            )
        )
        assert len(steps) == len(row["x"])
        for step, x, phi in zip(steps, row["x"], row["phi"], strict=True):
            begun = [-1 if t == MASK else t for t in x]
            assert step.tokens[0, : len(begun)].tolist() == begun
            assert (step.tokens[0, len(begun) :] == -1).all()
            np.testing.assert_allclose(step.phi["last"][0], phi, atol=1e-5)


def test_block_causal_variant_is_told_by_its_name(
    model: LanguageModel, block_model: LanguageModel
) -> None:
    assert block_model.traits.attention == "block"
    assert block_model.traits.sampler["counted_from"] == "response"
    assert model.traits.attention == "bidirectional"
    with pytest.raises(InputError, match="Use --sampler block"):
        demur.trace(block_model, ["hi"], sampler=Masked(steps=2, gen_length=4, block_length=4))


@pytest.mark.parametrize(
    ("place", "card", "attention"),
    [
        ("bd3lm-runs/mdlm", {}, "bidirectional"),
        ("own", {"demur": {"blocks": True}}, "block"),
        ("bd3lm", {"demur": {"blocks": False}}, "bidirectional"),
    ],
)
def test_the_variant_is_its_own_name_or_what_the_card_says(
    place: str, card: dict[str, Any], attention: str, tmp_path: Path
) -> None:
    folder = tiny.a2d(tmp_path / place)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **card}))
    assert demur.load(folder).traits.attention == attention


def test_slots_in_the_prompt_with_blocks_of_the_response(block_model: LanguageModel) -> None:
    """A slot in the prompt's first, shorter block is filled, whatever the prompt's length is."""
    sampler = Block(gen_length=8, threshold=None, counted_from="response")
    prompts = [Prompt("x", id=str(n), user=(" ".join(["w1"] * n), 2, "w3")) for n in range(1, 5)]
    for trace in demur.trace(block_model, prompts, sampler=sampler):
        assert trace.committed.shape[1] == 8
        assert "mask" not in trace.filled_prompt


def test_traits_and_template(model: LanguageModel) -> None:
    assert model.traits.family == "a2d"
    assert (model.traits.mask_id, model.traits.shift) == (MASK, False)
    assert model.traits.end_ids == (100, 102)
    ids = model.encode([Prompt("hi")]).ids[0].tolist()
    assert [i for i in ids if i >= 100] == [101, 102, 101, 102, 101, 103, 104]
