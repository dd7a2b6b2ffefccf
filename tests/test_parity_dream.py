"""Dream against its own code: tokens and commits step by step, states within 1e-5.

The numbers are frozen by ``tests/parity/freeze_dream.py``, which names the upstream commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import demur
from demur.models.base import Batch, LanguageModel
from demur.sampling import Dream, find_pooling
from demur.types import Prompt, Record
from parity import tiny
from parity.replay import Replay

FROZEN = json.loads((Path(__file__).parent / "parity" / "dream.json").read_text())["cases"]
MASK = 105


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The checkpoint, through the real loading code."""
    return demur.load(tiny.dream(tmp_path_factory.mktemp("dream") / "dream"))


@pytest.mark.parametrize("case", FROZEN)
def test_equals_upstream(model: LanguageModel, case: str) -> None:
    frozen = FROZEN[case]
    sampler = Dream(**frozen["args"])
    for index, row in enumerate(frozen["rows"]):
        ids = torch.tensor([row["prompt"]])
        steps = list(
            sampler.run(
                model,
                Batch(ids, torch.ones_like(ids, dtype=torch.bool), ((),)),
                Record(pooling="response"),
                Replay(index, everywhere=() if sampler.alg == "origin" else ("positions",)),
            )
        )
        for step, x, phi in zip(steps, row["x"], row["phi"], strict=False):
            assert step.tokens[0].tolist() == [-1 if t == MASK else t for t in x]
            np.testing.assert_allclose(step.phi["last"][0], phi, atol=1e-5)
        for step, draft in zip(steps, row.get("draft", ()), strict=False):
            assert step.draft[0].tolist() == draft
        assert steps[-1].tokens[0].tolist() == row["x"][-1]


def test_origin_drafts_the_most_likely_tokens(model: LanguageModel) -> None:
    """Upstream predicts only what it commits; a draft shows what it would say everywhere."""
    ids = torch.tensor([FROZEN["origin"]["rows"][0]["prompt"]])
    prompt = Batch(ids, torch.ones_like(ids, dtype=torch.bool), ((),))
    sampler, pooling = Dream(**FROZEN["origin"]["args"]), find_pooling("response")
    x = torch.cat([ids, torch.full((1, sampler.gen_length), MASK)], dim=1)
    stream = sampler.run(model, prompt, Record(pooling=pooling.name), Replay(0))
    for step in stream:
        states = model.states(x, None)["last"][:, ids.shape[1] - 1 : -1]
        likely, now = model.logits(states).argmax(-1), x[:, ids.shape[1] :]
        assert torch.equal(step.draft, torch.where(now == MASK, likely, now))
        x = torch.cat([ids, step.tokens.masked_fill(step.tokens < 0, MASK)], dim=1)


CERTAIN = [
    c for c in FROZEN if not {"temperature", "alg_temp"} & set(FROZEN[c]["args"]) and c != "origin"
]


@pytest.mark.parametrize("case", CERTAIN)
def test_padded_batch_equals_upstream_alone(model: LanguageModel, case: str) -> None:
    rows = FROZEN[case]["rows"]
    longest = max(len(row["prompt"]) for row in rows)
    short = [longest - len(row["prompt"]) for row in rows]
    ids = torch.tensor([[100] * n + row["prompt"] for n, row in zip(short, rows, strict=True)])
    attention = torch.tensor([[i >= n for i in range(longest)] for n in short])
    steps = Dream(**FROZEN[case]["args"]).run(
        model, Batch(ids, attention, ((), ())), Record(pooling="response"), Replay(0)
    )
    for t, step in enumerate(steps):
        for index, row in enumerate(rows):
            if step.running[index]:
                expected = [-1 if token == MASK else token for token in row["x"][t]]
                assert step.tokens[index].tolist() == expected
                np.testing.assert_allclose(step.phi["last"][index], row["phi"][t], atol=1e-5)


def test_each_rule_takes_its_own_way() -> None:
    ways = [json.dumps([row["x"] for row in case["rows"]]) for case in FROZEN.values()]
    assert len(set(ways)) == len(ways)


def test_traits_and_template(model: LanguageModel) -> None:
    assert model.traits.family == "dream"
    assert (model.traits.mask_id, model.traits.shift) == (MASK, True)
    assert model.traits.end_ids == (100, 102)
    assert model.traits.sampler == {"name": "dream", "steps": 32, "gen_length": 128}
    ids = model.encode([Prompt("hi")]).ids[0].tolist()
    assert ids[0] == 101
    assert ids.count(102) == 2
    assert model.decode(ids[-1:]) == "\n"


def test_paper_schedule(model: LanguageModel) -> None:
    """128 positions in 32 steps: 3, thirty times 4, 5."""
    ids = torch.tensor([[104, 9]])
    steps = Dream().run(
        model,
        Batch(ids, torch.ones_like(ids, dtype=torch.bool), ((),)),
        Record(pooling="response"),
        Replay(0),
    )
    counts = [int((s.tokens >= 0).sum()) for s in steps]
    assert np.diff([0, *counts]).tolist() == [3, *[4] * 30, 5]
