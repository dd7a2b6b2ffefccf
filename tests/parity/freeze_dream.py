"""Freeze what Dream's own sampler does on the tiny checkpoint, one prompt at a time.

    git clone https://github.com/ZHZisZZ/dllm
    cd tests && python -m parity.freeze_dream --dllm ../dllm

with transformers 4.57, the last that runs the modeling file. dllm holds copies of Dream's
``modeling_dream.py`` and ``generation_utils.py``, which a checkpoint of Dream brings itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file

from parity import tiny, upstream
from parity.replay import drawing

PROMPTS = [[104, 30, 45, 21, 9], [104, 77]]
PLAIN: dict[str, Any] = {"steps": 5, "gen_length": 12}
HOT = {"temperature": 0.8, "top_p": 0.9}
CASES: dict[str, dict[str, Any]] = {
    "origin": {**PLAIN, "alg": "origin"},
    "origin and hot": {**PLAIN, "alg": "origin", **HOT},
    "maskgit_plus": {**PLAIN, "alg": "maskgit_plus"},
    "maskgit_plus and hot": {**PLAIN, "alg": "maskgit_plus", **HOT},
    "topk_margin": {**PLAIN, "alg": "topk_margin"},
    "topk_margin of a few": {**PLAIN, "alg": "topk_margin", "temperature": 1.2, "top_k": 5},
    "nucleus before the few": {
        **PLAIN,
        "alg": "maskgit_plus",
        "temperature": 1.5,
        "top_k": 4,
        "top_p": 0.6,
    },
    "entropy": {**PLAIN, "alg": "entropy"},
    "entropy and hot": {**PLAIN, "alg": "entropy", **HOT},
    "drawn positions": {**PLAIN, "alg": "maskgit_plus", "alg_temp": 0.2},
    "drawn positions and hot": {**PLAIN, "alg": "entropy", "alg_temp": 0.5, **HOT},
    "more steps than tokens": {"steps": 9, "gen_length": 6, "alg": "entropy"},
    "late end": {**PLAIN, "alg": "maskgit_plus", "eps": 0.2},
}


@contextmanager
def keeping(generation: Any, predicted: list[torch.Tensor]) -> Iterator[None]:
    """Keep the tokens of every ``sample_tokens``, one for each masked position."""
    own = generation.sample_tokens

    def sample_tokens(*args: Any, **options: Any) -> Any:
        confidence, tokens = own(*args, **options)
        predicted.append(tokens.clone())
        return confidence, tokens

    with mock.patch.object(generation, "sample_tokens", sample_tokens):
        yield


def main() -> None:
    """Run every case and write dream.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dllm", type=Path, required=True)
    options = parser.parse_args()
    code = options.dllm / "dllm/pipelines/dream/models"
    configuration = upstream.module(code, "configuration_dream")
    modeling = upstream.module(code, "modeling_dream")
    generation = upstream.module(code, "generation_utils")
    cases = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny.dream(Path(scratch) / "dream")
        config = configuration.DreamConfig(**json.loads((folder / "config.json").read_text()))
        net = modeling.DreamModel(config).eval()
        net.load_state_dict(load_file(folder / "model.safetensors"))
        for name, args in CASES.items():
            given = {**args, "max_new_tokens": args["gen_length"]}
            given.pop("gen_length")
            rows = []
            for index, prompt in enumerate(PROMPTS):
                watch, predicted = upstream.Watch(), list[torch.Tensor]()
                with (
                    watch.over(net, net.model.norm),
                    drawing(index),
                    keeping(generation, predicted),
                ):
                    out = net.diffusion_generate(
                        torch.tensor([prompt]),
                        generation_config=generation.DreamGenerationConfig(
                            mask_token_id=config.mask_token_id, pad_token_id=config.pad_token_id
                        ),
                        **given,
                    )
                row = {"prompt": prompt, **watch.row(len(prompt), out)}
                # origin predicts only what it commits, so that it has no drafts.
                if args["alg"] != "origin":
                    masks = [x == config.mask_token_id for x in watch.inputs]
                    filled = zip(watch.inputs, masks, predicted, strict=True)
                    drafts = [x.masked_scatter(mask, tokens) for x, mask, tokens in filled]
                    row["draft"] = [draft[0, len(prompt) :].tolist() for draft in drafts]
                rows.append(row)
            cases[name] = {"args": args, "rows": rows}
    upstream.write(upstream.HERE / "dream.json", cases, dllm=upstream.commit(options.dllm))


if __name__ == "__main__":
    main()
