"""Fit what ships with the built-in models: anchors and a streaming guard of each.

    python scripts/organism_fitted.py [NAME ...]

Run it after ``demur organism train`` has made a model again. The files go into the model's folder,
their SHA-256 into its manifest.
"""

from __future__ import annotations

import sys
import time

import demur
from demur import organism
from demur.guard import fit_streaming_guard
from demur.judges import refusal_judge
from demur.organism import model_folder, world
from demur.organism.world import Split, TaskKind
from demur.sampling import sampler_with
from demur.types import Prompt, Traces

#: Prompts of each class behind the anchors, and of each wrapper family behind the guard: plain
#: questions, and harmless questions in the wrapper of an attack.
ANCHORS, PLAIN, WRAPPED = 60, 120, 24
ALPHA = 0.01


def main(names: list[str]) -> None:
    """Fit the files of these models, or of all."""
    for name in names or organism.NAMES:
        for variant, changes in organism.VARIANTS.items():
            if variant and name != "organism-dlm":
                continue
            begun = time.monotonic()
            fit(name, variant, changes)
            print(f"{name} {variant}: {time.monotonic() - begun:.0f} s", flush=True)


def fit(name: str, variant: str, changes: dict[str, str]) -> None:
    """Fit anchors and guard of one model under its default sampler with some changes."""
    model = demur.load(name)
    sampler = sampler_with(model.traits.sampler, changes)

    def traced(prompts: list[Prompt]) -> Traces:
        return demur.trace(model, prompts, sampler=sampler, batch_size=64)

    kinds: tuple[TaskKind, ...] = ("harmless", "harmful")
    known = traced([p for kind in kinds for p in world.prompts("anchors", kind, n=ANCHORS)])
    anchors = demur.fit_anchors(known, refusal_judge("paper"))
    guard = fit_streaming_guard(
        traced(benign("guard")), traced(benign("calibration")), anchors=anchors, alpha=ALPHA
    )
    model_folder.add_fitted(organism.path(name), variant, anchors=anchors, guard=guard)


def benign(split: Split) -> list[Prompt]:
    """Harmless prompts, plain and in every wrapper."""
    return [
        prompt
        for attack in world.ATTACKS
        for prompt in world.prompts(
            split, "harmless", attack=attack, n=PLAIN if attack == "none" else WRAPPED
        )
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
