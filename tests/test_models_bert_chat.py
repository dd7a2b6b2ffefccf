"""BERT-chat through the real loading code, against transformers' own network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import demur
from conftest import save_tokenizer
from demur.errors import ModelError
from demur.generation import trace_batch
from demur.models.base import LanguageModel
from demur.sampling import Masked
from demur.types import Prompt, Record

PROMPTS = [Prompt("w1 w2 w3", id="a"), Prompt(" ".join(f"w{i}" for i in range(30)), id="b")]


def save(folder: Path) -> Path:
    """A tiny random ModernBERT; its local attention is shorter than the prompts."""
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    tokenizer = save_tokenizer(folder)
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        local_attention=8,
        global_attn_every_n_layers=3,
        initializer_range=0.5,
        pad_token_id=0,
        eos_token_id=2,
        bos_token_id=1,
        cls_token_id=1,
        sep_token_id=2,
        reference_compile=False,
    )
    ModernBertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The checkpoint, loaded by demur."""
    return demur.load(save(tmp_path_factory.mktemp("bert") / "bert"))


@torch.no_grad()
def test_states_and_logits_equal_the_network(model: LanguageModel) -> None:
    batch = model.encode(PROMPTS)
    states = model.states(batch.ids, batch.attention)["last"]
    for row, kept in enumerate(batch.attention):
        ids = batch.ids[row][kept][None]
        own, body = model.net(input_ids=ids), model.net.model(input_ids=ids)
        found = states[row][kept]
        torch.testing.assert_close(found, body.last_hidden_state[0], atol=1e-5, rtol=0)
        # Logits of these weights are sums of 32 products: 1.5e-5 was measured, in transformers 4.57.
        torch.testing.assert_close(model.logits(found), own.logits[0], atol=3e-5, rtol=0)


def test_batched_equals_single(model: LanguageModel) -> None:
    sampler = Masked(steps=4, gen_length=12, block_length=6)
    together = trace_batch(model, PROMPTS, sampler=sampler, record=Record(layers=("last", "first")))
    for prompt, one in zip(PROMPTS, together, strict=True):
        [alone] = trace_batch(
            model, [prompt], sampler=sampler, record=Record(layers=("last", "first"))
        )
        np.testing.assert_array_equal(one.committed, alone.committed)
        for layer, phi in one.phi.items():
            np.testing.assert_allclose(phi, alone.phi[layer], atol=1e-5)


def test_traits(model: LanguageModel) -> None:
    assert model.traits.family == "bert-chat"
    assert (model.traits.mask_id, model.traits.shift) == (3, False)
    assert set(model.traits.end_ids) >= {2, 0}
    assert model.traits.sampler["steps"] == 32


def test_a_plain_modernbert_says_what_is_missing(tmp_path: Path) -> None:
    folder = save(tmp_path / "plain")
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        path = folder / name
        if path.suffix == ".json":
            kept = json.loads(path.read_text())
            kept.pop("chat_template", None)
            path.write_text(json.dumps(kept))
        elif path.exists():
            path.unlink()
    with pytest.raises(ModelError, match="no chat template"):
        demur.load(folder)
