"""Forward passes of a generation, counted exactly."""

from __future__ import annotations

import pytest

import demur
from demur.defenses import Setup
from demur.defenses.defended import counted
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, Masked, Sampler
from demur.types import Prompt


@pytest.mark.parametrize(
    ("pooling", "sampler"),
    [("running", Autoregressive(steps=6)), ("generated", Autoregressive(steps=6))],
)
def test_passes_are_counted_exactly(tiny_ar: LanguageModel, pooling: str, sampler: Sampler) -> None:
    prompts = [Prompt("w1 w2"), Prompt("w3"), Prompt("w4 w5 w6 w7")]
    record = demur.Record(pooling=pooling)
    together = Setup(model=tiny_ar, sampler=sampler, record=record, batch_size=2).answer(prompts)
    with counted(tiny_ar) as counter:
        traces = demur.trace(tiny_ar, prompts, sampler=sampler, record=record, batch_size=1)
    assert together.passes.sum() == counter.rows
    extra = 0 if pooling == "running" else 1
    assert together.passes.tolist() == [trace.n_steps + extra for trace in traces]
    assert not tiny_ar.body._forward_hooks


def test_a_pass_under_guidance_counts_twice(tiny_dlm: LanguageModel) -> None:
    sampler = Masked(steps=4, gen_length=8, block_length=4, cfg_scale=1.0)
    prompts = [Prompt("w1 w2"), Prompt("w3")]
    found = Setup(model=tiny_dlm, sampler=sampler, batch_size=2).answer(prompts)
    assert found.passes.tolist() == [8, 8]
