"""Freeze what SDAR's own code gives on the tiny checkpoint. Numbers only; no upstream code is kept.

From tests/, with transformers 4.57.1, einops and a checkout of github.com/JetAstra/SDAR:

    python -m parity.freeze_sdar CHECKOUT COMMIT

``flash_attn`` and the fused training loss need a GPU. Their meaning in plain torch stands in for the
first, and the second is never called. Greedy cases run the evaluation's sampler, whose confidence is
the unfiltered probability (temperature 1 and top k 1 make it greedy); sampled ones ``generate.py``.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from parity.blocks import SDAR, SDAR_MASK, sdar_weights
from parity.rows import ids_of

OUT = Path(__file__).parent / "sdar.json"
GREEDY = [
    {"prompt": 9, "gen_length": 14, "threshold": 1.0, "denoising_steps": 4},
    {"prompt": 6, "gen_length": 14, "threshold": 0.5, "denoising_steps": 4},
    {"prompt": 3, "gen_length": 16, "threshold": 0.7, "denoising_steps": 4},
    {"prompt": 8, "gen_length": 12, "threshold": 1.0, "denoising_steps": 2},
    {"prompt": 13, "gen_length": 16, "threshold": 0.7, "denoising_steps": 4, "stop": True},
]
SAMPLED = [
    {"prompt": 9, "gen_length": 14, "remasking_strategy": "low_confidence_static"},
    {"prompt": 6, "gen_length": 14, "remasking_strategy": "low_confidence_dynamic", "top_k": 5},
    {"prompt": 7, "gen_length": 12, "remasking_strategy": "sequential", "top_p": 0.8},
    {
        "prompt": 4,
        "gen_length": 16,
        "remasking_strategy": "low_confidence_dynamic",
        "temperature": 0.6,
        "top_k": 8,
        "top_p": 0.9,
        "confidence_threshold": 0.5,
    },
]


def load_model(checkout: Path) -> Any:
    """Upstream's model on the tiny weights."""
    import transformers.utils
    from transformers import Qwen3ForCausalLM  # noqa: F401  (looks for flash_attn before it is stubbed)

    def rms_norm(x: Any, weight: Any, bias: None, eps: float) -> Any:
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))

    def attention(q: Any, k: Any, v: Any, *, causal: bool, softmax_scale: float) -> Any:
        q, k, v = (value.transpose(1, 2) for value in (q, k, v))
        found = F.scaled_dot_product_attention(q, k, v, scale=softmax_scale, enable_gqa=True)
        return found.transpose(1, 2)

    transformers.utils.LossKwargs = transformers.utils.TransformersKwargs  # type: ignore[attr-defined]
    _stub("flash_attn", flash_attn_func=attention, flash_attn_varlen_func=None)
    _stub("flash_attn.ops")
    _stub("flash_attn.ops.triton")
    _stub("flash_attn.ops.triton.layer_norm", rms_norm_fn=rms_norm)
    _stub("flash_attn.bert_padding", index_first_axis=None, pad_input=None, unpad_input=None)
    home = checkout / "training/model/SDAR-4B-Chat"
    _stub("sdar").__path__ = [str(home)]
    _stub("sdar.fused_linear_diffusion_cross_entropy", FusedLinearDiffusionCrossEntropyLoss=None)
    from sdar.configuration_sdar import SDARConfig  # type: ignore[import-not-found]
    from sdar.modeling_sdar import SDARForCausalLM  # type: ignore[import-not-found]

    model = SDARForCausalLM(SDARConfig(**SDAR))
    missing, extra = model.load_state_dict(sdar_weights(), strict=False)
    assert not missing, missing
    assert not extra, extra
    return model.eval()


def samplers(checkout: Path) -> tuple[Any, Any]:
    """The evaluation's sampler and ``generate.py``'s."""
    spec = importlib.util.spec_from_file_location("sdar_generate", checkout / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = checkout / "evaluation/opencompass/opencompass/models/huggingface_bd3.py"
    wanted = ("add_gumbel", "top_", "sample_with", "get_num", "block_diffusion")
    kept = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(wanted)
    ]
    import numpy as np
    from transformers.cache_utils import DynamicCache

    names: dict[str, Any] = {"torch": torch, "F": F, "np": np, "DynamicCache": DynamicCache}
    exec(compile(ast.Module(kept, []), str(path), "exec"), names)
    return names["block_diffusion_generate"], module.block_diffusion_generate


def record(model: Any, generate: Any, case: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Run one case; each pass as its first position, tokens and final-norm states."""
    passes: list[dict[str, Any]] = []

    def watch(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        states = output.last_hidden_state[0]
        first = int(kwargs["position_ids"][0, 0])
        kind = "store" if kwargs["store_kv"] else "denoise"
        ids = kwargs["input_ids"][0].tolist()
        rounded = [[round(float(v), 6) for v in row] for row in states]
        passes.append({"kind": kind, "first": first, "ids": ids, "states": rounded})

    handle = model.model.register_forward_hook(watch, with_kwargs=True)
    ids = torch.tensor([ids_of(case["prompt"])])
    torch.manual_seed(11)
    found = generate(
        model,
        prompt={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        mask_id=SDAR_MASK,
        block_length=4,
        stopping_criteria_idx=[case["ends"]] if case.get("stop") else [-1],
        **settings,
    )
    handle.remove()
    return {"case": case, "passes": passes, "tokens": found[0].tolist()}


def main() -> None:
    checkout, commit = Path(sys.argv[1]), sys.argv[2]
    model = load_model(checkout)
    greedy, sampled = samplers(checkout)
    runs = []
    for case in GREEDY:
        settings = {k: case[k] for k in ("gen_length", "threshold", "denoising_steps")}
        settings |= {"temperature": 1.0, "top_k": 1, "tokenizer": None}
        if case.get("stop"):
            free = record(model, greedy, {**case, "stop": False}, **settings)
            said = free["tokens"][case["prompt"] :]
            case = {**case, "ends": next(t for t in said[3:] if t not in said[:3])}
        runs.append(record(model, greedy, {**case, "sampled": False}, **settings))
    for case in SAMPLED:
        settings = {k: v for k, v in case.items() if k != "prompt"}
        settings |= {"denoising_steps": 4}
        runs.append(record(model, sampled, {**case, "sampled": True}, **settings))
    upstream = {"repository": "github.com/JetAstra/SDAR", "commit": commit}
    OUT.write_text(json.dumps({"upstream": upstream, "runs": runs}, separators=(",", ":")))


def _stub(name: str, **members: Any) -> Any:
    module = types.ModuleType(name)
    vars(module).update(members)
    module.__path__ = []
    sys.modules[name] = module
    return module


if __name__ == "__main__":
    main()
