"""The folder of a built-in model: config, weights, tokenizer and ``manifest.json``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from demur.files import write_atomically
from demur.organism import tokenizer, world
from demur.organism.lessons import RESPONSE, LossName

#: The ``demur`` entry of config.json, which ``demur.load`` reads: family, pooling, sampler settings.
CARDS: dict[LossName, dict[str, Any]] = {
    "causal": {"family": "causal", "sampler": {"name": "autoregressive", "steps": RESPONSE}},
    "masked": {
        "family": "masked",
        "shift": True,
        "mask_token_id": tokenizer.MASK,
        # Over all 64 positions, sigma is near 0 on harmful topics for every response (docs/log.md).
        "pooling": "generated",
        "sampler": {
            "name": "masked",
            "steps": RESPONSE // 2,
            "gen_length": RESPONSE,
            "block_length": RESPONSE,
            "remasking": "low_confidence",
        },
    },
}


def save(
    model: LlamaForCausalLM, objective: LossName, folder: Path, *, training: Mapping[str, Any]
) -> None:
    """Write a model's folder atomically, with weights in float16, and replace an older one.

    ``training`` is plain data for the manifest: recipe, losses, seconds.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.config.demur = CARDS[objective]
    model.half().config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(str(part))
    model.generation_config.save_pretrained(str(part))
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    (part / "model.safetensors").chmod(0o644)
    tokenizer.save(part)
    manifest = {
        "name": folder.name,
        "note": "A toy model of a synthetic world: not evidence about real models.",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "sha256": _sha256(part / "model.safetensors"),
        "world": {
            "words": len(world.vocabulary()),
            "pairs": {kind: dict(splits) for kind, splits in world.PAIRS.items()},
            "attacks": list(world.ATTACKS),
            "held_out_of_safety_tuning": list(world.HELD_OUT),
        },
        "training": dict(training),
        "versions": {
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "figures": {},
    }
    _write_json(part / "manifest.json", manifest)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def read(folder: Path) -> dict[str, Any]:
    """Read the manifest of a built-in model."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return manifest


def record(folder: Path, figures: Mapping[str, Any]) -> None:
    """Replace the measured figures (plain data) in the manifest."""
    _write_json(folder / "manifest.json", read(folder) | {"figures": dict(figures)})


class Saved(Protocol):
    """What can be written to a file, such as anchors or a guard."""

    def save(self, path: Path) -> Path:
        """Write it."""


def add_fitted(folder: Path, variant: str, **fitted: Saved) -> None:
    """Write anchors and guard into a model's folder, and their SHA-256 into its manifest.

    Args:
        folder: of the model.
        variant: one of ``demur.organism.VARIANTS``.
        fitted: ``anchors`` and ``guard``.
    """
    (folder / "fitted").mkdir(exist_ok=True)
    sums = dict(read(folder).get("fitted", {}))
    for kind, value in fitted.items():
        name = "-".join(filter(None, (kind, variant)))
        path = value.save(folder / "fitted" / f"{name}.safetensors")
        path.chmod(0o644)
        sums[path.name] = _sha256(path)
    _write_json(folder / "manifest.json", read(folder) | {"fitted": sums})


def intact(folder: Path) -> bool:
    """Whether the weights, the anchors and the guards match the manifest's SHA-256."""
    manifest = read(folder)
    sums = {f"fitted/{name}": each for name, each in manifest.get("fitted", {}).items()}
    sums["model.safetensors"] = manifest["sha256"]
    return all(_sha256(folder / name) == each for name, each in sums.items())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())
