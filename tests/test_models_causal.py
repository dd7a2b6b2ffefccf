"""Causal families through the real loading code, against transformers' own ``generate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import demur
from conftest import save_tokenizer
from demur.errors import ModelError
from demur.generation import trace_batch
from demur.models.base import LanguageModel, cache_keyword
from demur.sampling import Autoregressive
from demur.types import Prompt, Record
from parity.noise import MultinomialNoise

PROMPTS = [
    Prompt("w1 w2 w3", id="a"),
    Prompt("w4", id="b"),
    Prompt("w5 w6 w7 w8 w9 w10 w11 w12 w13 w14", id="c"),
]
SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WINDOW = {"sliding_window": 8, "head_dim": 8}

#: Native class -> what makes its config special.
CLASSES: dict[str, dict[str, Any]] = {
    "Llama": {"rope_theta": 500000.0},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen3": {"head_dim": 8},
    "Mistral": {"sliding_window": 8},
    "Gemma2": {**WINDOW, "query_pre_attn_scalar": 8, "final_logit_softcapping": 30.0},
    "Gemma3Text": {**WINDOW, "query_pre_attn_scalar": 8},
    "Phi3": {"rope_theta": 10000.0},
    "Olmo2": {},
    "Granite": {"logits_scaling": 4.0, "attention_multiplier": 0.3},
    "Cohere": {"logit_scale": 0.25},
    # Positions have weights of their own here: one that padding shifted would be another position.
    "GPT2": {"n_positions": 128, "resid_pdrop": 0.0},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}

MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 1}
#: Native classes with layers that carry a state from token to token.
RECURRENT: dict[str, dict[str, Any]] = {
    "Qwen3Next": {
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "GraniteMoeHybrid": {
        **MAMBA,
        "layer_types": ["mamba", "mamba", "attention", "mamba"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 16,
    },
    "FalconH1": {**MAMBA, "head_dim": 8, "mamba_d_ssm": 64},
    "Jamba": {
        "attn_layer_period": 4,
        "attn_layer_offset": 2,
        "num_experts": 4,
        "mamba_d_state": 8,
        "mamba_dt_rank": 8,
        "use_mamba_kernels": False,
    },
    "Lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
    # It counts a token's position from 0 whatever the cache holds, unless told.
    "Bamba": {**MAMBA, "attn_layer_indices": [1]},
    "Mamba": {"state_size": 4},
    "FalconMamba": {"state_size": 4},
}


def save(folder: Path, name: str) -> Path:
    """A tiny random checkpoint of a native class."""
    tokenizer = save_tokenizer(folder)
    config_class = getattr(transformers, f"{name}Config")
    base = name.removesuffix("Text")
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    net_class = getattr(transformers, f"{base}{head}")
    torch.manual_seed(3)
    made = {**SIZE, **({"initializer_range": 0.2} if name in RECURRENT else {})}
    if "Mamba" in name:
        made = {k: v for k, v in made.items() if "heads" not in k and k != "intermediate_size"}
    special = (CLASSES | RECURRENT)[name]
    config = config_class(**made, vocab_size=len(tokenizer), **special)
    net_class(config).save_pretrained(folder)
    return folder


def save_with_eyes(folder: Path) -> Path:
    """A tiny Gemma-3 that sees as well, as the 4B and larger ones do."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    tokenizer = save_tokenizer(folder)
    torch.manual_seed(3)
    eyes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 8,
        "patch_size": 4,
    }
    text = {**SIZE, "vocab_size": len(tokenizer), **CLASSES["Gemma3Text"]}
    config = Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=4)
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[*CLASSES, *RECURRENT, "Gemma3 with eyes"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each native class, loaded by demur."""
    name = request.param
    folder = tmp_path_factory.mktemp("causal") / name
    if name == "Gemma3 with eyes":
        return demur.load(save_with_eyes(folder))
    if name in RECURRENT and not hasattr(transformers.cache_utils, "LinearAttentionLayer"):
        # Their caches were classes of their own before transformers 5.
        with pytest.raises(ModelError, match="padded batch with a cache"):
            demur.load(save(folder, name))
        pytest.skip(f"{name} is refused with transformers {transformers.__version__}")
    return demur.load(save(folder, name))


def test_greedy_equals_generate(model: LanguageModel) -> None:
    batch = model.encode(PROMPTS)
    out = model.net.generate(
        input_ids=batch.ids,
        attention_mask=batch.attention.long(),
        max_new_tokens=16,
        do_sample=False,
        pad_token_id=0,
    )
    for row, one in enumerate(trace_batch(model, PROMPTS, sampler=Autoregressive(steps=16))):
        expected = out[row, batch.ids.shape[1] :].tolist()
        if 2 in expected:
            expected = expected[: expected.index(2) + 1]
        assert one.response_ids.tolist() == expected


def test_sampled_equals_generate_with_the_same_noise(model: LanguageModel) -> None:
    torch.manual_seed(7)
    batch = model.encode(PROMPTS[:1])
    hot: dict[str, Any] = {"temperature": 1.3, "top_p": 0.9}
    out = model.net.generate(
        batch.ids, max_new_tokens=16, do_sample=True, top_k=0, pad_token_id=0, **hot
    )
    stream = Autoregressive(steps=16, **hot).run(
        model, batch, Record(pooling="running"), MultinomialNoise(7)
    )
    found = list(stream)[-1].tokens[0]
    expected = out[0, batch.ids.shape[1] :].tolist()
    assert found[found >= 0].tolist() == expected


@torch.no_grad()
def test_states_equal_the_last_hidden_state(model: LanguageModel) -> None:
    """Also that the cache, windows and all, is exact: the reference pass has none."""
    for one in trace_batch(model, PROMPTS, sampler=Autoregressive(steps=12)):
        ids = model.encode([one.prompt]).ids
        whole = torch.cat([ids, torch.tensor([one.response_ids.tolist()])], dim=1)
        states = model.net(whole, output_hidden_states=True, use_cache=False).hidden_states[-1][0]
        produced = states[ids.shape[1] - 1 : -1]
        steps = torch.arange(1, len(produced) + 1)[:, None]
        expected = (produced.cumsum(0) / steps).numpy()
        np.testing.assert_allclose(one.phi["last"], expected, rtol=0, atol=1e-5)


def test_batched_equals_single(model: LanguageModel) -> None:
    sampler = Autoregressive(steps=8)
    for prompt, one in zip(PROMPTS, trace_batch(model, PROMPTS, sampler=sampler), strict=True):
        [alone] = trace_batch(model, [prompt], sampler=sampler)
        np.testing.assert_array_equal(one.committed, alone.committed)
        np.testing.assert_allclose(one.phi["last"], alone.phi["last"], rtol=0, atol=1e-5)


def test_rows_may_end_at_different_steps(model: LanguageModel) -> None:
    """The cache drops their rows, whatever layers it has."""
    ends = tuple(range(2, 50, 4))
    ending = dataclasses.replace(model, traits=dataclasses.replace(model.traits, end_ids=ends))
    sampler = Autoregressive(steps=12, temperature=3.0)
    prompts = [Prompt(f"w{n} " * (n + 1), id=f"{n}") for n in range(8)]
    together = trace_batch(ending, prompts, sampler=sampler)
    assert len({t.n_steps for t in together}) > 1
    for prompt, one in zip(prompts, together, strict=True):
        [alone] = trace_batch(ending, [prompt], sampler=sampler)
        np.testing.assert_array_equal(one.committed, alone.committed)


def test_traits(model: LanguageModel) -> None:
    assert model.traits.family == "causal"
    assert model.traits.end_ids == (2,)
    assert model.traits.sampler == {"name": "autoregressive", "steps": 32}
    assert model.traits.pooling == "running"
    assert model.context_length in (128, 2**31)


def test_what_carries_a_state_is_known(model: LanguageModel) -> None:
    kind = type(model.net).__name__.removesuffix("ForCausalLM")
    everywhere = "all" if "Mamba" in kind else "some"
    assert model.recurrent == (everywhere if kind in RECURRENT else "")


def test_system_prompt_is_folded_where_the_template_refuses_one(tmp_path: Path) -> None:
    folder = save(tmp_path / "gemma", "Gemma2")
    (folder / "chat_template.jinja").write_text(
        "<|bos|>{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|assistant|>"
    )
    model = demur.load(folder)
    rendered = model.decode(model.encode([Prompt("w1 w2")]).ids[0].tolist(), special=True)
    assert "helpful" in rendered
    assert rendered.index("helpful") < rendered.index("w1")
    assert rendered.count("<|user|>") == 1


def test_the_cache_goes_in_under_the_name_that_the_network_gives_it() -> None:
    """transformers 5.24 calls it ``cache`` and warns of the old name."""

    class Before(torch.nn.Module):
        def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...

    class Since(torch.nn.Module):
        def forward(self, input_ids: Any, cache: Any = None) -> None: ...

    assert [cache_keyword(c.forward) for c in (Before, Since)] == ["past_key_values", "cache"]
