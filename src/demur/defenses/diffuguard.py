"""DiffuGuard: less greedy remasking, and repair where a prompt looks attacked.

Li et al., DiffuGuard: How Intrinsic Safety is Lost and Found in Diffusion Large Language Models,
arXiv:2509.24296; released code ``models/jailbreakbench_llada.py`` and
``utility/generate_function_llada.py``:

    1. generate with annealed random remasking: at step n of N of a block, score each prediction by
       (1 - a) p + a u, with its probability p, u uniform random and a = alpha (1 - (n - 1) / (N - 1));
       commit the highest scores inside the block and mask the others again;
    2. audit: the safety divergence of a prompt is the cosine distance between the mean response state
       at the first step and that of the un-attacked prompt;
    3. if the divergence reaches the threshold, repair the first block when it is done: mask a random
       share of its positions again and fill them in random order over a few steps, without the tokens
       that were there.

Differs from the paper: the audit needs the prompt without its attack, which a server does not have, so
it runs only with ``knows_goal``; the un-attacked prompt is then ``Prompt.goal``. The state is averaged
over the whole response, which includes the first block; the released code appends masks to the user
turn for the audit and averages over those. Differs from the released code: batched over prompts of any
length; each row's schedule counts its own masks; tokens fixed by the prompt or a response template are
never masked again; greedy only.

On ``organism-dlm``, with 24 harmful calibration prompts per attack family under random remasking, it
lowers the number of successful attacks from 2, 3, 6, 0 and 4 (role play, prefix injection, refusal
suppression, flip, wild) to 0, 0, 0, 0 and 4: it does not help against wild compositions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demur.defenses.defended import Answers, Defended, Defense, Setup, defended
from demur.errors import InputError
from demur.generation import steps
from demur.models.base import Batch, LanguageModel
from demur.sampling import Noise, Sampler, spec
from demur.sampling.choice import commits_at, confidence, most_confident, most_likely, spread
from demur.sampling.denoising import Denoising, MaskedText, Update, masked_text
from demur.types import Prompt, Record, Step


@dataclass(frozen=True, kw_only=True)
class Annealing(Sampler):
    """Settings of the sampler of DiffuGuard.

    Attributes:
        response_steps: denoising steps for the response, divided evenly among the blocks.
        gen_length: response positions R.
        block_length: positions per block.
        alpha: weight of randomness at a block's first step, in [0, 1]; it falls to 0 at the last.
        repair_steps: steps of the repair; 0 for none.
        repair_share: share of the first block's positions that are masked again, in (0, 1].
    """

    name: ClassVar[str] = "annealing"
    response_steps: int = 32
    gen_length: int = 128
    block_length: int = 128
    alpha: float = 0.3
    repair_steps: int = 0
    repair_share: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or not 0 < self.repair_share <= 1 or self.repair_steps < 0:
            raise InputError(
                f"alpha is {self.alpha}, repair_share {self.repair_share} and repair_steps "
                f"{self.repair_steps}; give shares between 0 and 1, and 0 or more steps."
            )

    @property
    def steps(self) -> int:
        """Most steps T, including the repair."""
        return self.response_steps + self.repair_steps

    def run(
        self, model: LanguageModel, batch: Batch, record: Record, noise: Noise
    ) -> Iterator[Step]:
        """Yield a ``Step`` for each denoising iteration, block by block."""
        page = masked_text(model, batch, self.gen_length)
        blocks = self.gen_length // self.block_length
        count = self.response_steps // blocks
        falling = [self.alpha * (1 - n / max(1, count - 1)) for n in range(count)]
        given = page.tokens != page.mask_id
        index = 0
        for block in range(blocks):
            end = page.start + (block + 1) * self.block_length
            stages = [(falling, False)]
            if block == 0 and self.repair_steps:
                stages.append(([1.0] * self.repair_steps, True))
            for alphas, repairs in stages:
                before = page
                if repairs:
                    page = _masked_again(page, given, end, self.repair_share, noise)
                rule = Anneal(alphas, end=end, page=page, before=before)
                for step in islice(Denoising(model, page, rule, record, noise), len(alphas)):
                    index += 1
                    number = torch.full_like(step.tokens[:, 0], block)
                    yield replace(step, index=index, block=number)
                    response = step.tokens.masked_fill(step.tokens < 0, page.mask_id)
                    page = replace(page, tokens=torch.cat([step.prompt, response], dim=1))


class Anneal:
    """The rule of one stage: blend confidence with randomness, commit each row's share."""

    def __init__(
        self, alphas: Sequence[float], *, end: int, page: MaskedText, before: MaskedText
    ) -> None:
        """
        Args:
            alphas: weight of randomness at each step of the stage.
            end: first column after the block.
            page: the text at the start of the stage.
            before: earlier text, whose tokens are forbidden where ``page`` has masks.
        """
        self._alphas, self._end, self._mask_id = alphas, end, page.mask_id
        self._masks = (page.tokens[:, :end] == page.mask_id).sum(1)
        self._forbidden = before.tokens
        self._taken = 0

    def __call__(
        self, x: Tensor, masked: Tensor, logits: Tensor, live: Tensor, noise: Noise
    ) -> Update:
        """See ``demur.sampling.denoising.Rule``."""
        # Where there was no token before, this forbids the mask token, which is never chosen anyway.
        logits = logits.scatter(1, self._forbidden[live][masked][:, None], -torch.inf)
        chosen = most_likely(logits, self._mask_id)
        sure = confidence("low_confidence", logits.float(), chosen, masked, noise)
        alpha = self._alphas[self._taken]
        score = spread((1 - alpha) * sure.double() + alpha * noise.uniform(masked), masked)
        score[:, self._end :] = -torch.inf
        masks = self._masks[live]
        share = commits_at(masks, torch.full_like(masks, self._taken), len(self._alphas))
        self._taken += 1
        draft = x.masked_scatter(masked, chosen)
        tokens = torch.where(most_confident(score, share), draft, x)
        return Update(tokens, draft, torch.zeros_like(live))


def _masked_again(
    page: MaskedText, given: Tensor, end: int, share: float, noise: Noise
) -> MaskedText:
    """The text with a share of what was generated before column ``end`` masked again."""
    eligible = ~given & (page.tokens != page.mask_id)
    eligible[:, end:] = False
    drawn = noise.uniform(eligible)
    score = torch.full(eligible.shape, -torch.inf, dtype=drawn.dtype, device=drawn.device)
    chosen = most_confident(score.masked_scatter(eligible, drawn), (eligible.sum(1) * share).long())
    return replace(page, tokens=page.tokens.masked_fill(chosen, page.mask_id))


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
        prompts = [trace.prompt for trace in undefended.traces]
        began = time.perf_counter()
        away = np.zeros(len(prompts), dtype=np.float32)
        if self.knows_goal:
            away = divergence(setup, prompts)
        repaired = (away >= self.threshold) & self.knows_goal
        responses, passes = [""] * len(prompts), np.zeros(len(prompts), dtype=np.int64)
        for repairs in (False, True):
            places = np.flatnonzero(repaired == repairs).tolist()
            sampler = self._annealing(setup.sampler, repairs=repairs)
            said = setup.answer([prompts[i] for i in places], sampler=sampler)
            passes[places] = said.passes
            for place, answer in zip(places, said.texts, strict=True):
                responses[place] = answer
        reasons = ["annealed"] * len(prompts)
        if self.knows_goal:
            reasons = [
                f"annealed{' and repaired' * bool(mended)}, divergence {distance:.3f}"
                for mended, distance in zip(repaired, away, strict=True)
            ]
        return defended(
            self.name,
            undefended,
            responses,
            reasons,
            extra_passes=2 * int(self.knows_goal) + passes - undefended.passes,
            seconds=time.perf_counter() - began,
        )

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
    record = Record(pooling="response")

    def run(part: Sequence[Prompt]) -> list[torch.Tensor]:
        stream = steps(setup.model, part, sampler=setup.sampler, record=record)
        return list(next(stream).phi["last"])

    return torch.stack(replace(setup, record=record).batched(prompts, run, sampler=setup.sampler))
