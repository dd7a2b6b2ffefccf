"""Masked diffusion models on a native causal class; the checkpoint's config says so.

The config has ``{"demur": {"family": "masked", "mask_token_id": ..., "shift": ...}}``. The class is
transformers' own. A 4-D mask opens attention to both sides at run time: the same numbers as a
bidirectional modeling file, with the native rotary embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.errors import ModelError
from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.tokens import end_ids, load_tokenizer
from demur.models.weights import load_native

NAME = "masked"
EXAMPLES = "organism-dlm; any native class trained with both-sided attention"
TESTED = "tokens, commits and states of a naive restatement of LLaDA's loop"

#: The paper's setting for diffusion models (arXiv:2602.02600, section 3).
PAPER_SAMPLER = {
    "name": "masked",
    "steps": 32,
    "gen_length": 128,
    "block_length": 128,
    "remasking": "low_confidence",
}


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config's card names this family."""
    return bool(config.get("demur", {}).get("family") == NAME)


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load with the native class and the card's mask token.

    Raises:
        ModelError: the card names no mask token.
    """
    from transformers import AutoModelForCausalLM

    card = checkpoint.card
    if not isinstance(card.get("mask_token_id"), int):
        raise ModelError(
            f"{checkpoint.name} is a masked diffusion model without a mask token: its card has "
            f"mask_token_id {card.get('mask_token_id')!r}. Add demur.mask_token_id to config.json."
        )
    tokenizer = load_tokenizer(checkpoint)
    net = load_native(checkpoint, AutoModelForCausalLM)
    traits = Traits(
        family=NAME,
        attention="bidirectional",
        end_ids=end_ids(tokenizer, net),
        sampler=card.get("sampler", PAPER_SAMPLER),
        pooling=card.get("pooling", "response"),
        mask_id=card["mask_token_id"],
        shift=bool(card.get("shift", True)),
    )
    return LanguageModel(checkpoint.name, checkpoint.revision, net, tokenizer, traits)
