"""Rotary embeddings that depend on a length: the same tokens in every batch, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
from conftest import save_tokenizer
from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, RowNoise
from demur.sampling.autoregressive import token_batch
from demur.types import Prompt, Record

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
SHORT = Prompt("w1 w2", id="short")
MIDDLE = Prompt(" ".join(f"w{i}" for i in range(16)), id="middle")
LONG = Prompt(" ".join(f"w{i}" for i in range(30)), id="long")


def save(folder: Path, kind: str, **values: Any) -> Path:
    """A tiny random checkpoint of a native class."""
    import transformers

    tokenizer = save_tokenizer(folder)
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **SIZE, **values)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny Phi-3 with LongRoPE: other frequencies past 32 of its 128 tokens."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
    return demur.load(
        save(
            tmp_path_factory.mktemp("rope") / "phi",
            "Phi3",
            max_position_embeddings=128,
            original_max_position_embeddings=32,
            rope_scaling={"type": "longrope", **factors},
        )
    )


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny Llama with dynamic NTK scaling, made for 32 tokens."""
    return demur.load(
        save(
            tmp_path_factory.mktemp("rope") / "dynamic",
            "Llama",
            max_position_embeddings=32,
            rope_scaling={"rope_type": "dynamic", "factor": 4.0},
        )
    )


def test_the_network_itself_depends_on_the_batch(phi: LanguageModel) -> None:
    """A short row's states change when a row beside it is long: what is refused below."""
    alone, beside = phi.encode([SHORT]), phi.encode([SHORT, LONG])
    assert beside.ids.shape[1] > 32
    with torch.inference_mode():
        one = phi.states(alone.ids, None)["last"][0, -1]
        other = phi.states(beside.ids, beside.attention)["last"][0, -1]
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["phi", "dynamic"])
def test_the_same_tokens_up_to_the_original_length(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    assert model.context_length == 32
    steps = 32 - model.encode([MIDDLE]).ids.shape[1]
    sampler = Autoregressive(steps=steps)
    assert steps >= 6
    for prompt, one in zip(
        [SHORT, MIDDLE], demur.trace(model, [SHORT, MIDDLE], sampler=sampler), strict=True
    ):
        [alone] = demur.trace(model, [prompt], sampler=sampler)
        ids = model.encode([prompt]).ids
        out = model.net.generate(ids, max_new_tokens=steps, do_sample=False, pad_token_id=0)
        assert one.response_ids.tolist() == out[0, ids.shape[1] :].tolist()
        np.testing.assert_array_equal(one.committed, alone.committed)
        np.testing.assert_allclose(one.phi["last"], alone.phi["last"], atol=1e-5)


def test_a_prompt_past_the_original_length_is_refused(
    phi: LanguageModel, dynamic: LanguageModel
) -> None:
    for prompts in ([LONG], [SHORT, LONG]):
        with pytest.raises(InputError, match=r"\(32\)\. Past that length its LongRoPE changes"):
            demur.trace(phi, prompts, sampler=Autoregressive(steps=4))
    steps = 33 - phi.encode([SHORT]).ids.shape[1]
    with pytest.raises(InputError, match="LongRoPE"):
        demur.trace(phi, [SHORT], sampler=Autoregressive(steps=steps))
    with pytest.raises(InputError, match=r"more than dynamic can read \(32\)"):
        demur.trace(dynamic, [LONG], sampler=Autoregressive(steps=4))


@pytest.mark.parametrize("kind", ["phi", "dynamic"])
def test_rows_that_join_others(kind: str, request: pytest.FixtureRequest) -> None:
    """As in the server: a row begins while another one is half done."""
    model = request.getfixturevalue(kind)
    sampler = Autoregressive(steps=6)
    rows = token_batch(model, sampler, Record(pooling="running"), rows=2)
    assert rows is not None
    found: dict[int, list[int]] = {0: [], 1: []}
    for turn in range(9):
        for slot, prompt in ((0, MIDDLE), (1, SHORT)):
            if turn == 3 * slot:
                noise = RowNoise.of(0, [prompt.id])
                rows.join(model.encode([prompt]), [slot], [sampler], noise)
        if turn == 6:
            rows.leave({0})
        slots, tokens, _ = rows.step()
        for slot, token in zip(slots.tolist(), tokens.tolist(), strict=True):
            found[slot].append(token)
    for slot, prompt in ((0, MIDDLE), (1, SHORT)):
        [alone] = demur.trace(model, [prompt], sampler=sampler)
        assert found[slot] == alone.response_ids.tolist()
