"""Freeze what the A2D modeling file does under LLaDA's sampler on the tiny checkpoint.

    git clone https://github.com/ML-GSAI/LLaDA
    git clone https://github.com/ZHZisZZ/dllm
    cd tests && python -m parity.freeze_a2d --llada ../LLaDA --dllm ../dllm

with transformers 4.57.
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

PROMPTS = [[101, 30, 45, 21, 9], [101, 77]]
CASES: dict[str, dict[str, Any]] = {
    "one block": {"steps": 4, "gen_length": 12, "block_length": 12},
    "blocks": {"steps": 6, "gen_length": 12, "block_length": 6},
}


def main() -> None:
    """Run every case and write a2d.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llada", type=Path, required=True)
    parser.add_argument("--dllm", type=Path, required=True)
    options = parser.parse_args()
    names: dict[str, Any] = {"__name__": "llada_generate"}
    source = (options.llada / "generate.py").read_text()
    exec(compile(source, "generate.py", "exec"), names)
    modeling = upstream.module(options.dllm / "dllm/pipelines/a2d/models/qwen3", "modeling_qwen3")
    cases = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny.a2d(Path(scratch) / "a2d")
        config = modeling.A2DQwen3Config(**json.loads((folder / "config.json").read_text()))
        net = modeling.A2DQwen3LMHeadModel(config).eval()
        missing, unexpected = net.load_state_dict(
            load_file(folder / "model.safetensors"), strict=False
        )
        assert (missing, unexpected) == (["lm_head.weight"], []), (missing, unexpected)
        net.tie_weights()
        for name, args in CASES.items():
            rows = []
            for prompt in PROMPTS:
                ids = torch.tensor([prompt])
                watch = upstream.Watch()
                with watch.over(net, net.model.norm):
                    out = names["generate"](
                        net, ids, attention_mask=torch.ones_like(ids), mask_id=105, **args
                    )
                rows.append({"prompt": prompt, **watch.row(len(prompt), out)})
            cases[name] = {"args": args, "rows": rows}
    upstream.write(
        upstream.HERE / "a2d.json",
        cases,
        llada=upstream.commit(options.llada),
        dllm=upstream.commit(options.dllm),
    )


if __name__ == "__main__":
    main()
