"""Tiny checkpoints in each family's published format: config keys, tensor names, tokenizer.

Weights come from numpy's legacy generator, whose stream never changes, so that the numbers frozen
from an upstream implementation belong to the very weights that a test makes again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]

WORDS = [f"w{i}" for i in range(40)]
PROSE = ["You", "are", "a", "helpful", "assistant", "system", "user", "\n\n", "<", "|", ">"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{% for m in messages %}{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    "{% endif %}"
)


def tensors(
    shapes: Shapes, *, seed: int, blank: Mapping[str, int], loud: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Seeded float32 tensors.

    ``blank`` names rows to fill with zeros (a mask token's logit), ``loud`` rows of the same tensors
    to double (tokens that shall be predicted often).
    """
    random = np.random.RandomState(seed)
    found = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape)
        scaled = 1 + 0.1 * values if len(shape) == 1 else 0.35 * values
        found[name] = scaled.astype(np.float32)
    for name, row in blank.items():
        found[name][row] = 0
        found[name][list(loud)] *= 2
    return found


def save(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Any]) -> Path:
    """Write config.json and model.safetensors."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_word_tokenizer(folder: Path, special: list[str], settings: Mapping[str, Any]) -> None:
    """A word-level tokenizer.json, and the tokenizer_config.json around it."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    core = Tokenizer(
        models.WordLevel({t: i for i, t in enumerate([*special, *PROSE, *WORDS])}, special[0])
    )
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    folder.mkdir(parents=True, exist_ok=True)
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def llada_shapes(*, width: int, layers: int, kv: int, mlp: int, vocab: int, tied: bool) -> Shapes:
    """Tensor names and shapes of ``LLaDAModelLM``."""
    shapes: dict[str, tuple[int, ...]] = {"model.transformer.wte.weight": (vocab, width)}
    for i in range(layers):
        block = f"model.transformer.blocks.{i}."
        shapes |= {
            block + "attn_norm.weight": (width,),
            block + "ff_norm.weight": (width,),
            block + "q_proj.weight": (width, width),
            block + "k_proj.weight": (kv, width),
            block + "v_proj.weight": (kv, width),
            block + "attn_out.weight": (width, width),
            block + "ff_proj.weight": (mlp, width),
            block + "up_proj.weight": (mlp, width),
            block + "ff_out.weight": (width, mlp),
        }
    shapes["model.transformer.ln_f.weight"] = (width,)
    if not tied:
        shapes["model.transformer.ff_out.weight"] = (vocab, width)
    return shapes


def llada_config(*, tied: bool, kv_heads: int, mask: int) -> dict[str, Any]:
    """The keys of the released config.json, tiny numbers."""
    return {
        "activation_type": "silu",
        "alibi": False,
        "alibi_bias_max": 8.0,
        "architectures": ["LLaDAModelLM"],
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "attention_layer_norm_with_affine": True,
        "auto_map": {
            "AutoConfig": "configuration_llada.LLaDAConfig",
            "AutoModel": "modeling_llada.LLaDAModelLM",
            "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
        },
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": 16,
        "embedding_dropout": 0.0,
        "embedding_size": 128,
        "eos_token_id": 1,
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_cutoff_factor": None,
        "init_device": "meta",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": mask,
        "max_sequence_length": 256,
        "mlp_hidden_size": 24,
        "mlp_ratio": 4,
        "model_type": "llada",
        "multi_query_attention": None,
        "n_heads": 4,
        "n_kv_heads": kv_heads,
        "n_layers": 3,
        "pad_token_id": 1,
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "rms_norm_eps": 1e-05,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "transformers_version": "4.46.3",
        "use_cache": False,
        "vocab_size": 128,
        "weight_tying": tied,
    }


def llada(folder: Path, *, improved: bool = False) -> Path:
    """LLaDA-8B's format, or iLLaDA's: grouped queries, tied embeddings, mask 5."""
    mask = 5 if improved else 3
    config = llada_config(tied=improved, kv_heads=2 if improved else 4, mask=mask)
    shapes = llada_shapes(
        width=16, layers=3, kv=8 if improved else 16, mlp=24, vocab=128, tied=improved
    )
    head = f"model.transformer.{'wte' if improved else 'ff_out'}.weight"
    special = ["<|startoftext|>", "<|endoftext|>", "<|eot_id|>", "<|mdm_mask|>", "<unk>"]
    special += ["<|reserved_0|>", "<|start_header_id|>", "<|end_header_id|>"]
    save_word_tokenizer(
        folder,
        special,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "unk_token": "<unk>",
            "chat_template": HEADERS,
        },
    )
    return save(
        folder,
        config,
        tensors(shapes, seed=11, blank={head: mask}, loud=() if improved else (1, 2)),
    )


def qwen_shapes(*, bias: bool, norms: bool, tied: bool, vocab: int) -> Shapes:
    """Tensor names and shapes of Qwen2 (``bias``) and Qwen3 (``norms``), width 16."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, 16)}
    for i in range(3):
        layer = f"model.layers.{i}."
        for name, out in (("q", 16), ("k", 8), ("v", 8)):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = (out, 16)
            if bias:
                shapes[f"{layer}self_attn.{name}_proj.bias"] = (out,)
        shapes[layer + "self_attn.o_proj.weight"] = (16, 16)
        if norms:
            shapes[layer + "self_attn.q_norm.weight"] = (4,)
            shapes[layer + "self_attn.k_norm.weight"] = (4,)
        shapes |= {
            layer + "mlp.gate_proj.weight": (24, 16),
            layer + "mlp.up_proj.weight": (24, 16),
            layer + "mlp.down_proj.weight": (16, 24),
            layer + "input_layernorm.weight": (16,),
            layer + "post_attention_layernorm.weight": (16,),
        }
    shapes["model.norm.weight"] = (16,)
    if not tied:
        shapes["lm_head.weight"] = (vocab, 16)
    return shapes


def qwen_config(**more: Any) -> dict[str, Any]:
    """The keys that Qwen2's and Qwen3's config.json share, tiny numbers."""
    return {
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 24,
        "max_position_embeddings": 512,
        "max_window_layers": 3,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 128,
        **more,
    }


def save_qwen_tokenizer(folder: Path, *, special: list[str], settings: Mapping[str, Any]) -> None:
    """Qwen's files: vocab.json, merges.txt and added tokens in tokenizer_config.json."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    letters = [*alphabet[:98], "Ċ", "Ġ"]
    first = len(letters)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {
        str(first + i): {
            "content": text,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for i, text in enumerate(special)
    }
    written = {"added_tokens_decoder": added, "chat_template": CHATML, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(written, indent=2))


def dream(folder: Path) -> Path:
    """Dream-v0's format; its tokenizer_config names remote code."""
    config = qwen_config(
        architectures=["DreamModel"],
        auto_map={
            "AutoConfig": "configuration_dream.DreamConfig",
            "AutoModel": "modeling_dream.DreamModel",
        },
        mask_token_id=105,
        bos_token_id=100,
        eos_token_id=100,
        pad_token_id=100,
        model_type="Dream",
        tie_word_embeddings=False,
    )
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|x|>", "<|beginoftext|>"]
    save_qwen_tokenizer(
        folder,
        special=[*special, "<|mask|>"],
        settings={
            "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
            "tokenizer_class": "DreamTokenizer",
            "bos_token": "<|beginoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "mask_token": "<|mask|>",
        },
    )
    (folder / "generation_config.json").write_text(
        json.dumps({"_from_model_config": True, "bos_token_id": 100, "eos_token_id": 100})
    )
    shapes = qwen_shapes(bias=True, norms=False, tied=False, vocab=128)
    return save(folder, config, tensors(shapes, seed=12, blank={"lm_head.weight": 105}))


def a2d(folder: Path) -> Path:
    """Qwen3-0.6B-diffusion's format."""
    config = qwen_config(
        architectures=["A2DQwen3LMHeadModel"],
        auto_map={"AutoModel": "modeling_qwen3.A2DQwen3LMHeadModel"},
        attention_bias=False,
        bos_token_id=100,
        eos_token_id=100,
        pad_token_id=100,
        head_dim=4,
        layer_types=["full_attention"] * 3,
        model_type="a2d-qwen3",
        tie_word_embeddings=True,
    )
    save_qwen_tokenizer(
        folder,
        special=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|mask|>"],
        settings={
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "mask_token": "<|mask|>",
            "chat_template": CHATML.replace(
                "<|im_start|>assistant\n",
                "<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
                "<think>\n\n</think>\n\n{% endif %}",
            ),
        },
    )
    shapes = qwen_shapes(bias=False, norms=True, tied=True, vocab=128)
    return save(folder, config, tensors(shapes, seed=13, blank={"model.embed_tokens.weight": 105}))


def llama(folder: Path) -> Path:
    """A Llama whose tokenizer adds a start token to what its template starts already."""
    config = qwen_config(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        rope_theta=500000.0,
        tie_word_embeddings=False,
    )
    special = ["<|begin_of_text|>", "<|eot_id|>", "<unk>", "<|start_header_id|>"]
    save_word_tokenizer(
        folder,
        [*special, "<|end_header_id|>"],
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "pad_token": "<|eot_id|>",
            "unk_token": "<unk>",
            "chat_template": HEADERS,
        },
    )
    path = folder / "tokenizer.json"
    core = json.loads(path.read_text())
    start = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}
    core["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            start,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 0}},
        ],
        "special_tokens": {
            "<|begin_of_text|>": {
                "id": "<|begin_of_text|>",
                "ids": [0],
                "tokens": ["<|begin_of_text|>"],
            }
        },
    }
    path.write_text(json.dumps(core))
    shapes = qwen_shapes(bias=False, norms=False, tied=False, vocab=128)
    random = tensors(shapes, seed=16, blank={"lm_head.weight": 127}, loud=(1,))
    return save(folder, config, random)
