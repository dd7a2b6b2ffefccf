"""The loop of masked diffusion samplers: predict every masked position, commit some, repeat.

A sampler's update rule decides what to commit, from the logits of the masked positions alone. Rows
without masks leave the batch, so no row waits for another.

Models without a cache read whole rows, so generations can share forward passes: ``next_steps`` runs the
passes of several generations at once, which may differ in settings and progress.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling.choice import Noise
from demur.sampling.pooling import find_pooling, mean_states, positions_mask
from demur.types import Record, Step


@dataclass(frozen=True)
class MaskedText:
    """Prompts and masked responses before the first step.

    Attributes:
        tokens: ``[B, P + R]`` int64.
        attention: ``[B, P + R]`` bool, False on padding; None when nothing is padded.
        start: P, the first response column.
        mask_id: the mask token.
    """

    tokens: Tensor
    attention: Tensor | None
    start: int
    mask_id: int


class Update(NamedTuple):
    """Result of a rule for the K rows still running.

    Attributes:
        tokens: ``[K, L]`` rows after the step, masks included.
        draft: ``[K, L]`` the same with a prediction for every mask.
        block: ``[K]`` 0-based block each row works on.
    """

    tokens: Tensor
    draft: Tensor
    block: Tensor


class Rule(Protocol):
    """The update rule of a sampler, made for one generation; it may count steps."""

    def __call__(
        self, x: Tensor, masked: Tensor, logits: Tensor, live: Tensor, noise: Noise
    ) -> Update:
        """One step.

        Args:
            x: ``[K, L]`` tokens of the rows still running.
            masked: ``[K, L]`` bool, where they are masked; at least one position per row.
            logits: ``[N, V]`` of the N masked positions, row by row, in the model's dtype.
            live: ``[K]`` indices of the rows in the batch.
            noise: random numbers of these rows.
        """


class Pass(NamedTuple):
    """A forward pass without a cache.

    Attributes:
        tokens: ``[K, L]`` int64.
        attention: ``[K, L]`` bool, False on padding; None when nothing is padded.
        layers: layers to return.
    """

    tokens: Tensor
    attention: Tensor | None
    layers: tuple[str, ...]


@final
class Denoising(Iterator[Step]):
    """One generation of a masked sampler.

    Iterate over it, or run its forward passes yourself: read what ``next_pass`` asks for and give the
    states to ``advance``.

    Args:
        model: a masked diffusion model.
        text: prompts and masked responses.
        rule: the sampler's update rule.
        record: layers to keep and the pooling's name.
        noise: random numbers of the rows.
        cfg_scale: classifier-free guidance, which takes a second pass per step; 0 is off.
    """

    def __init__(
        self,
        model: LanguageModel,
        text: MaskedText,
        rule: Rule,
        record: Record,
        noise: Noise,
        *,
        cfg_scale: float = 0.0,
    ) -> None:
        self._model, self._text, self._rule, self._noise = model, text, rule, noise
        self._layers, self._pooling = record.layers, find_pooling(record.pooling)
        self._cfg_scale, self._index = cfg_scale, 0
        self._x, self._given = text.tokens, text.tokens != text.mask_id
        self._block = torch.zeros_like(text.tokens[:, 0])
        self._followed = torch.ones_like(self._given[:, 0])
        self._phi: dict[str, Tensor] = {}
        self._live = self._block
        self._guided: tuple[dict[str, Tensor], Tensor] | None = None

    @torch.inference_mode()
    def __next__(self) -> Step:
        (step,) = next_steps(self._model, [self])
        if step is None:
            raise StopIteration
        return step

    def next_pass(self) -> Pass | None:
        """The forward pass to run next; None when the generation is over."""
        if self._guided:  # the second pass of a guided step: the same rows with a masked prompt
            blind = self._x[self._live].masked_fill(self._given[self._live], self._text.mask_id)
            return Pass(blind, self._attention, ("last",))
        running = (self._x == self._text.mask_id).any(1) & self._followed
        self._live = running.nonzero()[:, 0]
        if not len(self._live):
            return None
        return Pass(self._x[self._live], self._attention, ("last", *self._layers))

    def advance(self, states: dict[str, Tensor]) -> Step | None:
        """Take the states of the pass (layer -> ``[K, L, D]``); None when one more pass is needed."""
        live, x = self._live, self._x[self._live]
        masked = x == self._text.mask_id
        where = predictors(self._model, states["last"], masked, self._attention)
        logits = self._model.logits(where)
        if self._cfg_scale > 0:
            if not self._guided:
                self._guided = states, logits
                return None
            # Away from the prediction without a prompt (LLaDA ``generate.py``).
            states, conditional = self._guided
            logits = logits + (self._cfg_scale + 1) * (conditional - logits)
            self._guided = None
        update = self._rule(x, masked, logits, live, self._noise.keep(live))
        return self._step(states, update)

    def drop(self, rows: Sequence[int]) -> None:
        """Stop these rows: no later pass contains them. Call it between two steps."""
        self._followed[list(rows)] = False

    @property
    def _attention(self) -> Tensor | None:
        attention = self._text.attention
        return None if attention is None else attention[self._live]

    def _step(self, states: dict[str, Tensor], update: Update) -> Step:
        """Write the update into the batch; rows that do not run repeat their values."""
        live, start = self._live, self._text.start
        draft = self._x.index_copy(0, live, update.draft)
        self._x = x = self._x.index_copy(0, live, update.tokens)
        self._block = self._block.index_copy(0, live, update.block)
        self._index += 1
        chosen = positions_mask(
            self._pooling,
            committed=update.tokens[:, start:] != self._text.mask_id,
            draft=update.draft[:, start:],
            end_ids=self._model.traits.end_ids,
        )
        first = start - self._pooling.predictor
        place = slice(first, first + chosen.shape[1])
        pooled = {k: mean_states(states[k][:, place], chosen) for k in self._layers}
        phi = self._phi or {k: v.new_zeros(len(x), v.shape[1]) for k, v in pooled.items()}
        self._phi = phi = {k: v.index_copy(0, live, pooled[k]) for k, v in phi.items()}
        tokens = x[:, start:].masked_fill(x[:, start:] == self._text.mask_id, -1)
        running = torch.zeros_like(self._followed).index_fill(0, live, True)
        return Step(self._index, tokens, draft[:, start:], phi, running, x[:, :start], self._block)


def masked_text(model: LanguageModel, batch: Batch, gen_length: int) -> MaskedText:
    """Append a masked response to each prompt, with the tokens fixed by its template.

    Raises:
        InputError: the model has no mask token, or a response template is too long.
    """
    mask_id = model.traits.mask_id
    if mask_id is None:
        raise InputError(
            f"{model.name} has no mask token (its attention is {model.traits.attention}). Use "
            f"--sampler {model.traits.sampler['name']}."
        )
    fixed = batch.fixed(gen_length)
    response = fixed.masked_fill(fixed < 0, mask_id)
    attention = None
    if batch.padded:
        attention = torch.cat([batch.attention, torch.ones_like(response, dtype=torch.bool)], 1)
    # Padding written with the mask token must not count as masked.
    other = next(i for i in (*model.traits.end_ids, 0, 1) if i != mask_id)
    prompt = batch.ids.masked_fill(~batch.attention & (batch.ids == mask_id), other)
    tokens = torch.cat([prompt, response], dim=1)
    return MaskedText(tokens, attention, batch.ids.shape[1], mask_id)


def predictors(
    model: LanguageModel, states: Tensor, masked: Tensor, attention: Tensor | None
) -> Tensor:
    """``[N, D]`` states that predict the masked positions ``[K, L]``.

    In shifted models these are the states at j - 1; a row's first token predicts itself, as in
    Dream's code.
    """
    rows, columns = masked.nonzero(as_tuple=True)
    if model.traits.shift:
        before = (columns - 1).clamp(min=0)
        real = before >= 0 if attention is None else attention[rows, before]
        columns = torch.where(real, before, columns)
    return states[rows, columns]


def next_steps(model: LanguageModel, generations: Sequence[Iterator[Step]]) -> list[Step | None]:
    """The next step of each generation, None where it is over.

    Passes of ``Denoising`` generations whose lengths are in the same size class are read as one.
    """
    steps: list[Step | None] = [None] * len(generations)
    reading = dict[int, Denoising]()
    for place, generation in enumerate(generations):
        if isinstance(generation, Denoising):
            reading[place] = generation
        else:
            steps[place] = next(generation, None)
    while reading:
        alike: dict[int, list[int]] = defaultdict(list)
        asked = {place: found for place, each in reading.items() if (found := each.next_pass())}
        for place, each in asked.items():
            alike[size_class(each.tokens.shape[1])].append(place)
        for places in alike.values():
            states = together(model, [asked[place] for place in places])
            for place, own in zip(places, states, strict=True):
                steps[place] = reading[place].advance(own)
        reading = {place: reading[place] for place in asked if steps[place] is None}
    return steps


def size_class(length: int) -> int:
    """Padding at most doubles rows whose lengths have the same class."""
    return length.bit_length()


def together(model: LanguageModel, passes: Sequence[Pass]) -> list[dict[str, Tensor]]:
    """Read several passes as one, shorter rows padded on the left.

    Returns:
        for each pass, layer -> ``[K, L, D]``.
    """
    width = max(each.tokens.shape[1] for each in passes)
    tokens, attention = torch.cat([_widened(each.tokens, width) for each in passes]), None
    if any(each.attention is not None or each.tokens.shape[1] < width for each in passes):
        everywhere = [torch.ones_like(each.tokens, dtype=torch.bool) for each in passes]
        real = [
            one if p.attention is None else p.attention
            for p, one in zip(passes, everywhere, strict=True)
        ]
        attention = torch.cat([_widened(each, width) for each in real])
    layers = dict.fromkeys(layer for each in passes for layer in each.layers)
    states, found, first = model.states(tokens, attention, layers=tuple(layers)), [], 0
    for each in passes:
        rows, length = each.tokens.shape
        place = slice(first, first + rows), slice(width - length, None)
        found.append({layer: states[layer][place] for layer in each.layers})
        first += rows
    return found


def _widened(value: Tensor, width: int) -> Tensor:
    """Padded with zeros, or False, on the left."""
    return torch.nn.functional.pad(value, (width - value.shape[1], 0))
