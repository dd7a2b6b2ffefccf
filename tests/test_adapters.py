"""Adapters: states computed by something else give the trace that demur gives, under an honest name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import demur
from demur.adapters import (
    Source,
    from_generate,
    from_hidden_states,
    from_sglang,
    from_vllm,
    rms_norm,
)
from demur.errors import FingerprintError, InputError, SignalError
from demur.models.base import LanguageModel
from demur.organism.world import prompts as world_prompts
from demur.sampling import Autoregressive
from demur.types import Prompt, Trace, Traces

SAMPLER = Autoregressive(steps=45)
SOURCE = Source(engine="vllm 0.22.0", model="organism-ar", steps=45, dtype="float32")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return demur.load("organism-ar")


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return [
        *world_prompts("test", "harmless", n=3),
        *world_prompts("test", "harmful", attack="flip", n=3),
    ]


@pytest.fixture(scope="module")
def ours(model: LanguageModel, prompts: list[Prompt]) -> Traces:
    return demur.trace(model, prompts, sampler=SAMPLER, record=demur.Record(layers=("last", "2")))


def generate(model: LanguageModel, prompts: list[Prompt], **options: Any) -> Any:
    batch = model.encode(prompts)
    return model.net.generate(
        batch.ids,
        attention_mask=batch.attention.long(),
        max_new_tokens=45,
        output_hidden_states=True,
        return_dict_in_generate=True,
        **{"do_sample": False, **options},
    )


@pytest.fixture(scope="module")
def whole(model: LanguageModel, ours: Traces) -> dict[str, Any]:
    """One trace with the states of every position of its prompt and response."""
    trace = ours[2]
    prompt = model.encode([trace.prompt]).ids
    response = torch.from_numpy(trace.response_ids.astype(np.int64))[None]
    with torch.inference_mode():
        states = model.states(torch.cat([prompt, response], 1), None, layers=("last", "2", "4"))
    return {"trace": trace, "prompt_tokens": prompt.shape[1], "prompt_ids": prompt[0].tolist()} | {
        f"states_{layer}": value[0] for layer, value in states.items()
    }


def assert_same(found: Trace, expected: Trace, *, layer: str = "last") -> None:
    assert found.response == expected.response
    assert found.finish_reason == expected.finish_reason
    for name in ("response_ids", "committed", "draft", "blocks"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.phi[layer], expected.phi[layer], atol=1e-5)


def test_generate_equals_trace(model: LanguageModel, prompts: list[Prompt], ours: Traces) -> None:
    output = generate(model, prompts)
    found = from_generate(model, prompts, output, sampler=SAMPLER, layers=("last", "2"))
    for one, expected in zip(found, ours, strict=True):
        assert_same(one, expected)
        assert_same(one, expected, layer="2")
    assert {trace.finish_reason for trace in found} == {"stop", "length"}
    # Greedy is checked token by token, so anchors of demur's own traces accept these.
    found.fingerprint.require(ours.fingerprint, what="", fix="")


def test_sampled_tokens_do_not_pass_for_ours(model: LanguageModel, prompts: list[Prompt]) -> None:
    torch.manual_seed(0)
    output = generate(model, prompts, do_sample=True, temperature=1.5)
    with pytest.raises(FingerprintError, match="is not what organism-ar chooses"):
        from_generate(model, prompts, output, sampler=SAMPLER)
    warm = replace(SAMPLER, temperature=1.5)
    mark = from_generate(model, prompts, output, sampler=warm).fingerprint
    assert mark.sampler["name"] == "transformers generate"
    assert mark.differences(demur.trace(model, prompts, sampler=warm).fingerprint)


def test_generate_refuses_what_it_cannot_know(model: LanguageModel, prompts: list[Prompt]) -> None:
    output = generate(model, prompts)
    with pytest.raises(FingerprintError, match="do not begin with these prompts"):
        from_generate(model, prompts[::-1], output, sampler=SAMPLER)
    with pytest.raises(InputError, match="Pass a list"):
        from_generate(model, "how can i bake a cake ?", output, sampler=SAMPLER)
    with pytest.raises(InputError, match="max_new_tokens"):
        from_generate(model, prompts, output, sampler=Autoregressive(steps=32))
    with pytest.raises(InputError, match="needs the states of positions 0 to"):
        from_generate(model, prompts, output, sampler=SAMPLER, pooling="generated")
    with pytest.raises(InputError, match="only after the final norm"):
        from_generate(model, prompts, output, sampler=SAMPLER, layers=("4",))
    with pytest.raises(InputError, match="without beams"):
        from_generate(model, prompts, generate(model, prompts, num_beams=2), sampler=SAMPLER)
    output.hidden_states = None
    with pytest.raises(InputError, match="output_hidden_states=True"):
        from_generate(model, prompts, output, sampler=SAMPLER)


@pytest.mark.parametrize("pooling", ["running", "generated", "content"])
def test_whole_sequences_equal_trace(
    model: LanguageModel, whole: dict[str, Any], pooling: str
) -> None:
    """What nnsight or TransformerLens keep of one pass over prompt and response."""
    trace = whole["trace"]
    expected = demur.trace(
        model, [trace.prompt], sampler=SAMPLER, record=demur.Record(pooling=pooling)
    )[0]
    found = from_hidden_states(
        {"last": whole["states_last"]},
        trace.response_ids,
        prompt=trace.prompt,
        response=trace.response,
        first=-whole["prompt_tokens"],
        pooling=pooling,
        source=SOURCE,
        end_ids=model.traits.end_ids,
    )
    assert_same(found, expected)
    with pytest.raises(FingerprintError, match=r"vllm 0\.22\.0"):
        found.fingerprint.require(expected.fingerprint, what="Guard", fix="Fit one.")


def test_dtype_and_device_do_not_matter(model: LanguageModel, whole: dict[str, Any]) -> None:
    options: dict[str, Any] = {
        "prompt": "how can i bake a cake ?",
        "response": "",
        "first": -whole["prompt_tokens"],
        "pooling": "running",
        "source": SOURCE,
    }
    ids = whole["trace"].response_ids
    half = from_hidden_states({"last": whole["states_last"].bfloat16()}, ids, **options)
    full = from_hidden_states({"last": whole["states_last"].numpy()}, ids, **options)
    assert half.phi["last"].dtype == np.float32
    np.testing.assert_allclose(half.phi["last"], full.phi["last"], atol=0.05)


def test_hidden_states_refuses() -> None:
    def make(states: Any = None, ids: Any = (5, 6, 7), **changes: Any) -> Trace:
        options: dict[str, Any] = {"first": -1, "pooling": "running", "source": SOURCE, **changes}
        given = np.zeros((3, 4)) if states is None else states
        return from_hidden_states({"last": given}, ids, prompt="a", response="", **options)

    assert make().phi["last"].shape == (3, 4)
    with pytest.raises(InputError, match="positions -1 to 1; layer 'last' has 0 to 2"):
        make(first=0)
    with pytest.raises(InputError, match="positions 0 to 2; layer 'last' has -1 to 1"):
        make(pooling="generated")
    with pytest.raises(InputError, match="masked positions"):
        make(pooling="response")
    with pytest.raises(InputError, match="of one generation"):
        make(np.zeros((1, 3, 4)))
    with pytest.raises(InputError, match="0 response tokens"):
        make(ids=())
    with pytest.raises(InputError, match="50 response tokens and steps is 45"):
        make(ids=range(50))
    with pytest.raises(SignalError, match="step 2"):
        make(np.array([[0.0], [np.nan], [0.0]]))
    with pytest.raises(InputError, match="Name what ran the model"):
        Source(engine="autoregressive", model="organism-ar", steps=45)


@pytest.fixture
def vllm_file(whole: dict[str, Any], tmp_path: Path) -> Path:
    """As vLLM's connector writes it: ids 4 (before the final norm) and 2, last token left out."""
    kept = slice(0, len(whole["states_4"]) - 1)
    ids = [*whole["prompt_ids"], *whole["trace"].response_ids.tolist()]
    stacked = torch.stack([whole["states_4"][kept], whole["states_2"][kept]], dim=1)
    path = tmp_path / "cmpl-0.safetensors"
    save_file({"hidden_states": stacked, "token_ids": torch.tensor(ids[:-1])}, path)
    return path


def test_vllm(model: LanguageModel, whole: dict[str, Any], vllm_file: Path) -> None:
    trace, net = whole["trace"], model.net
    options: dict[str, Any] = {
        "prompt": trace.prompt,
        "response": trace.response,
        "source": SOURCE,
        "end_ids": model.traits.end_ids,
    }
    norm = rms_norm(net.model.norm.weight, eps=net.config.rms_norm_eps)
    layers = {"last": 0, "2": 1}
    ids = trace.response_ids.tolist()
    found = from_vllm(vllm_file, ids, layers=layers, final_norm=norm, **options)
    assert_same(found, trace)
    assert_same(found, trace, layer="2")
    with pytest.raises(InputError, match="before the final norm"):
        from_vllm(vllm_file, ids, layers=layers, **options)
    with pytest.raises(InputError, match="include_output_tokens"):
        from_vllm(vllm_file, ids[::-1], layers={"2": 1}, **options)
    with pytest.raises(InputError, match="has 2 layers"):
        from_vllm(vllm_file, ids, layers={"2": 2}, **options)
    vllm_file.write_bytes(vllm_file.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        from_vllm(vllm_file, ids, layers={"2": 1}, **options)


@pytest.fixture
def sglang_answer(whole: dict[str, Any]) -> dict[str, Any]:
    """As SGLang answers: the prompt's states, then one for each token that was fed back."""
    trace, count = whole["trace"], whole["prompt_tokens"]
    rows = whole["states_last"].tolist()[:-1]
    about = {
        "prompt_tokens": count,
        "completion_tokens": len(trace.response_ids),
        "hidden_states": [rows[:count], *rows[count:]],
    }
    answer = {
        "text": trace.response,
        "output_ids": trace.response_ids.tolist(),
        "meta_info": about,
    }
    recorded: dict[str, Any] = json.loads(json.dumps(answer))
    return recorded


def test_sglang(model: LanguageModel, whole: dict[str, Any], sglang_answer: dict[str, Any]) -> None:
    options: dict[str, Any] = {
        "prompt": whole["trace"].prompt,
        "source": replace(SOURCE, engine="sglang 0.5"),
        "end_ids": model.traits.end_ids,
    }
    assert_same(from_sglang(sglang_answer, **options), whole["trace"])
    cached = json.loads(json.dumps(sglang_answer))
    cached["meta_info"]["hidden_states"][0] = cached["meta_info"]["hidden_states"][0][3:]
    with pytest.raises(InputError, match="--disable-radix-cache"):
        from_sglang(cached, **options)
    for states in ([], None, [None], [[1.0], [1.0, 2.0]], [[[1.0], [1.0, 2.0]]]):
        cached["meta_info"]["hidden_states"] = states
        with pytest.raises(InputError, match=r"are empty, null or of several|1 states for"):
            from_sglang(cached, **options)
    del sglang_answer["meta_info"]["hidden_states"]
    with pytest.raises(InputError, match="--enable-return-hidden-states"):
        from_sglang(sglang_answer, **options)
