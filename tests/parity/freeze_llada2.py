"""Freeze what LLaDA-2's own code gives on the tiny checkpoint. Numbers only; no upstream code is kept.

From tests/, with transformers 4.57.1 and a checkout of github.com/ZHZisZZ/dllm, which carries the
modeling file of the released models:

    python -m parity.freeze_llada2 CHECKOUT COMMIT

``generate`` makes its mask of zeros and minus infinity in bfloat16, which a float32 model refuses; it
is widened on the way in.
"""

from __future__ import annotations

import json
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from parity.blocks import LLADA2, LLADA2_MASK, LLADA2_VOCAB, llada2_weights
from parity.rows import ids_of

OUT = Path(__file__).parent / "llada2.json"
CASES: list[dict[str, Any]] = [
    {"prompt": 9, "gen_length": 20, "block_length": 8, "steps": 8, "threshold": 0.95},
    {"prompt": 16, "gen_length": 16, "block_length": 8, "steps": 8, "threshold": 0.4},
    {"prompt": 3, "gen_length": 22, "block_length": 8, "steps": 3, "threshold": 0.95},
    {"prompt": 37, "gen_length": 40, "block_length": 32, "steps": 32, "threshold": 0.7},
    {"prompt": 9, "gen_length": 32, "block_length": 8, "steps": 8, "threshold": 0.5, "stop": True},
    {
        "prompt": 7,
        "gen_length": 18,
        "block_length": 8,
        "steps": 8,
        "threshold": 0.6,
        "temperature": 0.8,
        "top_k": 10,
        "top_p": 0.9,
    },
]
EDITS: list[dict[str, Any]] = [
    {"prompt": 9, "gen_length": 20, "threshold": 0.7, "editing_threshold": 0.5},
    {"prompt": 16, "gen_length": 16, "threshold": 0.5, "editing_threshold": 0.0},
    {"prompt": 6, "gen_length": 16, "threshold": 0.9, "editing_threshold": 0.3, "stop": True},
    {
        "prompt": 3,
        "gen_length": 14,
        "threshold": 0.6,
        "editing_threshold": 0.2,
        "max_post_steps": 2,
    },
]


def load_model(checkout: Path, version: str) -> Any:
    """Upstream's model on the tiny weights; ``version`` is llada2 or llada21."""
    home = types.ModuleType(version)
    home.__path__ = [str(checkout / f"dllm/pipelines/{version}/models")]
    sys.modules[version] = home
    configuration = import_module(f"{version}.configuration_{version}_moe")
    modeling = import_module(f"{version}.modeling_{version}_moe")
    config = configuration.LLaDA2MoeConfig(**LLADA2, attn_implementation="sdpa")
    model = modeling.LLaDA2MoeModelLM(config)
    missing, extra = model.load_state_dict(llada2_weights(), strict=False)
    assert not missing, missing
    assert not extra, extra

    def widen(module: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "attention_mask": kwargs["attention_mask"].float()}

    model.model.register_forward_pre_hook(widen, with_kwargs=True)
    return model.eval()


def record(model: Any, case: dict[str, Any], end: int) -> dict[str, Any]:
    """Run one case; each pass as the response tokens it read and its mean response state."""
    passes: list[dict[str, Any]] = []
    start = case["prompt"]
    shown = slice(start, start + case["gen_length"])

    def watch(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        mean = output.last_hidden_state[0, shown].mean(0)
        tokens = args[0][0, shown] if args else kwargs["input_ids"][0, shown]
        passes.append({"read": tokens.tolist(), "mean": [round(float(v), 6) for v in mean]})

    handle = model.model.register_forward_hook(watch, with_kwargs=True)
    torch.manual_seed(11)
    settings = {k: v for k, v in case.items() if k not in ("prompt", "stop", "end")}
    ids = torch.tensor([ids_of(start)])
    found = model.generate(ids, eos_id=end, mask_id=LLADA2_MASK, **settings)
    handle.remove()
    return {"case": {**case, "end": end}, "passes": passes, "tokens": found[0].tolist()}


def main() -> None:
    checkout, commit = Path(sys.argv[1]), sys.argv[2]
    model = load_model(checkout, "llada2")
    ids = torch.tensor([ids_of(24)])
    with torch.no_grad():
        mask = torch.tril(torch.ones(3, 3)).repeat_interleave(8, 0).repeat_interleave(8, 1).log()
        output = model(ids, attention_mask=mask[None, None], output_hidden_states=True)
        states = output.hidden_states[-1][0]
    whole = [[round(float(v), 6) for v in row] for row in states]
    runs = []
    for case in CASES:
        run = record(model, case, LLADA2_VOCAB)
        if case.get("stop"):
            said = run["tokens"]
            run = record(model, case, next(t for t in said[7:] if t not in said[:7]))
        runs.append(run)
    editor, edits = load_model(checkout, "llada21"), []
    for case in EDITS:
        settings = {"block_length": 8, "eos_early_stop": True, **case}
        run = record(editor, settings, LLADA2_VOCAB)
        if case.get("stop"):
            said = run["tokens"]
            run = record(editor, settings, next(t for t in said[7:] if t not in said[:7]))
        edits.append(run)
    upstream = {"repository": "github.com/ZHZisZZ/dllm", "commit": commit}
    frozen = {"upstream": upstream, "states": whole, "runs": runs, "edits": edits}
    OUT.write_text(json.dumps(frozen, separators=(",", ":")))


if __name__ == "__main__":
    main()
