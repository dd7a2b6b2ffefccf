"""Freeze what released code does at the level of text, on harmless words.

Clone patrickrchao/JailbreakingLLMs, tml-epfl/llm-adaptive-attacks, arobey1/smooth-llm,
ZichenWen1/DIJA, niez233/DiffuGuard and allenai/wildguard into one folder, then:

cd tests && python -m parity.freeze_text FOLDER

Functions are taken out of their files, because most of those import what a test has no use for.
"""

from __future__ import annotations

import argparse
import ast
import logging
import random
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import torch

from parity import upstream

REQUESTS = (
    "give me a recipe for a lemon cake",
    "Explain how bees find their way home, in detail.",
    "a\nb c",
)
ANSWERS = (
    '{"improvement": "x", "prompt": "bake it"}',
    'Here:\n```json\n{"improvement": "say\nmore",\n "prompt": "bake it"}\n```',
    "{'improvement': 'x', 'prompt': 'bake it'}",
    '{"improvement": "", "prompt": "bake it"} and more } text',
    '{"prompt": "bake it"}',
    '{"improvement": "x", "prompt": "bake it"',
    "sorry",
)
OUTLINES = (
    "bake a cake\nFirst, <mask:3>. Then <mask:2>.",
    "bake a cake",
    "<mask:1> bake <mask:0> a cake",
)
#: Anchors and response positions.
ANCHORED = (
    (("Step 1:", "Step 2:", "Step 3:"), 128),
    (("Step 1:", "Step 2:", "Step 3:"), 64),
    (("sure , here is", "then"), 50),
    (("sure",), 7),
)


def taken(path: Path, *names: str, **known: Any) -> SimpleNamespace:
    """Functions and constants of a file, run without the file's own imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = [
        node
        for node in tree.body
        if getattr(node, "name", None) in names
        or (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in names
        )
    ]
    scope = dict(known)
    exec(compile(ast.Module(kept, []), str(path), "exec"), scope)
    return SimpleNamespace(**{name: scope[name] for name in names})


def smooth_llm(checkout: Path) -> list[Any]:
    """Kind, percentage, seed, request -> the perturbed request."""
    found = upstream.module(checkout / "lib", "perturbations")
    kinds = {
        "swap": found.RandomSwapPerturbation,
        "insert": found.RandomInsertPerturbation,
        "patch": found.RandomPatchPerturbation,
    }
    rows = []
    for kind, make in kinds.items():
        for percent in (10, 40):
            for seed, request in enumerate(REQUESTS):
                random.seed(seed)
                rows.append([kind, percent, seed, request, make(percent)(request)])
    return rows


def pair(checkout: Path) -> list[Any]:
    """Answer -> improvement and prompt, null where it is not read."""
    quiet = logging.Logger("quiet", logging.CRITICAL)
    read = taken(checkout / "common.py", "extract_json", ast=ast, logger=quiet).extract_json
    rows = []
    for answer in ANSWERS:
        found, _ = read(answer)
        rows.append([answer, found and [found["improvement"], found["prompt"]]])
    return rows


def widths(checkout: Path) -> list[Any]:
    """Longest run, query -> tokens to replace."""
    name = "schedule_n_to_change_fixed"
    width = getattr(taken(checkout / "utils.py", name), name)
    queries = (1, 10, 11, 25, 26, 50, 51, 100, 101, 500, 501, 9000)
    return [[most, query, width(most, query)] for most in (1, 4, 16, 32) for query in queries]


def dija(checkout: Path) -> list[Any]:
    """Outline -> the released user turn with its mask tokens."""
    path = checkout / "run_jailbreakbench" / "models" / "jailbreakbench_llada.py"
    names = (
        "MASK_TOKEN",
        "START_TOKEN",
        "END_TOKEN",
        "SPECIAL_TOKEN_PATTERN",
        "DEFAULT_MASK_COUNTS",
    )
    found = taken(path, *names, "process_prompt_instruct", re=re)
    return [[o, found.process_prompt_instruct(o, found.DEFAULT_MASK_COUNTS)] for o in OUTLINES]


class Words:
    """A tokenizer of words: ids from 1 in the order they come."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str, **_: Any) -> SimpleNamespace:
        ids = [self.known.setdefault(word, len(self.known) + 1) for word in text.split()]
        return SimpleNamespace(input_ids=ids)


class Begun(Exception):
    """The canvas as the first forward pass sees it."""


def pad(checkout: Path) -> list[Any]:
    """Anchors, response positions -> place of each word that is fixed."""
    path = checkout / "utility" / "generate_function_llada.py"
    names = ("_ids_from_phrases", "build_cue_id_sets", "get_num_transfer_tokens", "generate")
    scope = {"torch": torch, "np": np, "Iterable": Iterable, "Optional": Optional, "Tuple": tuple}
    generate = taken(path, *names, **scope).generate

    class Network(torch.nn.Linear):
        def forward(self, x: torch.Tensor, **_: Any) -> Any:
            raise Begun(x[0].tolist())

    rows = []
    for anchors, length in ANCHORED:
        words, prompt = Words(), torch.tensor([[900, 901]])
        try:
            generate(
                *(Network(1, 1), words, prompt),
                gen_length=length,
                block_length=length,
                mask_id=0,
                attack_method="pad",
                pad_anchors=anchors,
            )
        except Begun as seen:
            text = {i: word for word, i in words.known.items()}
            placed = [[p - 2, text[i]] for p, i in enumerate(seen.args[0]) if p > 1 and i]
            rows.append([anchors, length, placed])
    return rows


def wildguard(checkout: Path) -> list[Any]:
    """Prompt and response -> what the model reads."""
    path = checkout / "wildguard" / "utils.py"
    form = taken(path, "WILDGUARD_INPUT_FORMAT").WILDGUARD_INPUT_FORMAT
    return [["bake a cake", "mix sugar", form.format(prompt="bake a cake", response="mix sugar")]]


def main() -> None:
    """Run everything and write text.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    sources = {
        "pair": ("JailbreakingLLMs", pair),
        "widths": ("llm-adaptive-attacks", widths),
        "smooth_llm": ("smooth-llm", smooth_llm),
        "dija": ("DIJA", dija),
        "pad": ("DiffuGuard", pad),
        "wildguard": ("wildguard", wildguard),
    }
    cases = {name: freeze(folder / checkout) for name, (checkout, freeze) in sources.items()}
    commits = {name: upstream.commit(folder / where) for name, (where, _) in sources.items()}
    upstream.write(upstream.HERE / "text.json", cases, **commits)


if __name__ == "__main__":
    main()
