"""Autoregressive sampling with a KV cache, one token a step.

Greedy tokens equal ``transformers`` ``generate``. Differs from the paper's released loop: cached,
batched, and a row that has ended leaves the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.models.batch import Batch
from demur.sampling.noise import Noise
from demur.sampling.nucleus import nucleus
from demur.sampling.pooling import Pooling, RunningMeans
from demur.types import Step


@dataclass(frozen=True, kw_only=True)
class Autoregressive:
    """Settings of the autoregressive sampler.

    Attributes:
        steps: most tokens to generate, T.
        temperature: 0 is greedy.
        top_p: nucleus of the probability mass to sample from, in (0, 1].
    """

    name: ClassVar[str] = "autoregressive"
    steps: int = 32
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; it must be at least 1.")
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; it must be 0 or more.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")

    @property
    def new_tokens(self) -> int:
        """Most tokens a response can have."""
        return self.steps

    def run(
        self,
        model: LanguageModel,
        batch: Batch,
        *,
        layers: Sequence[str],
        pooling: Pooling,
        noise: Noise,
    ) -> Iterator[Step]:
        """Generate; see ``autoregressive``."""
        return autoregressive(model, batch, self, layers=layers, pooling=pooling, noise=noise)


@torch.inference_mode()
def autoregressive(
    model: LanguageModel,
    batch: Batch,
    settings: Autoregressive,
    *,
    layers: Sequence[str],
    pooling: Pooling,
    noise: Noise,
) -> Iterator[Step]:
    """Yield a ``Step`` for each token; stop iterating to stop generating.

    A ``running`` state is known before its token is; ``generated`` and ``content`` states are those
    of the token's own position and cost one more forward pass at the end.

    Raises:
        InputError: the pooling needs masked positions, or a response template has inner slots.
    """
    if pooling.positions == "response":
        raise InputError(
            f"Pooling {pooling.name!r} averages masked positions too; an autoregressive sampler has "
            "none. Use running, generated or content."
        )
    batch = with_prefill(model, batch)
    rows, device = len(batch.ids), batch.ids.device
    tokens = torch.full((rows, settings.steps), -1, device=device)
    alive = torch.arange(rows, device=device)
    means = RunningMeans(rows)
    forward = CachedForward(model, batch, layers, new_tokens=settings.steps)
    states = forward(batch.ids)
    for index in range(1, settings.steps + 1):
        token = choose(model.logits(states["last"]), settings, noise)
        tokens[alive, index - 1] = token
        ended = torch.isin(token, token.new_tensor(model.traits.end_ids))
        if not pooling.predictor:
            states = forward(token[:, None])
        counted = ~ended if pooling.positions == "content" else torch.ones_like(ended)
        phi = means.add(states, alive, counted)
        running = torch.zeros(rows, dtype=torch.bool, device=device)
        running[alive] = True
        committed = tokens.clone()
        yield Step(index, committed, committed, phi, running, batch.ids)
        if ended.all() or index == settings.steps:
            return
        if ended.any():
            kept = (~ended).nonzero()[:, 0]
            alive, token, noise = alive[kept], token[kept], noise.keep(kept)
            states = {layer: value[kept] for layer, value in states.items()}
            forward.keep(kept)
        if pooling.predictor:
            states = forward(token[:, None])


class CachedForward:
    """The network with its KV cache: new tokens in, states of the last position out."""

    def __init__(
        self, model: LanguageModel, batch: Batch, layers: Sequence[str], *, new_tokens: int
    ) -> None:
        from transformers import DynamicCache

        self._model = model
        self._layers = tuple(dict.fromkeys(["last", *layers]))
        self._cache = DynamicCache(config=model.net.config)
        self._seen = 0
        self._attention: Tensor | None = None
        if batch.padded:
            grown = batch.attention.new_ones((len(batch.ids), new_tokens))
            self._attention = torch.cat([batch.attention, grown], dim=1)

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """``[B, S]`` new tokens -> layer -> ``[B, D]`` states of the last of them."""
        self._seen += ids.shape[1]
        attention = positions = None
        if self._attention is not None:
            attention = self._attention[:, : self._seen]
            counted = attention.long().cumsum(1) - 1
            positions = counted.clamp(min=0)[:, -ids.shape[1] :]
        states = self._model.states(
            ids, attention, layers=self._layers, positions=positions, cache=self._cache
        )
        return {layer: value[:, -1] for layer, value in states.items()}

    def keep(self, rows: Tensor) -> None:
        """Drop every row but these from the cache."""
        self._cache.reorder_cache(rows)
        if self._attention is not None:
            self._attention = self._attention[rows]


def choose(logits: Tensor, settings: Autoregressive, noise: Noise) -> Tensor:
    """Pick the next token: ``[B, V]`` logits -> ``[B]``; ties go to the lowest id."""
    if settings.temperature == 0:
        return logits.argmax(-1)
    scaled = nucleus(logits.float() / settings.temperature, top_p=settings.top_p)
    return noise.choose(scaled, torch.ones(len(scaled), 1, dtype=torch.bool))


def with_prefill(model: LanguageModel, batch: Batch) -> Batch:
    """Put the fixed beginning of each response behind its prompt.

    Raises:
        InputError: a response template has masked slots before fixed text.
    """
    if not any(batch.responses):
        return batch
    rows = []
    for ids, kept, response in zip(batch.ids, batch.attention, batch.responses, strict=True):
        fixed = list(response)
        while fixed and fixed[-1] < 0:
            fixed.pop()
        if -1 in fixed:
            raise InputError(
                f"A response template has fixed text after masked slots; {model.name} generates "
                "from left to right. Use a masked sampler or a plain prefill."
            )
        rows.append([*ids[kept].tolist(), *fixed])
    return model.batch(rows)
