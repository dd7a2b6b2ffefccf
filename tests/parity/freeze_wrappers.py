"""Freeze what the paper's released wrappers give on the tiny checkpoints.

    git clone https://github.com/ElironRahimi/sri-signal
    git clone https://github.com/ML-GSAI/LLaDA
    git clone https://github.com/ZHZisZZ/dllm
    cd tests && python -m parity.freeze_wrappers --sri ../sri-signal --llada ../LLaDA --dllm ../dllm

with transformers 4.57. The wrappers load their models by name; here they are given the tiny ones. The
mask token's id is the tiny checkpoint's.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from parity import tiny, upstream
from parity.freeze_llada import build

PROMPTS = ["w1 w2 w3", "w7", "w11 w30 w4 w5 w21", "w33 w2"]


def import_wrappers(options: argparse.Namespace) -> None:
    """Put upstream's packages where its own code looks for them."""
    names: dict[str, Any] = {"__name__": "llada_generate"}
    source = (options.llada / "generate.py").read_text()
    exec(compile(source, "generate.py", "exec"), names)
    generate = types.ModuleType("submodules.llada.generate")
    generate.generate = functools.partial(names["generate"], mask_id=3)  # type: ignore[attr-defined]
    datasets = types.ModuleType("datasets")
    datasets.load_dataset = None  # type: ignore[attr-defined]
    for name, value in (
        ("submodules", types.ModuleType("submodules")),
        ("submodules.llada", types.ModuleType("submodules.llada")),
        ("submodules.llada.generate", generate),
        ("datasets", datasets),
    ):
        sys.modules[name] = value
    sys.path.insert(0, str(options.sri))


def collect(wrapper_class: Any, net: Any, tokenizer: Any, profile: Any) -> list[Any]:
    """The states of every prompt, ``[N, T, D]``."""
    wrapper = wrapper_class.__new__(wrapper_class)
    wrapper.generation_profile, wrapper.device = profile, "cpu"
    wrapper.model, wrapper.tokenizer = net, tokenizer
    with mock.patch("torch.cuda.empty_cache"):
        states, _ = wrapper._collectActivationsAndRefusals(PROMPTS)
    return [[upstream.rounded(step) for step in one] for one in states]


def drawn() -> tuple[Any, Any]:
    """Centers ``[2, T, D]`` close to each other and states ``[N, T, D]`` around both."""
    random = np.random.RandomState(5)
    shared = random.standard_normal((1, 6, 24))
    mean = shared + 0.3 * random.standard_normal((2, 6, 24))
    return mean, shared + 0.3 * random.standard_normal((5, 6, 24))


def signals(create_signal: Any) -> dict[str, Any]:
    """``create_signal`` on drawn states in each dtype."""
    mean, states = drawn()
    found: dict[str, Any] = {}
    for name in ("float32", "bfloat16", "float16"):
        dtype = getattr(torch, name)
        centers = tuple(torch.tensor(m, dtype=dtype) for m in mean)
        sigma = create_signal(centers, [torch.tensor(s, dtype=dtype) for s in states])
        found[name] = [upstream.rounded(s) for s in sigma]
    return found


def main() -> None:
    """Run both wrappers and write wrappers.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("sri", "llada", "dllm"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    import_wrappers(options)
    from Models.LLaDAWrapper import LLADAModelWrapper
    from Models.LlamaWrapper import LlamaModelWrapper
    from SRI_alg import create_signal
    from utils import GenerationProfile

    modeling = upstream.module(options.dllm / "dllm/pipelines/llada/models", "modeling_llada")
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny.llama(Path(scratch) / "llama")
        llama = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
        short = GenerationProfile(steps=10)
        tokens = AutoTokenizer.from_pretrained(folder)
        cases: dict[str, Any] = {
            "llama": {
                "args": {"steps": 10},
                "prompts": PROMPTS,
                "states": collect(LlamaModelWrapper, llama, tokens, short),
            }
        }
        folder = tiny.llada(Path(scratch) / "llada")
        net = build(modeling, folder)
        args = {"steps": 6, "gen_length": 12, "block_length": 6}
        tokens = PreTrainedTokenizerFast.from_pretrained(folder)
        cases["llada"] = {
            "args": args,
            "prompts": PROMPTS,
            "states": collect(LLADAModelWrapper, net, tokens, GenerationProfile(**args)),
        }
    cases["signal"] = signals(create_signal)
    upstream.write(
        upstream.HERE / "wrappers.json",
        cases,
        sri_signal=upstream.commit(options.sri),
        llada=upstream.commit(options.llada),
        dllm=upstream.commit(options.dllm),
    )


if __name__ == "__main__":
    main()
