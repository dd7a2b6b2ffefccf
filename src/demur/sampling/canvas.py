"""Uniform diffusion on a canvas, with renoising: accepted tokens can be taken back.

DiffusionGemma, transformers ``DiffusionGemmaGenerationMixin.generate``; acceptance by entropy,
arXiv:2505.24857:

    1. a canvas after the prompt starts as uniform noise; 2. each step predicts every position, at a
    temperature that falls from step to step, given the logits
       of the previous step;
    3. the positions of least entropy are accepted while their sum, without the largest, stays within a
       bound; all others become noise again, including those accepted before;
    4. the canvas is done when the most likely tokens have stayed the same and their mean entropy is
       low, or after the last step; its text is then the most likely tokens;
    5. generation stops after a canvas with an end token.

Differs from upstream: each row has its own random numbers, and finished rows leave the batch, so a
row's result does not depend on the others; tokens after an end token are kept, not padded. A step's
``tokens`` are those accepted at that step, its ``draft`` the most likely tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Categorical

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.models.diffusion_gemma import CanvasContext
from demur.sampling.choice import Noise
from demur.sampling.pooling import (
    FinishedMeans,
    find_pooling,
    positions_mask,
    require_own_positions,
)
from demur.sampling.sampler import InferenceStream, Sampler, require
from demur.types import Record, Step


@dataclass(frozen=True, kw_only=True)
class Canvas(Sampler):
    """Settings of the canvas sampler (defaults: transformers' for DiffusionGemma).

    Attributes:
        gen_length: response positions R, one or more canvases.
        canvas_length: positions of a canvas.
        canvas_steps: maximum denoising steps of a canvas.
        entropy_bound: in nats; a higher bound accepts more positions per step.
        t_max: temperature at the first step.
        t_min: temperature that it falls towards.
        stability: steps for which the most likely tokens must stay the same.
        confidence: in nats; a stable canvas is done when its mean entropy is below this.
    """

    name: ClassVar[str] = "canvas"
    gen_length: int = 256
    canvas_length: int = 256
    canvas_steps: int = 48
    entropy_bound: float = 0.1
    t_max: float = 0.8
    t_min: float = 0.4
    stability: int = 1
    confidence: float = 0.005

    def __post_init__(self) -> None:
        require(self, "at least 1", "gen_length", "canvas_length", "canvas_steps")
        require(self, "0 or more", "stability")
        require(self, "above 0", "t_min", "entropy_bound", "confidence")
        if self.gen_length % self.canvas_length:
            raise InputError(
                f"canvas_length {self.canvas_length} does not divide gen_length {self.gen_length}. "
                "Choose a multiple of the canvas."
            )
        if self.t_max <= self.t_min:
            raise InputError(f"t_min is {self.t_min} and t_max {self.t_max}; t_max must be higher.")

    @property
    def steps(self) -> int:
        """Most steps a generation takes; a canvas that settles takes fewer."""
        return self.gen_length // self.canvas_length * self.canvas_steps

    @property
    def takes_back(self) -> bool:
        return True

    def run(
        self, model: LanguageModel, batch: Batch, record: Record, noise: Noise
    ) -> Iterator[Step]:
        """Generate; see ``canvas``."""
        return InferenceStream(canvas(model, batch, self, record, noise))


def canvas(
    model: LanguageModel, batch: Batch, settings: Canvas, record: Record, noise: Noise
) -> Iterator[Step]:
    """Yield a ``Step`` for each denoising iteration.

    A canvas that has not begun is -1 in tokens and drafts, and is not pooled.

    Raises:
        InputError: the model does not denoise a canvas, a response template is too long, or a
            pooling that takes the state before each position.
    """
    pooling, layers = find_pooling(record.pooling), record.layers
    require_own_positions(pooling)
    written, fixed = CanvasContext(model, batch), batch.fixed(settings.gen_length)
    tokens, draft = torch.full_like(fixed, -1), torch.full_like(fixed, -1)
    rows = torch.arange(len(fixed), device=fixed.device)
    means, index = FinishedMeans(len(fixed)), 0
    for start in range(0, settings.gen_length, settings.canvas_length):
        place = slice(start, start + settings.canvas_length)
        block = torch.full_like(fixed[:, 0], start // settings.canvas_length)
        asked = (model, written, settings, fixed[rows, place], noise.keep(rows), layers)
        for refined in refine(*asked):
            index, live = index + 1, rows[refined.rows]
            running = torch.zeros_like(fixed[:, 0], dtype=torch.bool).index_fill(0, live, True)
            draft, tokens = draft.clone(), tokens.clone()
            draft[live, place], tokens[live, place] = refined.draft, refined.tokens
            counted = positions_mask(
                pooling,
                committed=refined.tokens >= 0,
                draft=refined.draft,
                end_ids=model.traits.end_ids,
            )
            phi = means.mean(live, refined.states, counted)
            means.finish(live, refined.states, counted & refined.done[:, None])
            yield Step(index, tokens, draft, phi, running, batch.ids, block)
        ended = torch.isin(tokens[rows, place], rows.new_tensor(model.traits.end_ids)).any(1)
        if ended.all() or place.stop == settings.gen_length:
            return
        written, rows = written.only((~ended).nonzero()[:, 0]), rows[~ended]
        written.append(tokens[rows, place])


@dataclass(frozen=True)
class Refined:
    """One denoising step of a canvas.

    Attributes:
        rows: ``[K]`` rows that it belongs to.
        draft: ``[K, C]`` most likely tokens.
        tokens: ``[K, C]`` accepted tokens, -1 elsewhere; the draft where the canvas is done.
        states: layer -> ``[K, C, D]``.
        done: ``[K]`` bool, rows whose last step it was.
    """

    rows: Tensor
    draft: Tensor
    tokens: Tensor
    states: dict[str, Tensor]
    done: Tensor


def refine(
    model: LanguageModel,
    written: CanvasContext,
    settings: Canvas,
    fixed: Tensor,
    noise: Noise,
    layers: Sequence[str],
) -> Iterator[Refined]:
    """Denoise one canvas; tokens of ``fixed`` ``[B, C]`` stay where they are not -1."""
    vocabulary = model.net.get_output_embeddings().weight.shape[0]
    rows = torch.arange(len(fixed), device=fixed.device)
    x, conditioning = hold(noise.integers(fixed.shape[1], vocabulary).to(rows.device), fixed), None
    seen = torch.full((settings.stability, *fixed.shape), -1, device=rows.device)
    for left in range(settings.canvas_steps, 0, -1):
        states = written.read(x, conditioning, ("last", *layers))
        logits = model.logits(states["last"]) / temperature(left, settings, rows.device)
        everywhere = torch.ones_like(x, dtype=torch.bool)
        drawn = noise.choose(logits.flatten(0, 1), everywhere).view_as(x)
        fresh = noise.integers(fixed.shape[1], vocabulary).to(rows.device)
        draft = hold(logits.argmax(-1), fixed)
        entropy: Tensor = Categorical(logits=logits).entropy()  # type: ignore[no-untyped-call]
        accepted = least_uncertain(entropy.masked_fill(fixed >= 0, 0), settings.entropy_bound)
        done = (seen == draft).all(-1).all(0) & (entropy.mean(-1) < settings.confidence)
        done |= left == 1
        tokens = torch.where(accepted, hold(drawn, fixed), -1)
        tokens = torch.where(done[:, None], draft, tokens)
        own = {layer: states[layer] for layer in layers}
        yield Refined(rows, draft, tokens, own, done)
        if done.all():
            return
        x, conditioning = hold(torch.where(accepted, drawn, fresh), fixed), logits
        seen = torch.cat([seen, draft[None]])[1:]
        if done.any():
            stay = (~done).nonzero()[:, 0]
            written, noise, seen = written.only(stay), noise.keep(stay), seen[:, stay]
            rows, x, conditioning, fixed = rows[stay], x[stay], conditioning[stay], fixed[stay]


def temperature(left: int, settings: Canvas, device: torch.device) -> Tensor:
    """Float32 temperature with ``left`` steps left, including this one."""
    share = torch.tensor(left, device=device) / settings.canvas_steps
    return settings.t_min + (settings.t_max - settings.t_min) * share


def least_uncertain(entropy: Tensor, bound: float) -> Tensor:
    """Positions ``[B, C]`` of least entropy whose sum, without the largest, is within the bound."""
    ordered, order = entropy.sort(dim=-1)
    within = ordered.cumsum(-1) - ordered <= bound
    return torch.zeros_like(within).scatter(-1, order, within)


def hold(tokens: Tensor, fixed: Tensor) -> Tensor:
    """Tokens with the fixed ones in place."""
    return torch.where(fixed >= 0, fixed, tokens)
