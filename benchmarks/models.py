"""Random weights under a published config, made by the family's own loading code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from transformers import AutoConfig

from demur.models import known_families
from demur.models.base import Batch, LanguageModel
from demur.models.checkpoint import Checkpoint


def llama(
    width: int, layers: int, heads: int, inner: int, vocabulary: int, groups: int | None = None
) -> dict[str, Any]:
    """A Llama's config.json."""
    return {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups or heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
    }


def llada(width: int, layers: int, heads: int, inner: int, vocabulary: int) -> dict[str, Any]:
    """A LLaDA's config.json; its last token is the mask."""
    return {
        "model_type": "llada",
        "d_model": width,
        "n_layers": layers,
        "n_heads": heads,
        "mlp_hidden_size": inner,
        "vocab_size": vocabulary,
        "embedding_size": vocabulary,
        "max_sequence_length": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "weight_tying": False,
        "mask_token_id": vocabulary - 1,
    }


#: As published; then smaller ones of the same form. ``llada-share`` has LLaDA-8B's share of weights
#: in the head, 6.5% of all; ``llada-head`` its vocabulary, and so 42% of all in the head.
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama-3.1-8b": llama(4096, 32, 32, 14336, 128256, groups=8),
    "llada-8b": llada(4096, 32, 32, 12288, 126464),
    "dream-7b": {
        **llama(3584, 28, 28, 18944, 152064, groups=4),
        "model_type": "Dream",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "mask_token_id": 151666,
    },
    "llama-500m": llama(1280, 24, 20, 3456, 8192),
    "llama-small": llama(512, 8, 8, 1408, 8192),
    "llada-small": llada(512, 8, 8, 1408, 8192),
    "llada-share": llada(512, 8, 8, 1408, 3840),
    "llada-head": llada(512, 8, 8, 1408, 126464),
    "dream-small": {
        **llama(512, 8, 8, 1408, 8192, groups=2),
        "model_type": "Dream",
        "mask_token_id": 8191,
    },
    "sdar-tiny": {
        **llama(256, 4, 4, 704, 8192),
        "model_type": "sdar",
        "head_dim": 64,
        "block_size": 4,
        "mask_token_id": 8191,
    },
}


def config_of(shape: str) -> Mapping[str, Any]:
    """A config by its name here, or read from a config.json."""
    if shape in CONFIGS:
        return CONFIGS[shape]
    found: dict[str, Any] = json.loads(Path(shape).read_text())
    return found


def random_model(
    config: Mapping[str, Any], *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> LanguageModel:
    """Random weights, loaded by the family that recognises the config.

    It has no end token, so that every row runs to its last step.
    """
    checkpoint = Checkpoint("random", "", config, "0", None, dtype, device, None)
    family = next(f for f in known_families() if f.recognises(config))
    with nothing_read(family):
        model = family.load(checkpoint)
    # Random logits are nearly flat, so confidences would tie up to rounding and two right loops could
    # commit in another order.
    with torch.no_grad():
        model.net.get_output_embeddings().weight.mul_(16)
    model.net.generation_config.eos_token_id = None
    return replace(model, traits=replace(model.traits, end_ids=()))


@contextmanager
def nothing_read(family: Any) -> Iterator[None]:
    """What a family reads from files is made up meanwhile: random weights, an empty tokenizer."""
    tokenizer = SimpleNamespace(
        eos_token_id=None, unk_token_id=None, mask_token_id=None, pad_token_id=0
    )
    tokenizer.sep_token = tokenizer.pad_token = None
    tokenizer.convert_tokens_to_ids = lambda text: None
    made = {
        "load_native": initialised,
        "load_tokenizer": lambda *_, **__: tokenizer,
        "read_tensors": lambda *_: {},
        "check_complete": lambda *_: None,
    }
    with mock.patch.multiple(family, **{k: v for k, v in made.items() if hasattr(family, k)}):
        yield


def initialised(checkpoint: Checkpoint, native: Any, *, config: Any = None, **_: Any) -> Any:
    """The native class as it initialises itself."""
    config = config or AutoConfig.for_model(**checkpoint.config)
    before = torch.get_default_dtype()
    torch.set_default_dtype(checkpoint.dtype)
    try:
        with torch.device(checkpoint.device):
            return getattr(native, "from_config", native)(config).eval()
    finally:
        torch.set_default_dtype(before)


def batch(*lengths: int, vocabulary: int, device: str = "cpu") -> Batch:
    """Random prompts of these lengths, padded on the left."""
    generator = torch.Generator().manual_seed(1)
    shape = len(lengths), max(lengths)
    ids = torch.randint(1, vocabulary - 1, shape, generator=generator).to(device)
    empty = torch.tensor([max(lengths) - length for length in lengths], device=device)
    attention = torch.arange(max(lengths), device=device) >= empty[:, None]
    return Batch(ids, attention, tuple(() for _ in lengths))
