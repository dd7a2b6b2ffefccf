"""BERT-chat: ModernBERT taught to answer by masked diffusion, with the native class.

Zhou et al., dLLM: https://github.com/ZHZisZZ/dllm, ``examples/bert``. The encoder
is unchanged, with ModernBERT's own local and global attention; a position predicts itself. Settings:
arXiv:2602.02600, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.masked_lm import PAPER_SAMPLER
from demur.models.tokens import end_ids, load_tokenizer, mask_id
from demur.models.weights import load_native

NAME = "bert-chat"
EXAMPLES = "ModernBERT-base-chat-v0.1, ModernBERT-large-chat-v0.1"
TESTED = "logits of the native class, tiny weights"


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config is ModernBERT's."""
    return config.get("model_type") == "modernbert"


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load with the native class.

    Raises:
        ModelError: the tokenizer has no chat template (a plain ModernBERT) or no mask token.
    """
    from transformers import ModernBertForMaskedLM

    tokenizer = load_tokenizer(checkpoint)
    mask = mask_id(checkpoint, tokenizer, released="[MASK]")
    net = load_native(checkpoint, ModernBertForMaskedLM)
    traits = Traits(
        family=NAME,
        attention="encoder",
        end_ids=end_ids(tokenizer, net, tokenizer.sep_token, tokenizer.pad_token),
        sampler=checkpoint.card.get("sampler", PAPER_SAMPLER),
        pooling="response",
        mask_id=mask,
        shift=False,
        final_norm="final_norm",
    )
    name, revision = checkpoint.name, checkpoint.revision
    return LanguageModel(name, revision, net, tokenizer, traits, logits_of=_logits)


def _logits(net: Any, states: Tensor) -> Tensor:
    """Prediction head and output embedding, ``[..., D] -> [..., V]``."""
    logits: Tensor = net.decoder(net.head(states))
    return logits
