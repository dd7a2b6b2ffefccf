"""Tiny real models, made on the spot: random weights, real tokenizers, real loading code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# One thread a process, in child processes too: threads of several processes on few cores only get in
# each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# There is no hub in a test; without this each look-up of an unknown model is tried five times.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

import demur
from demur.models.base import LanguageModel

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["<|pad|>", "<|bos|>", "<|eos|>", "<|mask|>", "<|unk|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "<|bos|>{% for m in messages %}{% if m.role == 'user' %}<|user|>{% endif %}"
    "{{ m.content }}{% endfor %}<|assistant|>"
)

torch.set_num_threads(1)


def not_here(what: str) -> NoReturn:
    """Skip where this machine lacks something that a test needs; fail where nothing may be skipped.

    ``.ci/run`` sets ``DEMUR_SKIP_NOTHING``, so that a test which never ran is not taken for passed.
    """
    if os.environ.get("DEMUR_SKIP_NOTHING"):
        pytest.fail(f"Skipped where nothing may be: {what}")
    pytest.skip(what)


def save_tokenizer(folder: Path) -> Any:
    """A word-level tokenizer with a chat template, written where a checkpoint is."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["You", "are", "a", "helpful", "assistant", "<", "|", ">", "eos", "mask", *WORDS]
    vocab = {token: i for i, token in enumerate([*SPECIAL, *words])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        mask_token="<|mask|>",
        unk_token="<|unk|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        padding_side="left",
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_llama(folder: Path, *, card: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """A random two-layer Llama checkpoint; ``card`` makes it a masked diffusion model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = save_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    if card:
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**written, "demur": card}))
    return folder


@pytest.fixture(scope="session")
def tiny_ar(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A random autoregressive model."""
    return demur.load(save_llama(tmp_path_factory.mktemp("ar") / "tiny-ar"))


@pytest.fixture(scope="session")
def make_dlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LanguageModel]:
    """Make a random masked diffusion model, shifted or not."""

    def make(*, shift: bool) -> LanguageModel:
        card = {"family": "masked", "mask_token_id": 3, "shift": shift}
        return demur.load(save_llama(tmp_path_factory.mktemp("dlm") / "tiny-dlm", card=card))

    return make


@pytest.fixture(scope="session")
def tiny_dlm(make_dlm: Callable[..., LanguageModel]) -> LanguageModel:
    """A random masked diffusion model with shifted prediction."""
    return make_dlm(shift=True)
