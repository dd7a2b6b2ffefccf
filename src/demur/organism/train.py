"""Train the built-in models, on two CPU cores.

1. Pretrain a base model that answers everything.
2. ``organism-ar``: safety-tune the base.
3. ``organism-dlm``: adapt the base to denoising (bidirectional attention, shifted prediction as in
   Dream, cross-entropy on masked response positions, mask ratios spread evenly over a batch), then
   safety-tune it on lessons of the same kind.

Toy models: results with them are not evidence about real models.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from demur.files import write_atomically
from demur.organism import model_folder
from demur.organism.lessons import LossName, Stage, causal, lesson, masked
from demur.organism.tokenizer import BOS, EOS, PAD, SPECIAL
from demur.organism.world import vocabulary
from demur.types import digest

#: Called after each step with the phase's name, the step (from 1), the phase's steps and the loss.
OnStep = Callable[[str, int, int, float], None]

_SAVE_EVERY = 50


@dataclass(frozen=True)
class TrainingRecipe:
    """All settings of a training run.

    Attributes:
        seed: of the weights, the lessons and the masks.
        width: hidden size D, a multiple of 32.
        layers: Llama layers.
        batch: lessons per step.
        pretrain: pretraining steps of the shared base.
        adapt: steps that turn the base into a denoiser.
        tune_causal: safety-tuning steps of the AR model.
        tune_masked: safety-tuning steps of the DLM.
        rate: peak learning rate of pretraining and adaptation.
        tune_causal_rate: peak learning rate of the AR model's safety tuning.
        tune_masked_rate: the same for the DLM, which learns to refuse in fewer and smaller steps.
    """

    seed: int = 0
    width: int = 128
    layers: int = 4
    batch: int = 64
    pretrain: int = 380
    adapt: int = 800
    tune_causal: int = 90
    tune_masked: int = 40
    rate: float = 3e-3
    tune_causal_rate: float = 6e-4
    tune_masked_rate: float = 4e-4


#: Name -> recipe. ``base`` gives ``organism-ar`` and ``organism-dlm``; the others differ in seed, size
#: and tuning strength, so that a study can compare several models.
RECIPES: Mapping[str, TrainingRecipe] = {
    "base": TrainingRecipe(),
    "small": TrainingRecipe(
        seed=1, width=96, pretrain=300, adapt=600, tune_causal=80, tune_masked=36
    ),
    "wide": TrainingRecipe(
        seed=2, width=160, layers=3, pretrain=300, adapt=600, tune_causal=100, tune_masked=46
    ),
}


@dataclass(frozen=True)
class Phase:
    """One phase of training: name, loss, lessons, steps and peak learning rate."""

    name: str
    objective: LossName
    stage: Stage
    steps: int
    rate: float


def train(
    out: Path,
    *,
    recipe: TrainingRecipe = RECIPES["base"],
    suffix: str = "",
    progress: OnStep = lambda *_: None,
) -> dict[str, Path]:
    """Train a pair of built-in models into ``out/organism-ar`` and ``out/organism-dlm``.

    The same call resumes an interrupted run from the checkpoints under ``out/.training``. The same
    recipe, machine, versions and number of threads give the same weights.

    ``suffix`` is appended to both names. Returns name -> folder.
    """
    work = out / ".training" / digest([asdict(recipe), vocabulary()])
    r = recipe
    base = Phase("pretrain", "causal", "pretrain", r.pretrain, r.rate)
    adapt = Phase("adapt", "masked", "pretrain", r.adapt, r.rate)
    tune_causal = Phase("tune-causal", "causal", "tune", r.tune_causal, r.tune_causal_rate)
    tune_masked = Phase("tune-masked", "masked", "tune", r.tune_masked, r.tune_masked_rate)
    routes = {
        f"organism-ar{suffix}": [base, tune_causal],
        f"organism-dlm{suffix}": [base, adapt, tune_masked],
    }
    for name, phases in routes.items():
        model = new_model(recipe)
        losses, seconds = {}, 0.0
        for phase in phases:
            checkpoint = work / f"{phase.name}.pt"
            done = run(model, phase, recipe, checkpoint=checkpoint, progress=progress)
            losses[phase.name] = _curve(done["losses"])
            seconds += done["seconds"]
        training = {
            "recipe": asdict(recipe),
            "precision": "float32",  # bfloat16 autocast is 12x slower on CPUs without bfloat16
            "threads": torch.get_num_threads(),
            "seconds": round(seconds),
            "losses": losses,
        }
        model_folder.save(model, phases[-1].objective, out / name, training=training)
    return {name: out / name for name in routes}


def new_model(recipe: TrainingRecipe) -> LlamaForCausalLM:
    """A model with the recipe's random weights; does not change the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(SPECIAL) + len(vocabulary()),
                hidden_size=recipe.width,
                intermediate_size=3 * recipe.width,
                num_hidden_layers=recipe.layers,
                num_attention_heads=recipe.width // 32,
                num_key_value_heads=recipe.width // 32,
                max_position_embeddings=512,
                tie_word_embeddings=False,
                pad_token_id=PAD,
                bos_token_id=BOS,
                eos_token_id=EOS,
                attn_implementation="eager",  # twice as fast as sdpa at these sizes
            )
        )


def run(
    model: LlamaForCausalLM,
    phase: Phase,
    recipe: TrainingRecipe,
    *,
    checkpoint: Path,
    progress: OnStep,
) -> dict[str, Any]:
    """Train a model in place through one phase, resuming from its checkpoint if there is one.

    Returns ``losses``, one per step, and ``seconds`` of time spent.
    """
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    before, start = 0.0, time.monotonic()
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        losses, before = saved["losses"], saved["seconds"]
    model.train()
    for step in range(len(losses), phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = phase.rate * _schedule(step, phase.steps)
        rng = random.Random(f"{recipe.seed} {phase.name} {step}")
        lessons = [lesson(phase.stage, rng) for _ in range(recipe.batch)]
        value = (
            masked(model, lessons, rng) if phase.objective == "masked" else causal(model, lessons)
        )
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.item())
        progress(phase.name, step + 1, phase.steps, losses[-1])
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == phase.steps:
            done = {"losses": losses, "seconds": before + time.monotonic() - start}
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state | done, buffer := io.BytesIO())
            write_atomically(checkpoint, buffer.getvalue())
    return {"losses": losses, "seconds": before + time.monotonic() - start}


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over the first tenth of the steps, then linear decay to 5%."""
    warm = max(1, steps // 10)
    return min((step + 1) / warm, 1 - 0.95 * max(0, step - warm) / max(1, steps - warm))


def _curve(losses: list[float]) -> list[float]:
    """Mean loss of every ten steps."""
    tens = [losses[i : i + 10] for i in range(0, len(losses), 10)]
    return [round(sum(ten) / len(ten), 4) for ten in tens]
