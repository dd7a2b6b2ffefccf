"""Autoregressive models: any architecture that transformers' AutoModelForCausalLM knows, hybrids with
recurrent layers included.

Settings: 32 greedy tokens, running mean of the state that produces each token (arXiv:2602.02600,
section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.tokens import end_ids, load_tokenizer
from demur.models.weights import load_native

NAME = "causal"
EXAMPLES = (
    "Llama-3.x, Qwen2.5/3, Gemma-2/3, Mistral, Phi, OLMo; hybrids such as Granite-4, Falcon-H1"
)
TESTED = "tokens and states of generate for 19 native classes, tiny weights"


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config names a native causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load with the native class."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(checkpoint)
    net = load_native(checkpoint, AutoModelForCausalLM)
    traits = Traits(
        family=NAME,
        attention="causal",
        end_ids=end_ids(tokenizer, net),
        sampler=checkpoint.card.get("sampler", {"name": "autoregressive", "steps": 32}),
        pooling="running",
        final_norm=None,
    )
    return LanguageModel(checkpoint.name, checkpoint.revision, net, tokenizer, traits)
