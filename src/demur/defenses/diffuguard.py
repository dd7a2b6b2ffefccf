"""DiffuGuard: less greedy remasking, and repair where a prompt looks attacked.

Li et al., DiffuGuard: How Intrinsic Safety is Lost and Found in Diffusion Large Language Models,
arXiv:2509.24296; released code ``models/jailbreakbench_llada.py``:

    1. generate with annealed random remasking (``demur.defenses.annealing``);
    2. audit: the safety divergence of a prompt is the cosine distance between the mean response state
       at the first step and that of the un-attacked prompt;
    3. repair the first block if the divergence reaches the threshold.

Differs from the paper: the audit needs the prompt without its attack, which a server does not have, so
it runs only with ``knows_goal``; the un-attacked prompt is then ``Prompt.goal``. The state is averaged
over the whole response, which includes the first block; the released code appends masks to the user
turn for the audit and averages over those.

On ``organism-dlm``, with 24 harmful calibration prompts per attack family under random remasking, it
lowers the number of successful attacks from 2, 3, 6, 0 and 4 (role play, prefix injection, refusal
suppression, flip, wild) to 0, 0, 0, 0 and 4: it does not help against wild compositions.
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
from demur.defenses.defended import Answers, Defended, Defense, Outcome, Setup, defended
from demur.errors import InputError
from demur.generation import batches, steps
from demur.sampling import Sampler, spec
from demur.sampling.fitting import in_halves
from demur.types import Prompt, Record


@dataclass(frozen=True, kw_only=True)
class DiffuGuard(Defense):
    """Settings of DiffuGuard (defaults: the released code's runs on LLaDA).

    Attributes:
        knows_goal: audit each prompt against its ``goal``, the un-attacked prompt.
        threshold: safety divergence in [0, 2] from which the first block is repaired.
        alpha: weight of randomness at a block's first step.
        repair_steps: steps of the repair.
        repair_share: share of the first block that is masked again.
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
        # Check the settings now, not after the undefended generation.
        Annealing(alpha=self.alpha, repair_steps=self.repair_steps, repair_share=self.repair_share)

    def defend(self, setup: Setup, undefended: Answers) -> Defended:
        """Generate again with annealed remasking, and repair where the audit says so."""
        before = undefended.texts
        prompts = [trace.prompt for trace in undefended.traces]
        began = time.perf_counter()
        away = np.zeros(len(prompts), dtype=np.float32)
        if self.knows_goal:
            away = divergence(setup, prompts)
        repaired = (away >= self.threshold) & self.knows_goal
        audit = 2 * int(self.knows_goal)
        found: dict[int, Outcome] = {}
        for repairs in (False, True):
            places = np.flatnonzero(repaired == repairs).tolist()
            sampler = self._annealing(setup.sampler, repairs=repairs)
            said = setup.answer([prompts[i] for i in places], sampler=sampler)
            for place, answer, passes in zip(places, said.texts, said.passes, strict=True):
                found[place] = Outcome(
                    prompt=prompts[place],
                    response=answer,
                    undefended=before[place],
                    action="kept" if answer == before[place] else "changed",
                    reason=self._reason(float(away[place]), repairs=repairs),
                    extra_passes=audit + int(passes - undefended.passes[place]),
                )
        outcomes = [found[i] for i in range(len(prompts))]
        return defended(self.name, undefended, outcomes, seconds=time.perf_counter() - began)

    def prepare(self, setup: Setup) -> Setup:
        """Check the sampler. DiffuGuard keeps its lengths and steps, but not its remasking rule.

        Raises:
            InputError: it has no remasking rule, or is not greedy.
        """
        settings = spec(setup.sampler)
        greedy = settings.get("temperature") == settings.get("cfg_scale") == 0
        if "remasking" not in settings or not greedy:
            raise InputError(
                "DiffuGuard needs a masked diffusion model at temperature 0 without guidance; "
                f"{setup.model.name} uses {setup.sampler}. Use --sampler masked."
            )
        return setup

    def _annealing(self, sampler: Sampler, *, repairs: bool) -> Annealing:
        settings = spec(sampler)
        return Annealing(
            response_steps=sampler.steps,
            gen_length=settings["gen_length"],
            block_length=settings["block_length"],
            alpha=self.alpha,
            repair_steps=self.repair_steps if repairs else 0,
            repair_share=self.repair_share,
        )

    def _reason(self, away: float, *, repairs: bool) -> str:
        if not self.knows_goal:
            return "annealed"
        return f"annealed{' and repaired' * repairs}, divergence {away:.3f}"


def divergence(setup: Setup, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Safety divergence of each prompt from its goal: ``[N]`` in [0, 2].

    Two forward passes per prompt.
    """
    goals = [Prompt(prompt.goal, turns=prompt.turns) for prompt in prompts]
    attacked, original = (_first_states(setup, rows) for rows in (list(prompts), goals))
    away = 1 - torch.cosine_similarity(attacked, original)
    return away.clamp(min=0).cpu().numpy()


def _first_states(setup: Setup, prompts: list[Prompt]) -> torch.Tensor:
    """``[N, D]`` mean response state at the first step."""
    model, sampler, record = setup.model, setup.sampler, Record(pooling="response")

    def run(part: Sequence[Prompt]) -> list[torch.Tensor]:
        return list(next(steps(model, part, sampler=sampler, record=record)).phi["last"])

    found: dict[int, torch.Tensor] = {}
    for places in batches(model, prompts, sampler, record, batch_size=setup.batch_size):
        found.update(zip(places, in_halves([prompts[i] for i in places], run), strict=True))
    return torch.stack([found[i] for i in range(len(prompts))])
