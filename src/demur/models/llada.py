"""LLaDA: a Llama with attention to both sides, loaded with the native Llama class.

Nie et al., Large Language Diffusion Models, arXiv:2502.09992. The published modeling file is Llama's
with other names and without the causal mask. The tensors are renamed while they are read, and a 4-D
mask opens attention to both sides; states and logits are the same numbers in float32. Settings:
arXiv:2602.02600, section 3.

Differs from the published modeling file below float32 only: it rotates queries and keys in float32,
the native class in the model's dtype.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from demur.errors import ModelError
from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.masked_lm import PAPER_SAMPLER
from demur.models.tokens import end_ids, load_tokenizer, mask_id
from demur.models.weights import load_native

NAME = "llada"
EXAMPLES = "LLaDA-8B-Instruct, LLaDA-1.5, iLLaDA-8B-Instruct"
TESTED = "tokens, commits and states of generate.py and the published modeling file, tiny weights"

#: LLaDA's config -> Llama's.
_SETTINGS = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "mlp_hidden_size": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "weight_tying": "tie_word_embeddings",
    "include_bias": "mlp_bias",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
}

_REQUIRED = ("d_model", "n_layers", "n_heads", "mlp_hidden_size")

#: LLaDA's tensor names -> Llama's, * for a layer's number.
_NAMES = {
    "model.transformer.wte": "model.embed_tokens",
    "model.transformer.ln_f": "model.norm",
    "model.transformer.ff_out": "lm_head",
    "model.transformer.blocks.*.q_proj": "model.layers.*.self_attn.q_proj",
    "model.transformer.blocks.*.k_proj": "model.layers.*.self_attn.k_proj",
    "model.transformer.blocks.*.v_proj": "model.layers.*.self_attn.v_proj",
    "model.transformer.blocks.*.attn_out": "model.layers.*.self_attn.o_proj",
    "model.transformer.blocks.*.attn_norm": "model.layers.*.input_layernorm",
    "model.transformer.blocks.*.ff_norm": "model.layers.*.post_attention_layernorm",
    "model.transformer.blocks.*.ff_proj": "model.layers.*.mlp.gate_proj",
    "model.transformer.blocks.*.up_proj": "model.layers.*.mlp.up_proj",
    "model.transformer.blocks.*.ff_out": "model.layers.*.mlp.down_proj",
}

#: Settings of the released checkpoints; with others the network is not a Llama.
_EXPECTED = {
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "rope": True,
    "alibi": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
    "block_group_size": 1,
}


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config is LLaDA's."""
    return config.get("model_type") == "llada"


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load the renamed weights into Llama.

    Raises:
        ModelError: an option of LLaDA's modeling file that no release uses and Llama lacks, or no
            mask token.
    """
    from transformers import LlamaForCausalLM

    tokenizer = load_tokenizer(checkpoint, native="PreTrainedTokenizerFast")
    mask = mask_id(checkpoint, tokenizer, released="126336, 5 in iLLaDA")
    config = _config(checkpoint)
    net = load_native(
        checkpoint,
        LlamaForCausalLM,
        published=_patterns({ours: theirs for theirs, ours in _NAMES.items()}),
        config=config,
        key_mapping=_patterns(_NAMES),
    )
    traits = Traits(
        family=NAME,
        attention="bidirectional",
        end_ids=end_ids(tokenizer, net, "<|eot_id|>"),
        sampler=checkpoint.card.get("sampler", PAPER_SAMPLER),
        pooling="response",
        mask_id=mask,
        shift=False,
    )
    return LanguageModel(checkpoint.name, checkpoint.revision, net, tokenizer, traits)


def _config(checkpoint: Checkpoint) -> Any:
    """Llama's config for LLaDA's.

    Raises:
        ModelError: an option that Llama lacks.
    """
    from transformers import LlamaConfig

    found = checkpoint.config
    if "num_experts" in found:
        raise ModelError(
            f"{checkpoint.name} is a LLaDA-MoE, which demur has no native class for. Use LLaDA-8B, "
            "LLaDA-1.5 or LLaDA-2.x, or add a family file for it."
        )
    if absent := [name for name in (*_REQUIRED, "vocab_size") if name not in found]:
        raise ModelError(
            f"The config.json of {checkpoint.name} calls itself llada without {', '.join(absent)}. "
            "Download it again, or add a family file for it."
        )
    if odd := {k: found[k] for k, v in _EXPECTED.items() if found.get(k, v) != v}:
        raise ModelError(
            f"{checkpoint.name} is a LLaDA that differs from the released ones ({odd}); demur knows "
            f"{ {k: _EXPECTED[k] for k in odd} }. Add a family file for it."
        )
    heads = found.get("n_kv_heads") or found["n_heads"]
    bias = bool(found.get("include_bias") or found.get("include_qkv_bias"))
    return LlamaConfig(
        vocab_size=found.get("embedding_size") or found["vocab_size"],
        num_key_value_heads=heads,
        attention_bias=bias,
        **{ours: found[theirs] for theirs, ours in _SETTINGS.items() if theirs in found},
    )


def _patterns(names: Mapping[str, str]) -> dict[str, str]:
    """Names as patterns for transformers, which substitutes only one group of a pattern."""
    return {
        "^" + re.escape(old).replace(r"\*", r"(\d+)") + r"\.": new.replace("*", r"\1") + "."
        for old, new in names.items()
    }
