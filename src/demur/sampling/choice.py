"""What a sampler chooses: random numbers, tokens, and the positions to commit.

Each row has a generator of its own, so a row's numbers never depend on which rows share its batch.
Numbers are drawn on the CPU and are the same on every device.

Tokens are drawn by an exponential race: candidate i wins with probability proportional to its weight.
First groups of about sqrt(V) neighbouring tokens race, then the members of the winning group. This is
exactly the categorical distribution. It takes 2 sqrt(V) random numbers instead of V (2 x 356 for
LLaDA's 126,464 tokens), and a rounding error of the logits rarely changes the token drawn; looking up
one number in cumulative probabilities would be more fragile.

Each remasking rule turns logits into a confidence. The most confident positions are committed, the rest
are masked again. Ties go to the leftmost position.

- ``low_confidence``: probability of the chosen token (LLaDA ``generate.py``; the paper's default).
- ``random``: a uniform number (LLaDA ``generate.py``).
- ``entropy``: minus the entropy of the distribution (Dream ``generation_utils.py``).
- ``margin``: difference of the two largest probabilities (Dream ``topk_margin``).
- ``left_to_right``: the leftmost first, autoregressive order (arXiv:2602.02600, table 2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

Remasking = Literal["low_confidence", "random", "entropy", "margin", "left_to_right"]


class Noise(Protocol):
    """Source of a sampler's random numbers."""

    def uniform(self, where: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) for the N true entries of ``where`` ``[B, L]``, row by row.

        Returns ``[N]`` float64 on ``where``'s device.
        """

    def choose(self, logits: Tensor, where: Tensor) -> Tensor:
        """Draw an index from softmax(logits) for each of ``[N, V]`` logits, one for each true entry
        of ``where`` ``[B, L]``, row by row.

        Returns ``[N]`` int64 on the logits' device.
        """

    def integers(self, count: int, high: int) -> Tensor:
        """``[B, count]`` int64, uniform from 0 to ``high`` - 1, row by row."""

    def keep(self, rows: Tensor) -> Noise:
        """The noise of some rows only (``[K]`` int64 indices)."""

    def join(self, others: Noise) -> Noise:
        """The noise of these rows followed by that of others."""


def row_seed(seed: int, key: str) -> int:
    """Seed of one row in [0, 2**63), from the run's seed and the row's key."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") >> 1


class RowNoise:
    """One generator per row."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = list(generators)

    @classmethod
    def seeded(cls, seeds: Sequence[int]) -> RowNoise:
        """One generator for each seed (0 to 2**63 - 1)."""
        return cls([torch.Generator().manual_seed(seed) for seed in seeds])

    @classmethod
    def of(cls, seed: int, keys: Sequence[str]) -> RowNoise:
        """One generator for each key, such as a prompt's id, of a run with this seed."""
        return cls.seeded([row_seed(seed, key) for key in keys])

    def uniform(self, where: Tensor) -> Tensor:
        return self._numbers(where, 1).to(where.device)[:, 0]

    def choose(self, logits: Tensor, where: Tensor) -> Tensor:
        vocabulary = logits.shape[1]
        side = math.isqrt(vocabulary - 1) + 1
        weights = pad(logits.float().softmax(-1), (0, side * side - vocabulary))
        weights = weights.view(-1, side, side)
        waits = -torch.log(self._numbers(where, 2 * side)).to(logits.device)
        group = (weights.sum(-1) / waits[:, :side]).argmax(-1)
        members = weights[torch.arange(len(group), device=group.device), group]
        return group * side + (members / waits[:, side:]).argmax(-1)

    def integers(self, count: int, high: int) -> Tensor:
        drawn = [torch.randint(high, (count,), generator=g) for g in self._generators]
        return torch.stack(drawn)

    def keep(self, rows: Tensor) -> RowNoise:
        return RowNoise([self._generators[i] for i in rows.tolist()])

    def join(self, others: Noise) -> RowNoise:
        assert isinstance(others, RowNoise)
        return RowNoise([*self._generators, *others._generators])

    def _numbers(self, where: Tensor, width: int) -> Tensor:
        """``[N, width]`` float64 uniform numbers on the CPU."""
        drawn = [
            torch.rand((count, width), generator=generator, dtype=torch.float64)
            for count, generator in zip(where.sum(1).tolist(), self._generators, strict=True)
        ]
        return torch.cat(drawn)


def heated(logits: Tensor, temperature: float) -> Tensor:
    """Logits ``[..., V]`` divided by a temperature above 0.

    Below 0.01 the quotient could overflow, so the largest logit is taken off first, which changes no
    probability: towards 0 all mass goes to the most likely token.
    """
    if temperature >= 0.01:
        return logits / temperature
    below = logits.float() - logits.float().amax(-1, keepdim=True)
    return below / max(temperature, 1e-30)


def nucleus(logits: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits ``[N, V]`` with -inf outside the ``top_p`` nucleus, then outside the ``top_k``.

    The nucleus is taken from the probabilities of all tokens, as in Dream's ``sample_tokens``.

    Args:
        logits: already divided by the temperature.
        top_k: number of most likely tokens to keep; 0 keeps all. Ties with the last one stay.
        top_p: probability mass to keep, in (0, 1]; the most likely token always stays.
    """
    if top_p < 1:
        ordered, order = logits.sort(descending=False)
        outside = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        outside[..., -1] = False
        logits = logits.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits


def most_likely(logits: Tensor, mask_id: int) -> Tensor:
    """Most likely token of each row ``[N]``, never the mask token; ties go to the lowest id."""
    with _without(logits, mask_id):
        return logits.argmax(-1)


def drawn(logits: Tensor, mask_id: int, where: Tensor, noise: Noise) -> Tensor:
    """A token drawn from softmax of each row ``[N]``, never the mask token.

    ``logits`` ``[N, V]`` belong to the true entries of ``where`` ``[K, L]``.
    """
    with _without(logits, mask_id):
        return noise.choose(logits, where)


@contextmanager
def _without(logits: Tensor, token: int) -> Iterator[None]:
    """Exclude a token for a while. Copying the logits would take longer than the choice."""
    held = logits[:, token].clone()
    logits[:, token] = -torch.inf
    yield
    logits[:, token] = held


def confidence(
    rule: Remasking, logits: Tensor, chosen: Tensor, where: Tensor, noise: Noise
) -> Tensor:
    """Confidence of each masked position; the highest are committed first.

    Args:
        rule: see the module's list.
        logits: ``[N, V]``, in the dtype in which to compute the confidence.
        chosen: ``[N]`` predicted tokens.
        where: ``[B, L]`` bool, the N positions, row by row.
        noise: random numbers of the rows, for ``random``.

    Returns:
        ``[N]`` float32 or float64.
    """
    if rule == "left_to_right":
        return -where.nonzero()[:, 1].double()
    if rule == "random":
        return noise.uniform(where)
    if rule == "entropy":
        disorder: Tensor = torch.special.entr(logits.softmax(-1)).sum(-1)
        return -disorder.float()
    if rule == "margin":
        top = logits.softmax(-1).topk(2, dim=-1).values
        return (top[:, 0] - top[:, 1]).float()
    # Rounded to the logits' dtype like upstream's softmax, so ties are the same.
    return logits.softmax(-1).gather(1, chosen[:, None])[:, 0].float()


def spread(score: Tensor, where: Tensor) -> Tensor:
    """Scores ``[N]`` at the true entries of ``where`` ``[B, L]``, row by row, and -inf elsewhere."""
    nothing = torch.full(where.shape, -torch.inf, dtype=score.dtype, device=score.device)
    return nothing.masked_scatter(where, score)


def commits_at(masked: Tensor, step: Tensor, steps: int) -> Tensor:
    """How many positions a step commits; arguments and result are ``[B]``.

    The positions ``masked`` at the block's beginning are spread evenly over its ``steps``, the
    remainder first; ``step`` counts from 0. Source: LLaDA ``generate.py``,
    ``get_num_transfer_tokens`` (linear noise schedule).
    """
    return masked // steps + (step < masked % steps).long()


def most_confident(score: Tensor, count: Tensor) -> Tensor:
    """The ``count`` highest entries of each row.

    Args:
        score: ``[B, L]``, -inf where nothing may be committed.
        count: ``[B]`` how many to take.

    Returns:
        ``[B, L]`` bool, never true where the score is -inf.
    """
    order = score.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(score.shape[1], device=score.device).expand_as(order)
    )
    return (rank < count[:, None]) & torch.isfinite(score)
