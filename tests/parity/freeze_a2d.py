"""Freeze what the A2D modeling file does on the tiny checkpoint, under LLaDA's sampler and under the
block sampler of the bd3lm variants.

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
#: Prompts whose length does and does not divide into blocks.
BLOCK_PROMPTS = [[101, 30, 45, 21, 9], [101, 77], [101, 33, 46, 52]]
BLOCK_CASES: dict[str, dict[str, Any]] = {
    "one commit a step": {"steps": 12, "max_new_tokens": 12, "block_size": 4},
    "two commits a step": {"steps": 6, "max_new_tokens": 12, "block_size": 4},
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
        for name, args in BLOCK_CASES.items():
            cases[f"bd3lm: {name}"] = {
                "args": args,
                "rows": [block_row(options.dllm, net, prompt, args) for prompt in BLOCK_PROMPTS],
            }
    upstream.write(
        upstream.HERE / "a2d.json",
        cases,
        llada=upstream.commit(options.llada),
        dllm=upstream.commit(options.dllm),
    )


def block_row(dllm: Path, net: Any, prompt: list[int], args: dict[str, Any]) -> dict[str, Any]:
    """Response tokens after each denoising step of the block sampler, and the mean state of the
    response positions begun so far."""
    sampler = block_sampler(dllm, net)
    states: list[torch.Tensor] = []
    hook = net.model.norm.register_forward_hook(lambda _, __, out: states.append(out[0].clone()))
    found = sampler.sample([prompt], return_dict=True, **args)
    hook.remove()
    steps = len(found.histories) - 1
    start = found.sequences.shape[1] - args["max_new_tokens"]
    # The pass over all that is finished comes once a block and is longer than the block itself.
    kept, row = iter(states), {"prompt": prompt, "x": [], "phi": []}
    finished = torch.empty(0)
    for step in range(1, steps + 1):
        state = next(kept)
        if len(found.histories[step][0]) > len(found.histories[step - 1][0]):
            finished, state = state[start:], next(kept)
        row["phi"].append(upstream.rounded(torch.cat([finished, state]).mean(0)))
        row["x"].append(found.histories[step][0, start:].tolist())
    assert next(kept, None) is None
    assert 0 not in found.sequences[0, start:], "padding among the tokens"
    return row


def block_sampler(dllm: Path, net: Any) -> Any:
    """Upstream's block sampler, without the package around it."""
    import sys
    import types

    for name in ("dllm", "dllm.core", "dllm.core.samplers", "dllm.core.schedulers"):
        package = types.ModuleType(name)
        package.__path__ = [str(dllm / name.replace(".", "/"))]
        sys.modules[name] = package
    from dllm.core.schedulers import alpha  # type: ignore[import-not-found]

    vars(sys.modules["dllm.core.schedulers"]).update(vars(alpha))
    from dllm.core.samplers.bd3lm import BD3LMSampler  # type: ignore[import-not-found]

    tokens = types.SimpleNamespace(
        mask_token_id=105, bos_token_id=101, pad_token_id=0, eos_token_id=None
    )
    return BD3LMSampler(model=net, tokenizer=tokens)


if __name__ == "__main__":
    main()
