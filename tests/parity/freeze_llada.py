"""Freeze what LLaDA's own sampler and modeling file do on the tiny checkpoints.

    git clone https://github.com/ML-GSAI/LLaDA
    git clone https://github.com/ZHZisZZ/dllm
    cd tests && python -m parity.freeze_llada --llada ../LLaDA --dllm ../dllm

with transformers 4.57, the last that runs the modeling file.

LLaDA holds ``generate.py``; dllm holds a copy of the modeling file, which the former downloads. Four
edits to ``generate.py`` at run time, none to what it computes otherwise: the end tokens' ids become
the tiny tokenizer's, and the line that suppresses them suppresses both at any temperature, as its
docstring says. The fourth keeps every step's predictions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from parity import tiny, upstream
from parity.replay import drawing

HALF = "logits_with_noise[:, :, 126081] = logits[:, :, 126348] = -torch.inf"
BOTH = "logits[:, :, 126081] = logits[:, :, 126348] = -torch.inf"

PREDICTED = "x0 = torch.where(mask_index, x0, x)"

PROMPTS = [[0, 30, 45, 21, 9], [0, 77]]
PLAIN = {"steps": 4, "gen_length": 12, "block_length": 12}
CASES: dict[str, dict[str, Any]] = {
    "one block": PLAIN,
    "remainder": {**PLAIN, "steps": 5},
    "blocks": {**PLAIN, "steps": 6, "block_length": 4},
    "blocks with remainder": {**PLAIN, "block_length": 6},
    "more steps than tokens": {"steps": 8, "gen_length": 6, "block_length": 6},
    "temperature": {**PLAIN, "temperature": 0.7},
    "random": {**PLAIN, "remasking": "random"},
    "random and hot": {**PLAIN, "remasking": "random", "temperature": 1.0},
    "guidance": {**PLAIN, "cfg_scale": 0.8},
    "no end": {**PLAIN, "temperature": 1.5, "logits_eos_inf": True},
    "ends last": {**PLAIN, "steps": 12, "confidence_eos_eot_inf": True},
    "ends last and hot": {**PLAIN, "steps": 6, "temperature": 1.5, "confidence_eos_eot_inf": True},
}


def build(modeling: Any, folder: Path) -> Any:
    """The upstream model on the tiny checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    inner = modeling.ModelConfig(
        **{k: v for k, v in config.items() if k in modeling.ModelConfig.__dataclass_fields__}
    )
    inner.init_device = "cpu"
    net = modeling.LLaDAModel(inner, init_params=False)
    weights = load_file(folder / "model.safetensors")
    net.load_state_dict({k.removeprefix("model."): v for k, v in weights.items()})
    outer = modeling.LLaDAConfig(**{**config, "init_device": "cpu"})
    return modeling.LLaDAModelLM(outer, model=net).eval()


def run(
    generate: Any, drafts: list[torch.Tensor], net: Any, args: dict[str, Any], mask: int
) -> list[dict[str, Any]]:
    """Each prompt alone, with its own random numbers."""
    rows = []
    for index, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt])
        watch = upstream.Watch()
        drafts.clear()
        with watch.over(net, net.model.transformer.ln_f), drawing(index):
            out = generate(net, ids, attention_mask=torch.ones_like(ids), mask_id=mask, **args)
        if args.get("cfg_scale"):
            watch.inputs = [x[:1] for x in watch.inputs]
        predicted = [x0[0, len(prompt) :].tolist() for x0 in drafts]
        rows.append({"prompt": prompt, **watch.row(len(prompt), out), "draft": predicted})
    return rows


def main() -> None:
    """Run every case on both checkpoints and write llada.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llada", type=Path, required=True)
    parser.add_argument("--dllm", type=Path, required=True)
    options = parser.parse_args()
    source = (options.llada / "generate.py").read_text()
    assert HALF in source
    assert PREDICTED in source
    source = source.replace(PREDICTED, f"{PREDICTED}; drafts.append(x0.clone())")
    source = source.replace(HALF, BOTH).replace("126081", "1").replace("126348", "2")
    names: dict[str, Any] = {"__name__": "llada_generate", "drafts": []}
    exec(compile(source, "generate.py", "exec"), names)
    modeling = upstream.module(options.dllm / "dllm/pipelines/llada/models", "modeling_llada")
    cases = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, mask in (("llada", 3), ("illada", 5)):
            folder = tiny.llada(Path(scratch) / kind, improved=kind == "illada")
            net = build(modeling, folder)
            wanted = CASES if kind == "llada" else {"blocks": CASES["blocks"]}
            for name, args in wanted.items():
                rows = run(names["generate"], names["drafts"], net, args, mask)
                cases[f"{kind}: {name}"] = {"args": args, "rows": rows}
    upstream.write(
        upstream.HERE / "llada.json",
        cases,
        llada=upstream.commit(options.llada),
        dllm=upstream.commit(options.dllm),
    )


if __name__ == "__main__":
    main()
