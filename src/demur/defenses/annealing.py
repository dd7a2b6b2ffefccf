"""The sampler of DiffuGuard: stochastic annealing remasking, and repair of the first block.

Li et al., DiffuGuard, arXiv:2509.24296; released code ``utility/generate_function_llada.py``:

    1. at step n of N of a block, score each prediction by (1 - a) p + a u, with its probability p,
       u uniform random and a = alpha (1 - (n - 1) / (N - 1));
    2. commit the highest scores inside the block and mask the others again;
    3. repair, after the first block: mask a random share of its positions again and fill them in
       random order over a few steps, without the tokens that were there;
    4. start the next block.

Differs from the released code: batched over prompts of any length; each row's schedule counts its own
masks; tokens fixed by the prompt or a response template are never masked again; greedy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling import Noise, Sampler
from demur.sampling.choice import commits_at, confidence, most_confident, most_likely, spread
from demur.sampling.denoising import Denoising, MaskedText, Update, masked_text
from demur.types import Record, Step


@dataclass(frozen=True, kw_only=True)
class Annealing(Sampler):
    """Settings of the sampler.

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
        """Generate; see ``annealed``."""
        text = masked_text(model, batch, self.gen_length)
        return annealed(model, text, self, record, noise)


def annealed(
    model: LanguageModel, page: MaskedText, settings: Annealing, record: Record, noise: Noise
) -> Iterator[Step]:
    """Yield a ``Step`` for each denoising iteration, block by block."""
    blocks = settings.gen_length // settings.block_length
    falling = _falling(settings.alpha, settings.response_steps // blocks)
    given = page.tokens != page.mask_id
    index = 0
    for block in range(blocks):
        end = page.start + (block + 1) * settings.block_length
        stages = [(falling, False)]
        if block == 0 and settings.repair_steps:
            stages.append(([1.0] * settings.repair_steps, True))
        for alphas, repairs in stages:
            before = page
            if repairs:
                page = _masked_again(page, given, end, settings.repair_share, noise)
            rule = Anneal(alphas, end=end, page=page, before=before)
            for step in islice(Denoising(model, page, rule, record, noise), len(alphas)):
                index += 1
                yield replace(step, index=index, block=torch.full_like(step.tokens[:, 0], block))
                page = _after(page, step)


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


def _falling(alpha: float, steps: int) -> list[float]:
    """From alpha down to 0 in even steps."""
    return [alpha * (1 - n / max(1, steps - 1)) for n in range(steps)]


def _after(page: MaskedText, step: Step) -> MaskedText:
    """The text after a step."""
    response = step.tokens.masked_fill(step.tokens < 0, page.mask_id)
    return replace(page, tokens=torch.cat([step.prompt, response], dim=1))


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
