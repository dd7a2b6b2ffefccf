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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.models.batch import Batch
from demur.sampling.denoising import Decision, MaskedText, denoise, drawn, masked_text, most_likely
from demur.sampling.noise import Noise
from demur.sampling.nucleus import nucleus
from demur.sampling.passes import Passes, Sharing
from demur.sampling.pooling import Pooling
from demur.sampling.remasking import Remasking, confidence, most_confident, spread

Algorithm = Literal["origin", "maskgit_plus", "topk_margin", "entropy"]

#: Dream's name of a confidence -> ours.
_CONFIDENCE: dict[str, Remasking] = {
    "maskgit_plus": "low_confidence",
    "topk_margin": "margin",
    "entropy": "entropy",
}


@dataclass(frozen=True, kw_only=True)
class Dream(Sharing):
    """Settings of Dream's sampler (names as released, defaults as in PAPER section 3).

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
        if self.alg not in get_args(Algorithm):
            raise InputError(f"Unknown alg {self.alg!r}. Known: {', '.join(get_args(Algorithm))}.")
        if self.steps < 1 or self.gen_length < 1:
            raise InputError(
                f"steps is {self.steps} and gen_length {self.gen_length}; both must be at least 1."
            )
        if self.temperature < 0 or self.alg_temp < 0 or self.top_k < 0:
            raise InputError(
                f"temperature is {self.temperature}, alg_temp {self.alg_temp} and top_k "
                f"{self.top_k}; all must be 0 or more."
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if not 0 < self.eps < 1:
            raise InputError(f"eps is {self.eps}; it must lie between 0 and 1.")

    @property
    def new_tokens(self) -> int:
        """Most tokens a response can have."""
        return self.gen_length

    def passes(
        self,
        model: LanguageModel,
        batch: Batch,
        *,
        layers: Sequence[str],
        pooling: Pooling,
        noise: Noise,
    ) -> Passes:
        """See ``demur.sampling.denoising``.

        Raises:
            InputError: the model has no mask token, or a response template is too long.
        """
        page = masked_text(model, batch, self.gen_length)
        rule = Timed(self, page)
        return denoise(model, page, rule, layers=layers, pooling=pooling, noise=noise)


class Timed:
    """The rule: commit the share of the masked positions that the time step asks for."""

    def __init__(self, settings: Dream, page: MaskedText) -> None:
        self._settings = settings
        self._mask_id = page.mask_id
        self._times = torch.linspace(1, settings.eps, settings.steps + 1)
        self._taken = 0

    def __call__(self, logits: Tensor, waiting: Tensor, live: Tensor, noise: Noise) -> Decision:
        """See ``demur.sampling.denoising.Rule``."""
        share = self._share()
        logits = logits.float()
        block = torch.zeros_like(live)
        if self._settings.alg == "origin":
            commit = self._toss(waiting, share, noise)
            chosen = most_likely(logits, self._mask_id)
            if commit.any():
                chosen[commit[waiting]] = self._draw(logits[commit[waiting]], commit, noise)[0]
            return Decision(chosen, commit, block)
        chosen, logits = self._draw(logits, waiting, noise)
        count = (waiting.sum(1) * share.to(waiting.device)).long()
        return Decision(chosen, self._rank(logits, chosen, waiting, count, noise), block)

    def _share(self) -> Tensor:
        """1 - s / t of this step in float32, 1 at the last."""
        i = self._taken = self._taken + 1
        if i >= self._settings.steps:
            return torch.ones(())
        return 1 - self._times[i] / self._times[i - 1]

    def _toss(self, waiting: Tensor, share: Tensor, noise: Noise) -> Tensor:
        """``[K, L]`` bool, each masked position with probability ``share``."""
        heads = noise.uniform(waiting) < share.to(waiting.device)
        return torch.zeros_like(waiting).masked_scatter(waiting, heads)

    def _draw(self, logits: Tensor, where: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Tokens ``[N]`` and the logits ``[N, V]`` that they were drawn from."""
        settings = self._settings
        if settings.temperature > 0:
            logits = logits / settings.temperature
        logits = nucleus(logits, top_k=settings.top_k, top_p=settings.top_p)
        if settings.temperature == 0:
            return most_likely(logits, self._mask_id), logits
        return drawn(logits, self._mask_id, where, noise), logits

    def _rank(
        self, logits: Tensor, chosen: Tensor, waiting: Tensor, count: Tensor, noise: Noise
    ) -> Tensor:
        """``[K, L]`` bool, ``count`` positions a row by confidence or drawn by it."""
        found = confidence(
            _CONFIDENCE[self._settings.alg],
            logits,
            chosen,
            columns=waiting.nonzero()[:, 1],
            uniform=None,
        )
        if self._settings.alg_temp > 0:
            uniform = noise.uniform(waiting)
            found = found / self._settings.alg_temp - torch.log(-torch.log(uniform))
        return most_confident(spread(found, waiting), count)
