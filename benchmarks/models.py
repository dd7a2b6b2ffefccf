"""Random-weight Llamas of a stated size, with a tokenizer that is enough to encode prompts."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from demur.models.base import Batch, LanguageModel, Traits

VOCABULARY = 8192
MASK = VOCABULARY - 1

#: Published shapes: width, layers, heads, key-value heads, feed-forward width, vocabulary.
#: ``llada-small`` is ``small`` with LLaDA's vocabulary.
SHAPES = {
    "llama-3.1-8b": (4096, 32, 32, 8, 14336, 128256),
    "llada-8b": (4096, 32, 32, 32, 12288, 126464),
    "dream-7b": (3584, 28, 28, 4, 18944, 152064),
    "llada-small": (512, 8, 8, 8, 1408, 126464),
    "llama-500m": (1280, 24, 20, 20, 3456, VOCABULARY),
    "small": (512, 8, 8, 8, 1408, VOCABULARY),
    "tiny": (256, 4, 4, 4, 704, VOCABULARY),
}


def llama(
    *, masked: bool, shape: str = "small", dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> LanguageModel:
    """Random weights of a published shape, about 33M for ``small``; no end token, so that every row
    runs to its last step. The last token of the vocabulary is the mask."""
    width, layers, heads, groups, inner, vocabulary = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
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
        mask_id=vocabulary - 1 if masked else None,
        shift=False,
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            net = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)
    # Random logits are nearly flat, so confidences would tie up to rounding and two right loops could
    # commit in another order.
    with torch.no_grad():
        net.get_output_embeddings().weight.mul_(16)
    return LanguageModel("random-llama", "0", net, None, traits)


def batch(rows: int, length: int, *, device: str = "cpu") -> Batch:
    """Random prompts of one length."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, MASK, (rows, length), generator=generator).to(device)
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), tuple(() for _ in range(rows)))
