"""The guard inside transformers' own generate."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import demur
import guarded
from demur.errors import FingerprintError, InputError
from demur.organism import NAMES, path, world
from demur.types import Traces

PROMPTS = [
    *world.prompts("test", "harmless", n=3),
    *world.prompts("test", "harmful", attack="prefix_injection", n=3),
]


def generate(net: Any, criteria: list[Any], **options: Any) -> torch.Tensor:
    batch = guarded.model().encode(PROMPTS)
    ids: torch.Tensor = net.generate(
        batch.ids,
        attention_mask=batch.attention.long(),
        max_new_tokens=24,
        do_sample=False,
        stopping_criteria=criteria,
        **options,
    )
    return ids[:, batch.ids.shape[1] :]


@pytest.fixture(scope="module")
def traces() -> Traces:
    return demur.trace(guarded.model(), PROMPTS, sampler=guarded.SAMPLER)


def hooks() -> int:
    return len(guarded.model().net.model._forward_hooks)


def test_stops_jailbreaks_and_leaves_the_others(traces: Traces) -> None:
    guard, model = guarded.guard(), guarded.model()
    criterion = demur.stopping(guard, model)
    tokens = generate(model.net, [criterion])
    found = guard.detect(traces)
    assert found.any()
    assert not found.all()
    for row, (trace, step) in enumerate(zip(traces, found, strict=True)):
        expected = step - 1 if step else trace.n_steps
        assert criterion.released[row] == expected
        assert tokens[row, :expected].tolist() == trace.committed[-1][:expected].tolist()
        pad = model.net.generation_config.pad_token_id
        assert (tokens[row, expected + 1 :] == pad).all()
    readings, statistics = criterion.readings, guard.statistics(traces)
    assert [reading.flagged_at for reading in readings] == found.tolist()
    for reading, row in zip(readings, statistics, strict=True):
        assert reading.statistic == pytest.approx(row[reading.step - 1], rel=1e-4, abs=1e-5)


def test_reads_models_that_transformers_loaded() -> None:
    net = AutoModelForCausalLM.from_pretrained(path(NAMES[0]), dtype=torch.float32).eval()
    criteria = [demur.stopping(guarded.guard(), m) for m in (net, guarded.model())]
    first, second = generate(net, criteria[:1]), generate(guarded.model().net, criteria[1:])
    assert torch.equal(first, second)
    assert criteria[0].readings == criteria[1].readings


def test_the_hook_goes_with_the_criterion() -> None:
    before = hooks()
    generate(guarded.model().net, [demur.stopping(guarded.guard(), guarded.model())])
    assert hooks() == before


def test_what_cannot_be_followed_is_refused() -> None:
    guard, model = guarded.guard(), guarded.model()
    with pytest.raises(InputError, match="neither beams"):
        generate(model.net, [demur.stopping(guard, model)], num_beams=2)
    criterion = demur.stopping(guard, model)
    generate(model.net, [criterion])
    with pytest.raises(InputError, match="a new"):
        generate(model.net, [criterion])


def test_guards_of_others_are_refused(tiny_ar: Any) -> None:
    guard, model = guarded.guard(), guarded.model()
    with pytest.raises(FingerprintError, match="model: 'organism-ar' against 'tiny-ar'"):
        demur.stopping(guard, tiny_ar)
    for change in ({"pooling": "generated"}, {"dtype": "bfloat16"}, {"sampler": {"name": "block"}}):
        other = dataclasses.replace(guard.fingerprint, **change)  # type: ignore[arg-type]
        with pytest.raises(FingerprintError, match=next(iter(change))):
            demur.stopping(dataclasses.replace(guard, fingerprint=other), model)
