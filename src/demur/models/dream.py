"""Dream: a Qwen2 with attention to both sides that predicts the next position, native class.

Ye et al., Dream 7B, arXiv:2508.15487. The published modeling file is Qwen2 without the causal mask;
tensors have Qwen2's names and its tokenizer is Qwen2's. Settings: arXiv:2602.02600, section 3; *our
reading* of low-confidence remasking for Dream is its own rule ``maskgit_plus``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.tokens import end_ids, load_tokenizer, mask_id
from demur.models.weights import load_native, native_config

NAME = "dream"
EXAMPLES = "Dream-v0-Instruct-7B, Dream-Coder-v0-Instruct-7B"
TESTED = "tokens, commits and states of the published code under all four rules, tiny weights"


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config is Dream's."""
    return config.get("model_type") == "Dream"


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load the weights into Qwen2.

    Raises:
        ModelError: neither config nor tokenizer names a mask token.
    """
    from transformers import Qwen2ForCausalLM

    tokenizer = load_tokenizer(checkpoint, native="Qwen2TokenizerFast")
    mask = mask_id(checkpoint, tokenizer, released="151666")
    net = load_native(checkpoint, Qwen2ForCausalLM, config=native_config(checkpoint, "qwen2"))
    traits = Traits(
        family=NAME,
        attention="bidirectional",
        end_ids=end_ids(tokenizer, net, "<|im_end|>"),
        sampler=checkpoint.card.get("sampler", {"name": "dream", "steps": 32, "gen_length": 128}),
        pooling="response",
        mask_id=mask,
        shift=True,
    )
    return LanguageModel(checkpoint.name, checkpoint.revision, net, tokenizer, traits)
