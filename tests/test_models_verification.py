"""What loading finds out about a model: head, cache, padding, and whose tokenizer it has."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import demur
from conftest import save_llama, save_tokenizer
from demur.errors import ModelError
from demur.models.base import LanguageModel
from demur.models.verification import check_cache, verify
from demur.sampling import RowNoise, sampler_from
from demur.types import Prompt, Record
from parity import tiny
from parity.blocks import save_diffusion_gemma, save_llada2, save_sdar
from test_models_bert_chat import save as save_bert

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.5}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def save(folder: Path, config_class: str, net_class: str, **values: Any) -> Path:
    """A tiny random checkpoint of a native class."""
    tokenizer = save_tokenizer(folder)
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(
        vocab_size=len(tokenizer), **{**SIZE, **SPECIAL, **values}
    )
    getattr(transformers, net_class)(config).save_pretrained(folder)
    return folder


def test_a_head_that_is_more_than_a_matrix_is_refused(tmp_path: Path) -> None:
    """BERT as a decoder transforms its states before the output embedding."""
    heads = {"num_attention_heads": 4, "intermediate_size": 48, "is_decoder": True}
    folder = save(tmp_path / "bert", "BertConfig", "BertLMHeadModel", **heads)
    with pytest.raises(ModelError, match=r"differ from the network's own.*add a family file"):
        demur.load(folder)


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Rwkv", {"attention_hidden_size": 32}),
        ("RecurrentGemma", {"num_attention_heads": 4, "lru_width": 32, "head_dim": 8}),
    ],
)
def test_states_outside_the_cache_are_refused(
    kind: str, values: dict[str, Any], tmp_path: Path
) -> None:
    """Rwkv reads padding into its state; RecurrentGemma keeps its state in its modules."""
    folder = save(tmp_path / kind, f"{kind}Config", f"{kind}ForCausalLM", **values)
    with pytest.raises(ModelError, match="padded batch with a cache"):
        demur.load(folder)


def test_a_diffusion_model_with_recurrent_layers_is_refused(tmp_path: Path) -> None:
    values = {"layer_types": ["conv", "full_attention"], "num_attention_heads": 4}
    folder = save(tmp_path / "lfm2", "Lfm2Config", "Lfm2ForCausalLM", **values)
    written = json.loads((folder / "config.json").read_text())
    card = {"family": "masked", "mask_token_id": 3}
    (folder / "config.json").write_text(json.dumps({**written, "demur": card}))
    if not hasattr(transformers.cache_utils, "LinearAttentionLayer"):
        pytest.skip("transformers 4 tells no recurrent layers")
    with pytest.raises(ModelError, match="carry a state from left to right"):
        demur.load(folder)


def test_padding_that_leaks_is_found(tiny_ar: LanguageModel) -> None:
    """The network itself is made to look at everything, as some modeling files do."""
    hook = tiny_ar.net.model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "attention_mask": None}), with_kwargs=True
    )
    try:
        with pytest.raises(ModelError, match=r"differ from those of the prompt alone by \d"):
            check_cache(tiny_ar)
    finally:
        hook.remove()
    check_cache(tiny_ar)


@pytest.mark.parametrize(
    "make",
    [tiny.llada, tiny.dream, tiny.a2d, save_sdar, save_llada2, save_bert, save_diffusion_gemma],
)
def test_the_final_norm_is_the_one_declared(make: Any, tmp_path: Path) -> None:
    """Its output over all positions read is what the states of a step are made of."""
    if make is save_diffusion_gemma and not hasattr(transformers, "DiffusionGemmaConfig"):
        pytest.skip("transformers has no DiffusionGemma before 5.11")
    model = demur.load(make(tmp_path / "model"))
    sampler = sampler_from(model.traits.sampler)
    outputs: list[torch.Tensor] = []
    norm = model.body.get_submodule(model.traits.final_norm)
    hook = norm.register_forward_hook(lambda module, args, output: outputs.append(output))
    batch = model.encode([Prompt("w1")])
    record, noise = Record(pooling="response"), RowNoise.seeded([0])
    step = next(iter(sampler.run(model, batch, record, noise)))
    hook.remove()
    pooled = step.phi["last"][0]
    begun = int((step.draft[0] >= 0).sum())
    torch.testing.assert_close(outputs[-1][0, -begun:].mean(0), pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [tiny.dream, tiny.a2d])
def test_a_tokenizer_without_its_vocabulary(make: Any, tmp_path: Path) -> None:
    """transformers 5 makes one of the added tokens alone, without a word."""
    folder = make(tmp_path / "wordless")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="tokenizer files"):
        demur.load(folder)


def test_a_mask_token_outside_the_vocabulary(tmp_path: Path) -> None:
    folder = tiny.llada(tmp_path / "outside")
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "mask_token_id": 128}))
    with pytest.raises(ModelError, match=r"mask token 128 .* outside its vocabulary of 128"):
        demur.load(folder)


def test_a_tokenizer_of_other_weights(tiny_dlm: LanguageModel, tmp_path: Path) -> None:
    card = {"family": "masked", "mask_token_id": 9}
    with pytest.raises(ModelError, match=r"mask_token_id 9 .* tokenizer's mask token is 3"):
        demur.load(save_llama(tmp_path / "other", card=card))
    ends = dataclasses.replace(tiny_dlm.traits, end_ids=(2, 10_000))
    with pytest.raises(ModelError, match=r"end with \[10000\], which its tokenizer"):
        verify(dataclasses.replace(tiny_dlm, traits=ends))
