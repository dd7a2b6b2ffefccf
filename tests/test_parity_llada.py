"""LLaDA against its own code: tokens and commits step by step, states within 1e-5.

The numbers are frozen by ``tests/parity/freeze_llada.py``, which names the upstream commits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
from demur.models.base import Batch, LanguageModel
from demur.sampling import Masked
from demur.types import Prompt, Record
from parity import tiny
from parity.replay import Replay

FROZEN = json.loads((Path(__file__).parent / "parity" / "llada.json").read_text())["cases"]

#: Upstream's names of settings -> ours.
NAMES = {"logits_eos_inf": "never_end", "confidence_eos_eot_inf": "end_last"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    """Both checkpoints, through the real loading code."""
    folder = tmp_path_factory.mktemp("llada")
    return {
        kind: demur.load(tiny.llada(folder / kind, improved=kind == "illada"))
        for kind in ("llada", "illada")
    }


def batch_of(prompts: list[list[int]], pad: int = 1) -> Batch:
    """Token ids as they are, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
    attention = torch.tensor([[False] * (longest - len(p)) + [True] * len(p) for p in prompts])
    return Batch(ids, attention, tuple(() for _ in prompts))


def sampler_of(args: dict[str, Any]) -> Masked:
    return Masked(**{NAMES.get(name, name): value for name, value in args.items()})


def compare(steps: list[Any], row: int, frozen: dict[str, Any], mask: int) -> None:
    """Steps after the last commit repeat upstream, where the loop idles; here they do not happen."""
    mine = [s for s in steps if s.running[row]]
    frozen_steps = zip(frozen["x"], frozen["draft"], frozen["phi"], strict=True)
    for step, (x, draft, phi) in zip(mine, frozen_steps, strict=False):
        # Upstream may draw the mask token itself, which is no prediction; ours never is.
        own = step.draft[row].tolist()
        assert [mask if d == mask else t for t, d in zip(own, draft, strict=True)] == draft
        assert mask not in own
        assert step.tokens[row].tolist() == [-1 if t == mask else t for t in x]
        np.testing.assert_allclose(step.phi["last"][row], phi, atol=1e-5)
    assert mine[-1].tokens[row].tolist() == frozen["x"][-1]


@pytest.mark.parametrize("case", FROZEN)
def test_equals_upstream(models: dict[str, LanguageModel], case: str) -> None:
    model, frozen = models[case.split(":")[0]], FROZEN[case]
    assert model.traits.mask_id is not None
    for index, row in enumerate(frozen["rows"]):
        steps = list(
            sampler_of(frozen["args"]).run(
                model,
                batch_of([row["prompt"]]),
                Record(pooling="response"),
                Replay(index, everywhere=("tokens", "positions")),
            )
        )
        compare(steps, 0, row, model.traits.mask_id)


CERTAIN = [c for c in FROZEN if not {"temperature", "remasking"} & set(FROZEN[c]["args"])]


@pytest.mark.parametrize("case", CERTAIN)
def test_padded_batch_equals_upstream_alone(models: dict[str, LanguageModel], case: str) -> None:
    model, rows = models[case.split(":")[0]], FROZEN[case]["rows"]
    assert model.traits.mask_id is not None
    steps = list(
        sampler_of(FROZEN[case]["args"]).run(
            model, batch_of([row["prompt"] for row in rows]), Record(pooling="response"), Replay(0)
        )
    )
    for index, row in enumerate(rows):
        compare(steps, index, row, model.traits.mask_id)


def test_each_option_changes_something() -> None:
    plain = [row["x"] for row in FROZEN["llada: one block"]["rows"]]
    for case in ("temperature", "random", "guidance", "blocks with remainder"):
        assert [row["x"] for row in FROZEN[f"llada: {case}"]["rows"]] != plain, case


@pytest.mark.parametrize("case", ["no end", "ends last", "ends last and hot"])
def test_end_options_change_something(models: dict[str, LanguageModel], case: str) -> None:
    frozen = FROZEN[f"llada: {case}"]
    args = {k: v for k, v in frozen["args"].items() if k not in NAMES}
    differing = 0
    for index, row in enumerate(frozen["rows"]):
        steps = sampler_of(args).run(
            models["llada"],
            batch_of([row["prompt"]]),
            Record(pooling="response"),
            Replay(index, everywhere=("tokens", "positions")),
        )
        found = [s.tokens[0].masked_fill(s.tokens[0] < 0, 3).tolist() for s in steps]
        differing += found != row["x"]
    assert differing


def test_traits_and_template(models: dict[str, LanguageModel]) -> None:
    llada, illada = models["llada"], models["illada"]
    assert (llada.traits.mask_id, illada.traits.mask_id) == (3, 5)
    assert llada.traits.end_ids == (1, 2)
    assert llada.traits.sampler["gen_length"] == 128
    assert (llada.traits.family, llada.traits.shift) == ("llada", False)
    ids = llada.encode([Prompt("w1 w2")]).ids[0].tolist()
    assert ids[0] == 0
    assert ids.count(0) == 1
    assert ids.count(2) == 2


def test_added_tokens_in_a_prompt_stay_text(models: dict[str, LanguageModel]) -> None:
    """A header's tokens are special to the tokenizer without being named in its config."""
    plain = models["llada"].encode([Prompt("w1 w2")]).ids[0].tolist()
    hostile = (
        models["llada"].encode([Prompt("w1 <|start_header_id|> <|eot_id|> w2")]).ids[0].tolist()
    )
    control = (1, 2, 3, 5, 6, 7)
    assert [i for i in hostile if i in control] == [i for i in plain if i in control]


def test_every_tensor_is_used_once(models: dict[str, LanguageModel]) -> None:
    tied = models["illada"].net
    assert tied.lm_head.weight.data_ptr() == tied.model.embed_tokens.weight.data_ptr()
    assert models["llada"].net.config.num_key_value_heads == 4
    assert tied.config.num_key_value_heads == 2
