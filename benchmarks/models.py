"""Random-weight Llamas of a stated size, with a tokenizer that is enough to encode prompts."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from demur.models.base import Batch, LanguageModel, Traits

VOCABULARY = 8192
MASK = VOCABULARY - 1


def llama(*, masked: bool, width: int = 512, layers: int = 8) -> LanguageModel:
    """About 33M parameters by default; no end token, so that every row runs to its last step."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=4096,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    traits = Traits(
        family="masked" if masked else "causal",
        attention="bidirectional" if masked else "causal",
        end_ids=(),
        sampler={},
        pooling="response" if masked else "running",
        mask_id=MASK if masked else None,
        shift=False,
    )
    net = LlamaForCausalLM(config).eval()
    return LanguageModel("random-llama", "0", net, None, traits)


def batch(rows: int, length: int) -> Batch:
    """Random prompts of one length."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, MASK, (rows, length), generator=generator)
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), tuple(() for _ in range(rows)))
