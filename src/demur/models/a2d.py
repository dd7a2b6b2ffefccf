"""A2D: autoregressive models adapted to masked diffusion, with their own native classes.

Zhou et al., dLLM: https://github.com/ZHZisZZ/dllm, ``dllm/pipelines/a2d``. The checkpoint is a Llama,
Qwen2 or Qwen3 without the causal mask, ``model_type`` prefixed with ``a2d-``; a position predicts
itself. Settings: arXiv:2602.02600, section 3. The block-causal variants have the same config and are
recognised by ``bd3lm`` in the name of the folder or repository; for other names set ``{"demur":
{"blocks": true}}`` (or false) in config.json. Their blocks begin with the response, and their settings
are those of ``examples/a2d/bd3lm/sample.py``. If a block's steps do not divide its length, the first
steps commit one more token; upstream rounds a linear schedule instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.masked_lm import PAPER_SAMPLER
from demur.models.tokens import end_ids, load_tokenizer, mask_id
from demur.models.weights import load_native, native_config

NAME = "a2d"
EXAMPLES = "Qwen3-0.6B-diffusion-mdlm, Qwen3-0.6B-diffusion-bd3lm, Qwen2.5-Coder-0.5B-..-mdlm"
TESTED = "tokens, commits and states of the published code, both variants, tiny weights"

#: One commit a step in blocks of 32.
_BLOCKS = {
    "name": "block",
    "block_length": 32,
    "block_steps": 32,
    "threshold": None,
    "counted_from": "response",
}

#: Native type -> native class, tokenizer, and the token that ends a turn.
_NATIVE = {
    "a2d-llama": ("llama", "LlamaForCausalLM", "PreTrainedTokenizerFast", "<|eot_id|>"),
    "a2d-qwen2": ("qwen2", "Qwen2ForCausalLM", "Qwen2TokenizerFast", "<|im_end|>"),
    "a2d-qwen3": ("qwen3", "Qwen3ForCausalLM", "Qwen2TokenizerFast", "<|im_end|>"),
}


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config is of an adapted model."""
    return config.get("model_type") in _NATIVE


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load the weights into the class they were adapted from.

    Raises:
        ModelError: neither config nor tokenizer names a mask token.
    """
    import transformers

    native, class_name, tokenizer_name, turn_end = _NATIVE[checkpoint.config["model_type"]]
    tokenizer = load_tokenizer(checkpoint, native=tokenizer_name)
    mask = mask_id(checkpoint, tokenizer, released="<|mask|>")
    net = load_native(
        checkpoint, getattr(transformers, class_name), config=native_config(checkpoint, native)
    )
    blocks = checkpoint.card.get("blocks", "bd3lm" in checkpoint.title.lower())
    traits = Traits(
        family=NAME,
        attention="block" if blocks else "bidirectional",
        end_ids=end_ids(tokenizer, net, turn_end),
        sampler=checkpoint.card.get("sampler", _BLOCKS if blocks else PAPER_SAMPLER),
        pooling="response",
        mask_id=mask,
        shift=False,
        template={"enable_thinking": False},
    )
    return LanguageModel(checkpoint.name, checkpoint.revision, net, tokenizer, traits)
