"""Autoregressive models: any architecture that transformers' AutoModelForCausalLM knows, hybrids with
recurrent layers included.

Settings: 32 greedy tokens, running mean of the state that produces each token (arXiv:2602.02600,
section 3).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.errors import ModelError
from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.formats import unwrapped
from demur.models.tokens import end_ids, load_tokenizer
from demur.models.weights import load_native

NAME = "causal"
EXAMPLES = (
    "Llama-3.x, Qwen2.5/3, Gemma-2/3, Mistral, Phi, OLMo; hybrids such as Granite-4, Falcon-H1"
)
TESTED = "tokens and states of generate for 20 native classes, tiny weights"


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config names a native causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load with the native class."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(checkpoint)
    net = load_native(checkpoint, AutoModelForCausalLM)
    traits = _traits(net, tokenizer, checkpoint.card)
    return LanguageModel(checkpoint.name, checkpoint.revision, net, tokenizer, traits)


def wrap(net: Any, tokenizer: Any) -> LanguageModel:
    """A network that is in memory already, with its tokenizer.

    Its name is that of its folder or class, its revision a hash of the config and of samples of every
    weight.

    Raises:
        ModelError: no native causal language model, no tokenizer, or one without a chat template.
    """
    if hasattr(net, "get_base_model"):
        net = unwrapped(net)
    kind = type(net).__name__
    config = net.config.to_dict() if hasattr(net, "config") else {}
    card = config.get("demur", {})
    headless = not recognises(config) or net.get_output_embeddings() is None
    if headless or card.get("family", NAME) != NAME:
        raise ModelError(
            f"{kind} is not a causal language model of transformers. Give one, or the name or folder "
            "of a model; for another kind of network add a family (docs/add/family.md)."
        )
    if tokenizer is None:
        raise ModelError(f"{kind} came without a tokenizer. Run: load(net, tokenizer=tokenizer)")
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"The tokenizer of {kind} has no chat template. Set tokenizer.chat_template, or use the "
            "instruction-tuned one."
        )
    name = Path(config.get("_name_or_path") or kind).name
    return LanguageModel(
        name, _revision(net, config), net.eval(), tokenizer, _traits(net, tokenizer, card)
    )


def _traits(net: Any, tokenizer: Any, card: Mapping[str, Any]) -> Traits:
    return Traits(
        family=NAME,
        attention="causal",
        end_ids=end_ids(tokenizer, net),
        sampler=card.get("sampler", {"name": "autoregressive", "steps": 32}),
        pooling="running",
        final_norm=None,
    )


def _revision(net: Any, config: Mapping[str, Any]) -> str:
    """A hash of the config and of up to 4,096 evenly spaced values of each weight."""
    known = {key: value for key, value in config.items() if key != "_name_or_path"}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    for name, weight in sorted(net.state_dict().items()):
        sample = weight.detach().flatten()[:: max(1, weight.numel() // 4096)]
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(sample.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
