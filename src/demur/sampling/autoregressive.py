"""Autoregressive sampling with cached keys and values, one token per step.

``TokenBatch`` is the loop, offline and in the server: rows join and leave between two tokens
(iteration-level scheduling; Yu et al., Orca, OSDI 2022):

    1. rows that join have their prompts read in one pass;
    2. every other row has its newest token read;
    3. every row gets a token: the most likely, or one drawn from its nucleus.

Offline all rows join at once (``Decoding``). Greedy tokens equal ``transformers`` ``generate``. Differs
from the paper's released loop: cached, batched, and a row that has ended leaves the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling.cache import FixedCache, RowCache, rows_can_join
from demur.sampling.choice import Noise, heated, nucleus
from demur.sampling.pooling import RunningMeans, find_pooling
from demur.sampling.sampler import Sampler, require
from demur.types import Record, Step


@dataclass(frozen=True, kw_only=True)
class Autoregressive(Sampler):
    """Settings of the autoregressive sampler.

    Attributes:
        steps: most tokens to generate, T.
        temperature: 0 is greedy.
        top_p: nucleus of the probability mass to sample from, in (0, 1].
    """

    name: ClassVar[str] = "autoregressive"
    releases: ClassVar[Literal["token", "block"]] = "token"
    length_field: ClassVar[str] = "steps"
    steps: int = 32
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        require(self, "at least 1", "steps")
        require(self, "0 or more", "temperature")
        require(self, "above 0 and at most 1", "top_p")

    def run(self, model: LanguageModel, batch: Batch, record: Record, noise: Noise) -> Decoding:
        """Generate; see ``Decoding``.

        Raises:
            InputError: the pooling needs masked positions, or a response template has inner slots.
        """
        return Decoding(model, with_prefill(model, batch), self, record, noise)


@final
class Decoding(Iterator[Step]):
    """One generation, whose rows all start together."""

    def __init__(
        self,
        model: LanguageModel,
        batch: Batch,
        settings: Autoregressive,
        record: Record,
        noise: Noise,
    ) -> None:
        rows = len(batch.ids)
        self._rows = TokenBatch(model, record, rows=rows)
        self._model, self._prompts, self._settings, self._noise = model, batch, settings, noise
        self._tokens = batch.ids.new_full((rows, settings.steps), -1)
        self._over: set[int] = set()
        self._index = 0

    @torch.inference_mode()
    def __next__(self) -> Step:
        settings, tokens = self._settings, self._tokens.clone()
        if self._index == settings.steps:
            raise StopIteration
        if self._index == 0:
            rows, own = range(len(tokens)), [settings] * len(tokens)
            self._rows.join(self._prompts, rows, own, self._noise, more=settings.steps)
        self._rows.leave(self._over)
        if not len(self._rows):
            raise StopIteration
        slots, chosen, phi = self._rows.step()
        tokens[slots, self._index] = chosen
        self._tokens, self._index = tokens, self._index + 1
        self._over = {*slots[_ends(self._model, chosen)].tolist()}
        running = torch.zeros_like(tokens[:, 0], dtype=torch.bool).index_fill(0, slots, True)
        return Step(self._index, tokens, tokens, phi, running, self._prompts.ids)

    def drop(self, rows: Sequence[int]) -> None:
        """Stop these rows: no later pass contains them."""
        self._over |= {*rows}


@final
class TokenBatch:
    """Rows that each get a token per step, and that join and leave between two steps.

    With the pooling ``running`` a row's pooled state is known before its token is; ``generated`` and
    ``content`` need the state at the token itself, which costs one more pass at the end.

    Args:
        model: an autoregressive model.
        record: layers to keep and the pooling's name.
        rows: most rows at a time, each in a slot of its own.

    Raises:
        InputError: the pooling needs masked positions.
    """

    def __init__(self, model: LanguageModel, record: Record, *, rows: int) -> None:
        self._pooling = find_pooling(record.pooling)
        if self._pooling.positions == "response":
            raise InputError(
                f"Pooling {record.pooling!r} averages masked positions too; an autoregressive "
                "sampler has none. Use running, generated or content."
            )
        self._model, self._layers = model, record.layers
        self._reads = tuple(dict.fromkeys(["last", *record.layers]))
        self._means = RunningMeans(rows)
        self._cache: RowCache | FixedCache | None = None
        self._settings: list[Autoregressive] = []
        self._noise: Noise | None = None
        self._slots = torch.empty(0, dtype=torch.long, device=model.device)
        self._newest = self._slots
        #: Layer -> ``[K, D]`` states that predict the next tokens, if they were read already.
        self._states: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._settings)

    def join(
        self,
        prompts: Batch,
        slots: Sequence[int],
        settings: Sequence[Autoregressive],
        noise: Noise,
        *,
        more: int | None = None,
    ) -> None:
        """Read the prompts of new rows. Rows can join others only where ``rows_can_join``.

        Args:
            prompts: theirs.
            slots: free slots, one per row.
            settings: one per row.
            noise: random numbers of these rows.
            more: most tokens to generate, to reserve memory; None where it is not known.
        """
        if len(self):
            self._states = self._states or self._read(self._newest[:, None])
        lengths = prompts.attention.sum(1).tolist()
        joins = rows_can_join(self._model)
        cache = RowCache(lengths, more=more) if joins else FixedCache(self._model, lengths)
        attention = prompts.attention if prompts.padded else None
        states = self._model.states(prompts.ids, attention, layers=self._reads, cache=cache.net)
        cache.advance(prompts.ids.shape[1])
        fresh = {layer: value[:, -1] for layer, value in states.items()}
        new = torch.tensor(slots, device=self._slots.device)
        if self._states is None or self._noise is None:
            self._cache, self._states, self._noise = cache, fresh, noise
        else:
            assert isinstance(self._cache, RowCache)
            assert isinstance(cache, RowCache)
            self._cache.append(cache)
            self._noise = self._noise.join(noise)
            self._states = {k: torch.cat([v, fresh[k]]) for k, v in self._states.items()}
        self._slots, self._settings = torch.cat([self._slots, new]), [*self._settings, *settings]
        self._means.forget(new)

    def leave(self, slots: Set[int]) -> None:
        """Remove the rows of these slots; the last rows take their places."""
        if not slots:
            return
        order = list(range(len(self)))
        for row in reversed([i for i, slot in enumerate(self._slots.tolist()) if slot in slots]):
            order[row] = order[-1]
            order.pop()
        if len(order) == len(self):
            return
        kept = torch.tensor(order, dtype=torch.long, device=self._slots.device)
        self._slots, self._settings = self._slots[kept], [self._settings[row] for row in order]
        if self._states is None:
            self._newest = self._newest[kept]
        else:
            self._states = {layer: value[kept] for layer, value in self._states.items()}
        if order and self._cache is not None and self._noise is not None:
            self._cache.keep(order)
            self._noise = self._noise.keep(kept)
        else:
            self._cache = self._noise = self._states = None

    def step(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Give every row a token.

        Returns:
            ``[K]`` slots of the rows, ``[K]`` their new tokens, and layer -> ``[slots, D]`` float32
            pooled states; those of other slots repeat.
        """
        states = self._states or self._read(self._newest[:, None])
        self._newest = tokens = self._choose(self._model.logits(states["last"]))
        self._states = None
        if not self._pooling.predictor:
            self._states = states = self._read(tokens[:, None])
        counted = torch.ones_like(tokens, dtype=torch.bool)
        if self._pooling.positions == "content":
            counted = ~_ends(self._model, tokens)
        phi = self._means.add({k: states[k] for k in self._layers}, self._slots, counted)
        return self._slots, tokens, phi

    def _read(self, tokens: Tensor) -> dict[str, Tensor]:
        """Read one token per row: ``[K, 1]`` -> layer -> ``[K, D]``."""
        assert self._cache is not None
        attention, positions = self._cache.columns()
        states = self._model.states(
            tokens,
            None if attention is None else attention.to(tokens.device),
            layers=self._reads,
            positions=positions.to(tokens.device),
            cache=self._cache.net,
        )
        self._cache.advance(1)
        return {layer: value[:, -1] for layer, value in states.items()}

    def _choose(self, logits: Tensor) -> Tensor:
        """``[K, V]`` logits -> ``[K]`` tokens, rows of the same settings together."""
        tokens = logits.argmax(-1)
        ways = [(each.temperature, each.top_p) for each in self._settings]
        for temperature, top_p in {way for way in ways if way[0] > 0}:
            rows = [row for row, way in enumerate(ways) if way == (temperature, top_p)]
            own = torch.tensor(rows, device=logits.device)
            assert self._noise is not None
            scaled = nucleus(heated(logits[own].float(), temperature), top_p=top_p)
            where = torch.ones(len(rows), 1, dtype=torch.bool)
            tokens[own] = self._noise.keep(own).choose(scaled, where)
        return tokens


def token_batch(
    model: LanguageModel, sampler: Sampler, record: Record, *, rows: int
) -> TokenBatch | None:
    """A batch that rows of this sampler join between two tokens; None where they cannot."""
    if isinstance(sampler, Autoregressive) and rows_can_join(model):
        return TokenBatch(model, record, rows=rows)
    return None


def _ends(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Bool, tokens that end a response."""
    return torch.isin(tokens, tokens.new_tensor(model.traits.end_ids))


def with_prefill(model: LanguageModel, batch: Batch) -> Batch:
    """Append the fixed beginning of each response to its prompt.

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
