"""Dream's masked diffusion sampling.

Ye et al., Dream 7B: Diffusion Large Language Models, arXiv:2508.15487; ``_sample`` of the released
``generation_utils.py``:

    1. the whole response is masked; time runs from 1 to ``eps`` in equal steps;
    2. each step from t to s predicts every masked position;
    3. ``origin`` commits each with probability 1 - s / t; the other rules commit the share 1 - s / t
       (rounded down) of the masked positions, most confident first, or drawn by confidence when
       ``alg_temp`` is above 0;
    4. the last step commits what is left.

Differs from the released code: a row counts its own masks (there the batch's mean, so that a prompt's
neighbours change its result); the entropy has no 1e-10 inside its logarithm; confidences are always
float32; drawing by confidence happens in the log domain and never runs out of probability. Where
``origin`` commits nothing, the draft shows the most likely token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from demur.models.base import Batch, LanguageModel
from demur.sampling.choice import (
    Noise,
    Remasking,
    confidence,
    drawn,
    heated,
    most_confident,
    most_likely,
    nucleus,
    spread,
)
from demur.sampling.denoising import Denoising, MaskedText, Update, masked_text
from demur.sampling.sampler import Sampler, require, require_known
from demur.types import Record

Algorithm = Literal["origin", "maskgit_plus", "topk_margin", "entropy"]

#: Dream's name of a confidence -> ours.
_CONFIDENCE: dict[str, Remasking] = {
    "maskgit_plus": "low_confidence",
    "topk_margin": "margin",
    "entropy": "entropy",
}


@dataclass(frozen=True, kw_only=True)
class Dream(Sampler):
    """Settings of Dream's sampler (names as released, defaults as in docs/paper.md).

    Attributes:
        steps: denoising steps, T.
        gen_length: response positions R.
        alg: which positions are committed; ``maskgit_plus`` is low-confidence remasking.
        alg_temp: 0 commits the most confident ones, above 0 they are drawn.
        temperature: of the token; 0 takes the most likely one.
        top_p: nucleus to draw tokens from, in (0, 1].
        top_k: draw from the most likely k tokens of the nucleus only; 0 is off.
        eps: where time ends, in (0, 1).
    """

    name: ClassVar[str] = "dream"
    steps: int = 32
    gen_length: int = 128
    alg: Algorithm = "maskgit_plus"
    alg_temp: float = 0.0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        require_known(self, "alg", get_args(Algorithm))
        require(self, "at least 1", "steps", "gen_length")
        require(self, "0 or more", "temperature", "alg_temp", "top_k")
        require(self, "above 0 and at most 1", "top_p")
        require(self, "between 0 and 1", "eps")

    def run(self, model: LanguageModel, batch: Batch, record: Record, noise: Noise) -> Denoising:
        """Generate; see ``TimeStep`` for the step.

        Raises:
            InputError: the model has no mask token, or a response template is too long.
        """
        text = masked_text(model, batch, self.gen_length)
        return Denoising(model, text, TimeStep(self, text), record, noise)


@final
class TimeStep:
    """Dream's step from time t to s: commit the share 1 - s / t of the masked positions."""

    def __init__(self, settings: Dream, text: MaskedText) -> None:
        self._settings, self._mask_id, self._taken = settings, text.mask_id, 0
        self._times = torch.linspace(1, settings.eps, settings.steps + 1)

    def __call__(
        self, x: Tensor, masked: Tensor, logits: Tensor, live: Tensor, noise: Noise
    ) -> Update:
        """See ``demur.sampling.denoising.Rule``."""
        # Predict: ``Denoising`` reads x and gives the logits of every masked position.
        s, logits = self._settings, logits.float()
        share = self._share().to(x.device)
        if s.alg == "origin":
            # Toss a coin for each position, and draw tokens only where it is committed.
            heads = noise.uniform(masked) < share
            commit = torch.zeros_like(masked).masked_scatter(masked, heads)
            tokens = most_likely(logits, self._mask_id)
            if heads.any():
                tokens[heads] = self._draw(logits[heads], commit, noise)[0]
        else:
            # Choose a token for every masked position and commit the most confident.
            tokens, logits = self._draw(logits, masked, noise)
            score = confidence(_CONFIDENCE[s.alg], logits, tokens, masked, noise)
            if s.alg_temp > 0:  # or draw positions by confidence: Gumbel noise, then the largest
                score = heated(score, s.alg_temp) - torch.log(-torch.log(noise.uniform(masked)))
            commit = most_confident(spread(score, masked), (masked.sum(1) * share).long())
        draft = x.masked_scatter(masked, tokens)
        return Update(torch.where(commit, draft, x), draft, torch.zeros_like(live))

    def _share(self) -> Tensor:
        """1 - s / t of this step in float32; 1 at the last step."""
        i = self._taken = self._taken + 1
        if i >= self._settings.steps:
            return torch.ones(())
        return 1 - self._times[i] / self._times[i - 1]

    def _draw(self, logits: Tensor, where: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Tokens ``[N]`` and the logits ``[N, V]`` that they were drawn from."""
        s = self._settings
        if s.temperature > 0:
            logits = heated(logits, s.temperature)
        logits = nucleus(logits, top_k=s.top_k, top_p=s.top_p)
        if s.temperature == 0:
            return most_likely(logits, self._mask_id), logits
        return drawn(logits, self._mask_id, where, noise), logits
