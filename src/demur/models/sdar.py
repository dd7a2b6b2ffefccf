"""SDAR: block diffusion adapted from Qwen3, loaded with the native Qwen3 class.

SDAR, arXiv:2510.06303. The published modeling file is Qwen3 with attention up to the end of a
position's own block; the tensors have Qwen3's names. Settings: block and dynamic rule of SDAR
``generate.py``, greedy and 128 tokens as in the paper (arXiv:2602.02600, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.tokens import end_ids, load_tokenizer, mask_id
from demur.models.weights import load_native

NAME = "sdar"
EXAMPLES = "SDAR-1.7B-Chat, SDAR-4B-Chat, SDAR-8B-Chat"
TESTED = "tokens, commits and states of the published code, tiny weights"

#: Keys that SDAR's config shares with Qwen3's; the rest is for training and remote code.
_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
    "attention_bias",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config is SDAR's."""
    return config.get("model_type") == "sdar"


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load the weights into Qwen3.

    Raises:
        ModelError: neither config nor tokenizer names a mask token.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    found = checkpoint.config
    tokenizer = load_tokenizer(checkpoint, native="PreTrainedTokenizerFast")
    mask = mask_id(checkpoint, tokenizer, released="151669")
    config = Qwen3Config(**{k: found[k] for k in _SHARED if found.get(k) is not None})
    net = load_native(checkpoint, Qwen3ForCausalLM, config=config)
    length = int(found.get("block_size", 4))
    sampler = {"name": "block", "block_length": length, "block_steps": length, "threshold": 0.85}
    traits = Traits(
        family=NAME,
        attention="block",
        end_ids=end_ids(tokenizer, net, "<|im_end|>"),
        sampler=checkpoint.card.get("sampler", sampler),
        pooling="response",
        mask_id=mask,
        shift=False,
    )
    return LanguageModel(checkpoint.name, checkpoint.revision, net, tokenizer, traits)
