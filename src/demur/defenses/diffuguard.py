"""DiffuGuard: less greedy remasking, and a second try where a prompt looks attacked.

Li et al., DiffuGuard: How Intrinsic Safety is Lost and Found in Diffusion Large Language Models,
arXiv:2509.24296; released code ``models/jailbreakbench_llada.py``:

    1. generation remasks with annealed chance (``demur.defenses.annealing``);
    2. audit: the safety divergence of a prompt is the cosine distance between the mean response state
       at the first step and that of the un-attacked prompt;
    3. where it reaches the threshold, the first block is repaired.

Differs from the paper: the audit needs the prompt without its attack, which nobody has when serving a
model, so it takes place only with ``knows_goal``; the un-attacked prompt is then ``Prompt.goal``. The
state is averaged over the whole response, of which the first block is a part; the released code reads a
tail of masks that it puts behind the user's turn for the audit alone.

On ``organism-dlm``, 24 harmful calibration prompts a family, it takes successful attacks under random
remasking from 2, 3, 6, 0 and 4 (role play, prefix injection, refusal suppression, flip, wild) to 0, 0,
0, 0 and 4: nothing is gained against wild compositions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from demur.defenses.annealing import Annealing
from demur.defenses.defended import Defended, Outcome
from demur.defenses.generation import Generation, generate
from demur.errors import InputError
from demur.generation import batches, steps
from demur.models.base import LanguageModel
from demur.sampling import Masked, Sampler, sampler_from
from demur.sampling.fitting import in_halves
from demur.types import Prompt, Record


@dataclass(frozen=True, kw_only=True)
class DiffuGuard:
    """Settings of DiffuGuard (defaults: the released code's runs on LLaDA).

    Attributes:
        knows_goal: audit each prompt against its ``goal``, the un-attacked prompt.
        threshold: safety divergence in [0, 2] from which the first block is repaired.
        alpha: weight of chance at a block's first step.
        repair_steps: steps of the repair.
        repair_share: of the first block that is masked again.
    """

    name: ClassVar[str] = "diffuguard"
    description: ClassVar[str] = "annealed random remasking, audit and repair of the first block"
    source: ClassVar[str] = "arXiv:2509.24296"
    knows_goal: bool = False
    threshold: float = 0.1
    alpha: float = 0.3
    repair_steps: int = 8
    repair_share: float = 0.9

    def __post_init__(self) -> None:
        # Refused now rather than after the undefended generation.
        Annealing(alpha=self.alpha, repair_steps=self.repair_steps, repair_share=self.repair_share)

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        sampler: Sampler | None = None,
        seed: int = 0,
        batch_size: int = 8,
        undefended: Generation | None = None,
    ) -> Defended:
        """See ``Defense``; of the sampler it keeps lengths and steps, not the remasking rule.

        Raises:
            InputError: the sampler is not a masked one at temperature 0.
        """
        sampler = sampler or sampler_from(model.traits.sampler)
        if not isinstance(sampler, Masked) or sampler.temperature or sampler.cfg_scale:
            raise InputError(
                f"DiffuGuard generates with a masked diffusion model at temperature 0 without "
                f"guidance; {model.name} was to use {sampler}. Use --sampler masked."
            )
        plain = undefended or generate(
            model, prompts, sampler=sampler, seed=seed, batch_size=batch_size
        )
        answers = plain.answers
        began = time.perf_counter()
        away = np.zeros(len(prompts), dtype=np.float32)
        if self.knows_goal:
            away = divergence(model, prompts, sampler=sampler, batch_size=batch_size)
        repaired = (away >= self.threshold) & self.knows_goal
        audit = 2 * int(self.knows_goal)
        found: dict[int, Outcome] = {}
        for repairs in (False, True):
            places = np.flatnonzero(repaired == repairs).tolist()
            said = generate(
                model,
                [prompts[i] for i in places],
                sampler=self._generation(sampler, repairs=repairs),
                seed=seed,
                batch_size=batch_size,
            )
            for place, answer, passes in zip(places, said.answers, said.passes, strict=True):
                before = answers[place]
                found[place] = Outcome(
                    prompt=prompts[place],
                    response=answer,
                    undefended=before,
                    action="kept" if answer == before else "changed",
                    reason=self._reason(float(away[place]), repairs=repairs),
                    extra_passes=audit + int(passes - plain.passes[place]),
                )
        return Defended(
            defense=self.name,
            outcomes=tuple(found[i] for i in range(len(prompts))),
            undefended_passes=int(plain.passes.sum()),
            undefended_seconds=plain.seconds,
            seconds=time.perf_counter() - began,
        )

    def _generation(self, sampler: Masked, *, repairs: bool) -> Annealing:
        return Annealing(
            response_steps=sampler.steps,
            gen_length=sampler.gen_length,
            block_length=sampler.block_length,
            alpha=self.alpha,
            repair_steps=self.repair_steps if repairs else 0,
            repair_share=self.repair_share,
        )

    def _reason(self, away: float, *, repairs: bool) -> str:
        if not self.knows_goal:
            return "annealed"
        return f"annealed{' and repaired' * repairs}, divergence {away:.3f}"


def divergence(
    model: LanguageModel, prompts: Sequence[Prompt], *, sampler: Masked, batch_size: int
) -> NDArray[np.float32]:
    """Safety divergence of each prompt from its goal: ``[N]`` in [0, 2].

    Two forward passes a prompt.
    """
    plain = [Prompt(prompt.goal) for prompt in prompts]
    attacked, original = (
        _first_states(model, rows, sampler=sampler, batch_size=batch_size)
        for rows in (list(prompts), plain)
    )
    away = 1 - torch.cosine_similarity(attacked, original)
    return away.clamp(min=0).cpu().numpy()


def _first_states(
    model: LanguageModel, prompts: list[Prompt], *, sampler: Masked, batch_size: int
) -> torch.Tensor:
    """``[N, D]`` mean response state at the first step."""

    def run(part: Sequence[Prompt]) -> list[torch.Tensor]:
        first = next(steps(model, part, sampler=sampler, record=Record(pooling="response")))
        return list(first.phi["last"])

    found: dict[int, torch.Tensor] = {}
    for places in batches(model, prompts, sampler, batch_size=batch_size):
        found.update(zip(places, in_halves([prompts[i] for i in places], run), strict=True))
    return torch.stack([found[i] for i in range(len(prompts))])
