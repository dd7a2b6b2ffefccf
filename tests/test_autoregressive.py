"""The autoregressive sampler against transformers' own ``generate``, and its own promises."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demur.errors import InputError
from demur.generation import steps, trace, trace_batch
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, RowNoise
from demur.types import Prompt, Record
from parity.noise import MultinomialNoise

PROMPTS = [
    Prompt("w1 w2 w3", id="a"),
    Prompt("w4", id="b"),
    Prompt("w5 w6 w7 w8 w9 w10 w11", id="c"),
    Prompt("w12 w13 w14 w15", id="d"),
]


def generated(model: LanguageModel, prompts: list[Prompt], **options: Any) -> list[list[int]]:
    """New tokens by ``generate``, cut after the first end token."""
    batch = model.encode(prompts)
    out = model.net.generate(
        input_ids=batch.ids, attention_mask=batch.attention.long(), pad_token_id=0, **options
    )
    rows = []
    for row in out[:, batch.ids.shape[1] :].tolist():
        rows.append(row[: row.index(2) + 1] if 2 in row else row)
    return rows


def endless(model: LanguageModel) -> LanguageModel:
    """The same model without end tokens."""
    return dataclasses.replace(model, traits=dataclasses.replace(model.traits, end_ids=()))


@pytest.fixture(scope="module")
def ending_ar(tiny_ar: LanguageModel) -> LanguageModel:
    """The same model, ending where it would say one of eight tokens."""
    ends = tuple(range(2, 50, 6))
    return dataclasses.replace(tiny_ar, traits=dataclasses.replace(tiny_ar.traits, end_ids=ends))


def test_greedy_equals_generate_on_a_ragged_batch(tiny_ar: LanguageModel) -> None:
    expected = generated(tiny_ar, PROMPTS, max_new_tokens=24, do_sample=False)
    traces = trace_batch(tiny_ar, PROMPTS, sampler=Autoregressive(steps=24))
    assert [t.response_ids.tolist() for t in traces] == expected


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.4, 0.8), (1.0, 0.3)])
def test_sampled_equals_generate_with_the_same_noise(
    tiny_ar: LanguageModel, temperature: float, top_p: float
) -> None:
    sampler = Autoregressive(steps=24, temperature=temperature, top_p=top_p)
    for prompt in PROMPTS:
        torch.manual_seed(7)
        [expected] = generated(
            tiny_ar,
            [prompt],
            max_new_tokens=24,
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
        )
        stream = sampler.run(
            tiny_ar, tiny_ar.encode([prompt]), Record(pooling="running"), MultinomialNoise(7)
        )
        found = list(stream)[-1].tokens[0]
        assert found[found >= 0].tolist() == expected


@torch.no_grad()
def naive_states(model: LanguageModel, prompt: Prompt, response: list[int]) -> torch.Tensor:
    """Final-norm states of prompt and response in one uncached pass, ``[P - 1 .. P + n)``."""
    ids = model.encode([prompt]).ids
    whole = torch.cat([ids, torch.tensor([response])], dim=1)
    hidden = model.net(whole, output_hidden_states=True).hidden_states[-1][0]
    states: torch.Tensor = hidden[ids.shape[1] - 1 :]
    return states


@pytest.mark.parametrize("pooling", ["running", "generated", "content", "content_predictor"])
def test_states_equal_an_uncached_pass(ending_ar: LanguageModel, pooling: str) -> None:
    ends = ending_ar.traits.end_ids
    for one in trace_batch(
        ending_ar, PROMPTS, sampler=Autoregressive(steps=12), record=Record(pooling=pooling)
    ):
        response = one.response_ids.tolist()
        states = naive_states(ending_ar, one.prompt, response)
        own = states[:-1] if pooling in ("running", "content_predictor") else states[1:]
        kept = [
            own[j]
            for j in range(len(response))
            if not (pooling.startswith("content") and j and response[j] in ends)
        ]
        for step in range(len(response)):
            expected = torch.stack(kept[: step + 1]).mean(0).numpy()
            np.testing.assert_allclose(one.phi["last"][step], expected, atol=1e-5)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    temperature=st.sampled_from([0.0, 1.0]),
    pooling=st.sampled_from(["running", "generated", "content"]),
)
def test_batched_equals_single(
    ending_ar: LanguageModel, lengths: list[int], temperature: float, pooling: str
) -> None:
    sampler = Autoregressive(steps=8, temperature=temperature, top_p=0.9)
    prompts = [
        Prompt(" ".join(f"w{(n * 5 + i) % 40}" for i in range(n)), id=f"{k}")
        for k, n in enumerate(lengths)
    ]
    options: dict[str, Any] = {
        "sampler": sampler,
        "record": Record(layers=("last", "middle", "1"), pooling=pooling),
    }
    for prompt, one in zip(prompts, trace_batch(ending_ar, prompts, **options), strict=True):
        [alone] = trace_batch(ending_ar, [prompt], **options)
        np.testing.assert_array_equal(one.committed, alone.committed)
        assert one.finish_reason == alone.finish_reason
        for layer in options["record"].layers:
            # Before the final norm these weights' states reach 60, where float32 has steps of 4e-6:
            # 5e-5 was measured.
            within = 1e-5 if layer == "last" else 1e-4
            np.testing.assert_allclose(one.phi[layer], alone.phi[layer], rtol=0, atol=within)


def test_order_and_batch_size_change_nothing(ending_ar: LanguageModel) -> None:
    sampler = Autoregressive(steps=8, temperature=0.8)
    reference = {t.prompt.id: t for t in trace(ending_ar, PROMPTS, sampler=sampler, batch_size=1)}
    for batch_size in (2, 4):
        for t in trace(ending_ar, PROMPTS[::-1], sampler=sampler, batch_size=batch_size):
            np.testing.assert_array_equal(t.committed, reference[t.prompt.id].committed)


def test_rows_that_ended_stay_and_cost_nothing(ending_ar: LanguageModel) -> None:
    rows: list[int] = []
    hook = ending_ar.net.model.norm.register_forward_hook(
        lambda module, inputs, output: rows.append(len(output))
    )
    stream = list(steps(ending_ar, PROMPTS, sampler=Autoregressive(steps=12)))
    hook.remove()
    assert rows == [int(s.running.sum()) for s in stream]
    assert rows[-1] < rows[0]
    for before, after in itertools.pairwise(stream):
        ended = ~after.running
        assert torch.equal(after.tokens[ended], before.tokens[ended])
        assert torch.equal(after.phi["last"][ended], before.phi["last"][ended])


def test_prefill_is_read_before_the_first_token(tiny_ar: LanguageModel) -> None:
    prompt = Prompt("w1", id="p", response=("w20 w21 w22", 5))
    batch = tiny_ar.encode([prompt])
    whole = torch.cat([batch.ids, torch.tensor([batch.responses[0][:3]])], dim=1)
    expected = tiny_ar.net.generate(
        whole, attention_mask=torch.ones_like(whole), max_new_tokens=5, do_sample=False
    )[0, batch.ids.shape[1] :].tolist()
    together = trace_batch(tiny_ar, [PROMPTS[2], prompt], sampler=Autoregressive(steps=5))[1]
    assert together.response_ids.tolist() == expected
    assert together.n_steps == len(expected) - 3


def test_inner_slots_are_refused(tiny_ar: LanguageModel) -> None:
    with pytest.raises(InputError, match="left to right"):
        trace_batch(tiny_ar, [Prompt("w1", response=(2, "w3"))])


def test_masked_slots_in_the_prompt_are_refused(tiny_ar: LanguageModel) -> None:
    with pytest.raises(InputError, match="autoregressive and has"):
        trace_batch(tiny_ar, [Prompt("w1", user=("w1", 2))])


def test_pooling_over_masks_is_refused(tiny_ar: LanguageModel) -> None:
    with pytest.raises(InputError, match="Use running, generated or content"):
        trace_batch(tiny_ar, PROMPTS, record=Record(pooling="response"))


def test_dropped_rows_cost_no_pass_and_change_no_other(ending_ar: LanguageModel) -> None:
    model, record = endless(ending_ar), Record(pooling="running")
    sampler, noise = Autoregressive(steps=6), RowNoise.seeded([0] * 4)
    whole = list(sampler.run(model, model.encode(PROMPTS), record, noise))
    rows: list[int] = []
    hook = model.net.model.norm.register_forward_hook(
        lambda module, inputs, output: rows.append(len(output))
    )
    stream = sampler.run(model, model.encode(PROMPTS), record, RowNoise.seeded([0] * 4))
    steps = [next(stream), next(stream)]
    stream.drop([0, 2])
    steps += stream
    hook.remove()
    assert rows == [4, 4, 2, 2, 2, 2]
    assert not steps[-1].running[[0, 2]].any()
    assert torch.equal(steps[-1].tokens[[1, 3]], whole[-1].tokens[[1, 3]])
    assert torch.equal(steps[-1].tokens[[0, 2]], steps[1].tokens[[0, 2]])


def test_stopping_the_stream_stops_the_work(tiny_ar: LanguageModel) -> None:
    passes: list[int] = []
    hook = tiny_ar.net.model.norm.register_forward_hook(lambda *_: passes.append(1))
    stream = Autoregressive(steps=30).run(
        endless(tiny_ar),
        tiny_ar.encode(PROMPTS),
        Record(pooling="running"),
        RowNoise.seeded([0] * 4),
    )
    next(stream)
    next(stream)
    hook.remove()
    assert len(passes) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "at least 1"),
        ({"temperature": -0.1}, "0 or more"),
        ({"top_p": 0.0}, "above 0"),
        ({"top_p": 1.1}, "at most 1"),
    ],
)
def test_settings_that_do_not_fit(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Autoregressive(**wrong)
