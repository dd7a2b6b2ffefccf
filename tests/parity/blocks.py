"""Tiny checkpoints in each block family's published format: config, tensor names, tokenizer.

Weights come from a seeded generator, tensor by tensor in name order, so that whoever freezes a
fixture and whoever checks it hold the same numbers without storing them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WORDS = [f"w{i}" for i in range(30)]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROLES = (
    "{% for m in messages %}{{ '<role>' + m.role.upper() + '</role>' + m.content + '<|role_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<role>ASSISTANT</role>' }}{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|turn>' + m.role + '\n' + m.content + '<turn|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)


def weights(shapes: Mapping[str, Sequence[int]], *, seed: int) -> dict[str, Tensor]:
    """Random tensors: norms around 1, matrices scaled by their width, the head sharper."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in sorted(shapes):
        value = torch.randn(*shapes[name], generator=generator)
        if "norm" in name:
            value = 1 + 0.1 * value
        elif "bias" in name:
            value = 0.1 * value
        elif "embed" in name or "lm_head" in name:
            value = value if "embed" in name else 1.2 * value
        else:
            value = 1.5 * value / value.shape[-1] ** 0.5
        made[name] = value
    return made


def save(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write config.json and model.safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def save_words(folder: Path, special: Sequence[str], template: str, **named: str) -> Any:
    """Write a word-level tokenizer: the special tokens first, in order, then plain words."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = [
        "user",
        "system",
        "assistant",
        "model",
        "USER",
        "SYSTEM",
        "ASSISTANT",
        "You",
        "are",
        "a",
    ]
    vocab = {t: i for i, t in enumerate([*special, "\n", *plain, "helpful", "[unk]", *WORDS])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="[unk]"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[^\s]+"), "removed", invert=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[unk]",
        additional_special_tokens=[t for t in special if t not in named.values()],
        padding_side="left",
        **named,
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


# ---------------------------------------------------------------------- SDAR

SDAR_MASK, SDAR_END, SDAR_VOCAB = 3, 0, 64
SDAR_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|MASK|>"]
SDAR = {
    "architectures": ["SDARForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_sdar.SDARConfig",
        "AutoModel": "modeling_sdar.SDARModel",
        "AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM",
    },
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_implementation": "flex_attention",
    "bos_token_id": SDAR_END,
    "debug": False,
    "eos_token_id": SDAR_END,
    "block_size": 4,
    "mask_token_id": SDAR_MASK,
    "ep_size": 1,
    "fuse_cross_entropy": True,
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 24,
    "max_position_embeddings": 256,
    "max_window_layers": 3,
    "micro_forward": False,
    "model_type": "sdar",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "skip_checkpoint": False,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.52.4",
    "use_cache": False,
    "use_deepep": False,
    "use_sliding_window": False,
    "vocab_size": SDAR_VOCAB,
}


def sdar_weights() -> dict[str, Tensor]:
    """Tensors under SDAR's published names."""
    d, heads, kv, wide = 16, 4 * 8, 2 * 8, 24
    shapes: dict[str, Sequence[int]] = {
        "model.embed_tokens.weight": (SDAR_VOCAB, d),
        "model.norm.weight": (d,),
        "lm_head.weight": (SDAR_VOCAB, d),
    }
    for layer in range(3):
        parts = {
            "input_layernorm": (d,),
            "post_attention_layernorm": (d,),
            "self_attn.q_proj": (heads, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, heads),
            "self_attn.q_norm": (8,),
            "self_attn.k_norm": (8,),
            "mlp.gate_proj": (wide, d),
            "mlp.up_proj": (wide, d),
            "mlp.down_proj": (d, wide),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in parts.items()}
    tensors = weights(shapes, seed=7)
    tensors["lm_head.weight"][SDAR_MASK] = 0
    return tensors


def save_sdar(folder: Path, **changes: Any) -> Path:
    """A tiny SDAR checkpoint; ``changes`` go into config.json, None removes a key."""
    config = {k: v for k, v in {**SDAR, **changes}.items() if k not in changes or v is not None}
    save(folder, config, sdar_weights())
    save_words(
        folder,
        SDAR_SPECIAL,
        CHATML,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        mask_token="<|MASK|>",
    )
    ends = {"bos_token_id": SDAR_END, "eos_token_id": [2, SDAR_END], "pad_token_id": SDAR_END}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    return folder


# ---------------------------------------------------------------------- LLaDA-2

LLADA2_END, LLADA2_MASK, LLADA2_VOCAB = 0, 1, 64
LLADA2_SPECIAL = ["<|endoftext|>", "<|mask|>", "<role>", "</role>", "<|role_end|>"]
LLADA2 = {
    "architectures": ["LLaDA2MoeModelLM"],
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_llada2_moe.LLaDA2MoeConfig",
        "AutoModel": "modeling_llada2_moe.LLaDA2MoeModel",
        "AutoModelForCausalLM": "modeling_llada2_moe.LLaDA2MoeModelLM",
    },
    "dtype": "float32",
    "embedding_dropout": 0.0,
    "first_k_dense_replace": 1,
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 24,
    "max_position_embeddings": 512,
    "max_window_layers": 28,
    "model_type": "llada2_moe",
    "moe_intermediate_size": 16,
    "moe_router_enable_expert_bias": True,
    "n_group": 4,
    "norm_head": False,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 16,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "num_shared_experts": 1,
    "output_dropout": 0.0,
    "output_router_logits": False,
    "pad_token_id": LLADA2_END,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 600000,
    "routed_scaling_factor": 2.5,
    "router_dtype": "fp32",
    "score_function": "sigmoid",
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "topk_group": 2,
    "use_bias": False,
    "use_cache": False,
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "use_sliding_window": False,
    "vocab_size": LLADA2_VOCAB,
}


def llada2_weights() -> dict[str, Tensor]:
    """Tensors under LLaDA-2's published names; the expert bias is negative in places."""
    d, head, wide, experts = 16, 8, 24, 16
    shapes: dict[str, Sequence[int]] = {
        "model.word_embeddings.weight": (LLADA2_VOCAB, d),
        "model.norm.weight": (d,),
        "lm_head.weight": (LLADA2_VOCAB, d),
    }
    for layer in range(3):
        parts = {
            "input_layernorm.weight": (d,),
            "post_attention_layernorm.weight": (d,),
            "attention.query_key_value.weight": ((4 + 2 + 2) * head, d),
            "attention.dense.weight": (d, 4 * head),
            "attention.query_layernorm.weight": (head,),
            "attention.key_layernorm.weight": (head,),
        }
        if layer == 0:
            parts |= _mlp("mlp", d, wide)
        else:
            parts |= {"mlp.gate.weight": (experts, d), "mlp.gate.expert_bias": (experts,)}
            parts |= _mlp("mlp.shared_experts", d, 16)
            for expert in range(experts):
                parts |= _mlp(f"mlp.experts.{expert}", d, 16)
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    tensors = weights(shapes, seed=3)
    tensors["lm_head.weight"][LLADA2_MASK] = 0
    for name in tensors:
        if name.endswith("expert_bias"):
            tensors[name] = 4 * tensors[name] - 0.5
    return tensors


def _mlp(name: str, d: int, wide: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.gate_proj.weight": (wide, d),
        f"{name}.up_proj.weight": (wide, d),
        f"{name}.down_proj.weight": (d, wide),
    }


def save_llada2(folder: Path, **changes: Any) -> Path:
    """A tiny LLaDA-2 checkpoint; ``changes`` go into config.json."""
    save(folder, {**LLADA2, **changes}, llada2_weights())
    save_words(
        folder,
        LLADA2_SPECIAL,
        ROLES,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        mask_token="<|mask|>",
    )
    return folder


# ---------------------------------------------------------------------- DiffusionGemma

GEMMA_VOCAB, GEMMA_CANVAS = 64, 12
GEMMA_SPECIAL = ["<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>"]
GEMMA_TEXT = {
    "bos_token_id": 2,
    "eos_token_id": 1,
    "global_head_dim": 16,
    "head_dim": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 256,
    "moe_intermediate_size": 16,
    "num_attention_heads": 4,
    "num_experts": 4,
    "num_global_key_value_heads": 1,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "sliding_window": 8,
    "top_k_experts": 2,
    "use_bidirectional_attention": "vision",
    "vocab_size": GEMMA_VOCAB,
}
GEMMA_VISION = {
    "head_dim": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "model_type": "gemma4_vision",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "patch_size": 4,
    "pooling_kernel_size": 1,
    "position_embedding_size": 16,
}


def save_diffusion_gemma(folder: Path, *, scale: float = 1.5, **generation: Any) -> Path:
    """A tiny DiffusionGemma as transformers itself saves it; needs transformers 5.11 or later.

    ``generation`` goes into generation_config.json. With a large ``scale`` the self-conditioning is
    chaotic: rounding errors grow tenfold with each step.
    """
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    config = DiffusionGemmaConfig(
        text_config=GEMMA_TEXT,
        vision_config=GEMMA_VISION,
        canvas_length=GEMMA_CANVAS,
        boi_token_id=60,
        eoi_token_id=61,
        image_token_id=62,
    )
    net = DiffusionGemmaForBlockDiffusion(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in sorted(net.named_parameters()):
            if value.ndim >= 2:
                spread = 0.5 if "embed_tokens" in name else scale / value.shape[-1] ** 0.5
                value.copy_(spread * torch.randn(value.shape, generator=generator))
    for key, value in {"eos_token_id": [1, 4], "pad_token_id": 0, **generation}.items():
        setattr(net.generation_config, key, value)
    net.save_pretrained(folder)
    save_words(
        folder,
        GEMMA_SPECIAL,
        TURNS,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    return folder
