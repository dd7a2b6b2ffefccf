"""A2D against its own modeling file under LLaDA's sampler: tokens, commits and states.

The numbers are frozen by ``tests/parity/freeze_a2d.py``, which names the upstream commits.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import demur
from demur.models.base import Batch, LanguageModel
from demur.sampling import Masked, RowNoise, find_pooling
from demur.types import Prompt
from parity import tiny

FROZEN = json.loads((Path(__file__).parent / "parity" / "a2d.json").read_text())["cases"]
MASK = 105


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The checkpoint, through the real loading code."""
    return demur.load(tiny.a2d(tmp_path_factory.mktemp("a2d") / "a2d"))


@pytest.mark.parametrize("padded", [False, True], ids=["alone", "padded"])
@pytest.mark.parametrize("case", FROZEN)
def test_equals_upstream(model: LanguageModel, case: str, padded: bool) -> None:
    for row in FROZEN[case]["rows"]:
        prompts = [row["prompt"], [101] * 9] if padded else [row["prompt"]]
        longest = max(map(len, prompts))
        ids = torch.tensor([[100] * (longest - len(p)) + p for p in prompts])
        attention = torch.tensor([[i >= longest - len(p) for i in range(longest)] for p in prompts])
        steps = list(
            Masked(**FROZEN[case]["args"]).run(
                model,
                Batch(ids, attention, ((),) * len(prompts)),
                layers=("last",),
                pooling=find_pooling("response"),
                noise=RowNoise.seeded([0] * len(prompts)),
            )
        )
        assert len(steps) == len(row["x"])
        for step, x, phi in zip(steps, row["x"], row["phi"], strict=True):
            assert step.tokens[0].tolist() == [-1 if t == MASK else t for t in x]
            np.testing.assert_allclose(step.phi["last"][0], phi, atol=1e-5)


def test_traits_and_template(model: LanguageModel) -> None:
    assert model.traits.family == "a2d"
    assert (model.traits.mask_id, model.traits.shift) == (MASK, False)
    assert model.traits.end_ids == (100, 102)
    ids = model.encode([Prompt("hi")]).ids[0].tolist()
    assert [i for i in ids if i >= 100] == [101, 102, 101, 102, 101, 103, 104]
