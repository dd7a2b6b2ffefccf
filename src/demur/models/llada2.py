"""LLaDA-2.x: a mixture of experts with block diffusion, loaded with the native GLM-4 MoE class.

LLaDA 2.0, arXiv:2512.15745. The published modeling file is Ling 2.0's with attention up to the end of
a position's own block. GLM-4 MoE computes the same: heads with their own norms, rotation of half of
each head, experts chosen by sigmoid scores and a bias inside the best groups, one shared expert. The
tensors are renamed, the fused projection is cut in three, and no remote code runs. Settings: block
and threshold of LLaDA-2 ``generate``, greedy and 128 tokens as in arXiv:2602.02600, section 3.

LLaDA 2.1, arXiv:2602.08676, has the same tensors and also edits what it committed. Its config may have
the type ``llada2_moe`` too, so it is recognised by ``2.1`` in the name of the folder or repository; for
other names set a ``sampler`` under ``demur`` in config.json. Its settings are the quality mode of its
card.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from demur.errors import ModelError
from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import Checkpoint
from demur.models.tokens import end_ids, load_tokenizer, mask_id
from demur.models.weights import check_complete, load_native, read_tensors

NAME = "llada2"
EXAMPLES = "LLaDA2.0-mini, LLaDA2.0-flash, LLaDA2.1-mini"
TESTED = "tokens, commits and states of the published code, tiny weights"

#: LLaDA-2's config -> GLM-4 MoE's. Other keys have no effect in the published modeling file.
_SETTINGS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "hidden_act": "hidden_act",
    "max_position_embeddings": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "rope_scaling": "rope_scaling",
    "use_qkv_bias": "attention_bias",
    "use_qk_norm": "use_qk_norm",
    "tie_word_embeddings": "tie_word_embeddings",
    "moe_intermediate_size": "moe_intermediate_size",
    "num_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "n_group": "n_group",
    "topk_group": "topk_group",
    "routed_scaling_factor": "routed_scaling_factor",
    "first_k_dense_replace": "first_k_dense_replace",
    "pad_token_id": "pad_token_id",
    "eos_token_id": "eos_token_id",
}

#: LLaDA-2's tensor names -> GLM-4 MoE's.
_NAMES = {
    "model.word_embeddings.": "model.embed_tokens.",
    ".attention.dense.": ".self_attn.o_proj.",
    ".attention.query_layernorm.": ".self_attn.q_norm.",
    ".attention.key_layernorm.": ".self_attn.k_norm.",
    ".mlp.gate.expert_bias": ".mlp.gate.e_score_correction_bias",
}
#: GLM-4 MoE's tensor names -> LLaDA-2's, as patterns.
_PUBLISHED = {re.escape(ours): theirs for theirs, ours in _NAMES.items()}
_PUBLISHED[r"\.self_attn\.[qkv]_proj\."] = ".attention.query_key_value."

#: LLaDA 2.0's ``generate``, and LLaDA 2.1's quality mode.
_BLOCKS = {"name": "block", "block_length": 32, "block_steps": 32, "threshold": 0.95}
_EDITING = {**_BLOCKS, "threshold": 0.7, "edit_threshold": 0.5}


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config is LLaDA-2's."""
    return config.get("model_type") in ("llada2_moe", "llada21_moe")


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load the renamed weights into GLM-4 MoE.

    Raises:
        ModelError: an option of LLaDA-2's modeling file that no release uses and GLM-4 MoE lacks,
            or no mask token.
    """
    from transformers import Glm4MoeForCausalLM

    tokenizer = load_tokenizer(checkpoint, native="PreTrainedTokenizerFast")
    mask = mask_id(checkpoint, tokenizer, released="156895")
    config = _config(checkpoint)
    weights = dict(
        pair
        for name, value in read_tensors(checkpoint).items()
        for pair in _renamed(name, value, config)
    )
    check_complete(checkpoint, {"missing_keys": _experts(config) - weights.keys()}, {})
    net = load_native(
        checkpoint,
        Glm4MoeForCausalLM,
        published=_PUBLISHED,
        config=config,
        state_dict=weights,
    )
    edits = checkpoint.config["model_type"] == "llada21_moe" or "2.1" in checkpoint.title
    traits = Traits(
        family=NAME,
        attention="block",
        end_ids=end_ids(tokenizer, net),
        sampler=checkpoint.card.get("sampler", _EDITING if edits else _BLOCKS),
        pooling="response",
        mask_id=mask,
        shift=False,
    )
    return LanguageModel(checkpoint.name, checkpoint.revision, net, tokenizer, traits)


def _config(checkpoint: Checkpoint) -> Any:
    """GLM-4 MoE's config for LLaDA-2's.

    Raises:
        ModelError: an option that GLM-4 MoE lacks.
    """
    from transformers import Glm4MoeConfig

    found = checkpoint.config
    odd = {k: found[k] for k in ("use_bias", "norm_head") if found.get(k)}
    odd |= {} if found.get("num_shared_experts") else {"num_shared_experts": 0}
    if odd:
        raise ModelError(
            f"{checkpoint.name} is a LLaDA-2 that differs from the released ones ({odd}); demur knows "
            "no native class for that. Add a family file for it."
        )
    kept = {ours: found[theirs] for theirs, ours in _SETTINGS.items() if theirs in found}
    return Glm4MoeConfig(
        **{k: v for k, v in kept.items() if v is not None},
        partial_rotary_factor=found.get("partial_rotary_factor", 0.5),
        norm_topk_prob=found["num_experts_per_tok"] > 1,
        num_nextn_predict_layers=0,
    )


def _experts(config: Any) -> set[str]:
    """Names of all expert tensors, which newer transformers fuse before they can be counted."""
    return {
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
        for layer in range(config.first_k_dense_replace, config.num_hidden_layers)
        for expert in range(config.n_routed_experts)
        for part in ("gate", "up", "down")
    }


def _renamed(name: str, value: Tensor, config: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensor under GLM-4 MoE's name; three of them for the fused projection."""
    for theirs, ours in _NAMES.items():
        name = name.replace(theirs, ours)
    if name.endswith("e_score_correction_bias"):
        # Experts outside the best groups score 0 in older native classes and minus infinity in LLaDA-2.
        # Without negative biases both choose the same; adding one number to all changes no choice.
        value = value - value.min().clamp(max=0)
    fused = ".attention.query_key_value."
    if fused not in name:
        yield name, value
        return
    heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    parts = torch.split(value, [count * config.head_dim for count in heads])
    for part, own in zip(parts, ("q", "k", "v"), strict=True):
        yield name.replace(fused, f".self_attn.{own}_proj."), part
