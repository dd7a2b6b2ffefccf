"""Generate step by step: a stream of ``Step`` that can be stopped, and its traces.

    for step in demur.steps(model, ["How do I repair a kettle?"]):
        ...                      # to stop generating, stop iterating

``steps`` runs one batch, ``trace`` runs a list of prompts of any length in batches.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demur.errors import InputError, SignalError
from demur.models.base import LanguageModel
from demur.parts import thought_steps
from demur.sampling import RowNoise, Sampler, find_pooling, sampler_from, spec
from demur.sampling.fitting import in_halves, largest_batch
from demur.types import Fingerprint, Prompt, Record, Step, Trace, Traces

#: Called with the number of traces just finished.
Progress = Callable[[int], None]


def steps(
    model: LanguageModel,
    prompts: Sequence[Prompt | str],
    *,
    sampler: Sampler | None = None,
    record: Record = Record(),  # noqa: B008 (frozen)
) -> Steps:
    """Generate a response to each prompt, as one batch, and yield a ``Step`` at a time.

    Nothing is computed before the first step is asked for. To stop generating, stop iterating.

    Args:
        model: from ``demur.load``.
        prompts: prompts or plain texts.
        sampler: the model's default when None.
        record: layers, pooling and random seed.

    Raises:
        InputError: no prompts, a prompt that is empty or too long, or a setting that the model
            cannot take.
    """
    rows, sampler = as_prompts(prompts), sampler or default_sampler(model)
    for prompt in rows:
        model.check_fits(prompt, new_tokens=sampler.new_tokens)
    return Steps(model, rows, sampler, record)


@final
class Steps(Iterator[Step]):
    """The steps of one batch. Made by ``demur.steps``.

    Attributes:
        prompts: the batch, in the order of the rows of each ``Step``.
        fingerprint: what the traces will carry.
        close: stops the generation and frees its memory; called at exit too.
    """

    def __init__(
        self, model: LanguageModel, prompts: Sequence[Prompt], sampler: Sampler, record: Record
    ) -> None:
        if not prompts:
            raise InputError("No prompts: the list is empty. Give at least one.")
        self.prompts = tuple(prompts)
        self.fingerprint = fingerprint(model, sampler, record)
        batch = model.encode(prompts)
        noise = RowNoise.of(record.seed, [prompt.id for prompt in prompts])
        record = replace(record, pooling=self.fingerprint.pooling)
        stream = sampler.run(model, batch, record, noise)
        self._model, self._prefills, self._stream = model, batch.responses, stream
        self._taken: list[Step] = []
        self._dropped: set[int] = set()
        # A generator that is still suspended at exit would run its clean-up after torch is gone.
        self.close = weakref.finalize(self, getattr(stream, "close", lambda: None))

    def __next__(self) -> Step:
        step = next(self._stream)
        if self._dropped:
            running = step.running.clone()
            running[list(self._dropped)] = False
            if not running.any():
                self.close()
                raise StopIteration
            step = replace(step, running=running)
        self._taken.append(step)
        return step

    def drop(self, rows: Iterable[int]) -> None:
        """Stop these rows: no later step belongs to them, and samplers that can skip their work.

        Args:
            rows: places in ``prompts``.
        """
        new = set(rows) - self._dropped
        self._dropped |= new
        if new and (drop := getattr(self._stream, "drop", None)):
            drop(sorted(new))

    def traces(self) -> Traces:
        """What was generated so far, one trace a prompt.

        Raises:
            InputError: no step was taken, or a template leaves nothing to generate.
            SignalError: the model gave NaN or infinite states.
        """
        if not self._taken:
            raise InputError(
                "No step was taken yet, or the response templates leave no masked position. "
                "Iterate over the steps first."
            )
        model, taken, mark = self._model, self._taken, self.fingerprint
        committed = _stack([step.tokens for step in taken])
        draft = _stack([step.draft for step in taken])
        phi = {
            layer: torch.stack([step.phi[layer] for step in taken]).cpu().numpy()
            for layer in taken[0].phi
        }
        running = torch.stack([step.running for step in taken]).cpu().numpy()
        blocks = _stack(
            [torch.zeros(len(running.T)) if s.block is None else s.block for s in taken]
        )
        filled = taken[-1].prompt.cpu().tolist()
        traces = []
        for row, prompt in enumerate(self.prompts):
            own = running[:, row]  # the steps that the row took part in
            if not own.any():
                raise InputError(f"Prompt {prompt.id} leaves no masked position to generate.")
            states = {layer: value[own, row] for layer, value in phi.items()}
            _check_finite(states, prompt, mark)
            final, fixed = committed[own, row][-1].tolist(), list[int]()
            if model.traits.attention == "causal":
                fixed = [token for token in self._prefills[row] if token >= 0]
                final = fixed + final
            opened = model.chat.opening(filled[row][: len(filled[row]) - len(fixed)])
            ids, reason = cut_at_end([i for i in final if i >= 0], model.traits.end_ids)
            traces.append(
                Trace(
                    prompt=prompt,
                    response=opened + model.decode(ids),
                    response_ids=np.array(ids, dtype=np.int32),
                    committed=committed[own, row],
                    draft=draft[own, row],
                    phi=states,
                    finish_reason=reason,
                    blocks=blocks[own, row],
                    fingerprint=mark,
                    filled_prompt=model.decode(filled[row]) if prompt.user else "",
                    thought=thought_of(model, committed[own, row], ids, opened, skip=len(fixed)),
                )
            )
        return Traces(tuple(traces))


def trace(
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    sampler: Sampler | None = None,
    record: Record = Record(),  # noqa: B008 (frozen)
    batch_size: int | Literal["auto"] = 8,
    progress: Progress | None = None,
) -> Traces:
    """Generate a response to each prompt and record it step by step, in memory.

    Args:
        model: from ``demur.load``.
        prompts: prompts or plain texts.
        sampler: the model's default when None.
        record: layers, pooling and random seed.
        batch_size: prompts generated together, ``auto`` for what fits the device; changes no
            result. A batch that turns out too large is split in halves.
        progress: called with the number of traces just finished.

    Raises:
        InputError: a prompt is empty or too long, or a setting that the model cannot take.
        SignalError: the model gave NaN or infinite states.
    """
    rows = as_prompts(prompts)
    sampler = sampler or default_sampler(model)
    found: dict[int, Trace] = {}
    for places in batches(model, rows, sampler, record, batch_size=batch_size):
        part = trace_batch(model, [rows[i] for i in places], sampler=sampler, record=record)
        found.update(zip(places, part, strict=True))
        if progress:
            progress(len(places))
    return Traces(tuple(found[i] for i in range(len(rows))))


def trace_batch(
    model: LanguageModel,
    prompts: Sequence[Prompt | str],
    *,
    sampler: Sampler | None = None,
    record: Record = Record(),  # noqa: B008 (frozen)
) -> list[Trace]:
    """Trace prompts as one batch, in halves where memory is short; arguments as for ``trace``."""
    sampler = sampler or default_sampler(model)

    def run(part: Sequence[Prompt]) -> list[Trace]:
        generation = Steps(model, part, sampler, record)
        for _ in generation:
            pass
        return list(generation.traces())

    return in_halves(as_prompts(prompts), run)


def as_prompts(prompts: Iterable[Prompt | str]) -> list[Prompt]:
    """Prompts, plain texts made into prompts.

    Raises:
        InputError: one text where a list of prompts is needed.
    """
    if isinstance(prompts, str | Prompt):
        raise InputError(f"prompts is one prompt, {prompts!r:.80}. Pass a list: [prompt].")
    return [p if isinstance(p, Prompt) else Prompt(p) for p in prompts]


def default_sampler(model: LanguageModel) -> Sampler:
    """The sampler that the model's family or card sets."""
    return sampler_from(model.traits.sampler)


def batches(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    sampler: Sampler,
    record: Record = Record(),  # noqa: B008 (frozen)
    *,
    batch_size: int | Literal["auto"],
) -> list[list[int]]:
    """Places of the prompts, sorted by length and cut into batches; arguments as for ``trace``.

    Raises:
        InputError: a prompt is too long for the model, or the batch size is below 1.
    """
    if batch_size != "auto" and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    lengths = [model.check_fits(prompt, new_tokens=sampler.new_tokens) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (lengths[i], i))
    if not order:
        return []
    if batch_size == "auto":
        batch_size = largest_batch(
            model,
            prompts[order[-1]],
            sampler,
            record=replace(record, pooling=record.pooling or model.traits.pooling),
            prompts=len(prompts),
        )
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def fingerprint(model: LanguageModel, sampler: Sampler, record: Record) -> Fingerprint:
    """What traces of this model and sampler carry.

    Raises:
        InputError: an unknown pooling.
    """
    return Fingerprint(
        model=model.name,
        revision=model.revision,
        sampler=spec(sampler),
        pooling=find_pooling(record.pooling or model.traits.pooling).name,
        system=model.system,
        dtype=model.dtype,
    )


def thought_of(
    model: LanguageModel,
    committed: NDArray[np.int32],
    ids: Sequence[int],
    opened: str,
    *,
    skip: int = 0,
) -> NDArray[np.bool_] | None:
    """``[T]`` bool, the steps that are thought; see ``demur.parts.thought_steps``."""
    if not model.chat.thinks:
        return None
    pieces = [model.decode([token]) for token in ids]
    return thought_steps(committed, pieces, before=opened, skip=skip)


def cut_at_end(
    ids: Sequence[int], end_ids: Sequence[int]
) -> tuple[list[int], Literal["stop", "length"]]:
    """Tokens up to and with the first end token, and whether there was one."""
    for place, token in enumerate(ids):
        if token in end_ids:
            return list(ids[: place + 1]), "stop"
    return list(ids), "length"


def _stack(tensors: Sequence[Tensor]) -> NDArray[np.int32]:
    stacked: NDArray[np.int32] = torch.stack(list(tensors)).to(torch.int32).cpu().numpy()
    return stacked


def _check_finite(
    states: dict[str, NDArray[np.float32]], prompt: Prompt, mark: Fingerprint
) -> None:
    for layer, value in states.items():
        if not np.isfinite(value).all():
            step = int(np.argwhere(~np.isfinite(value).all(axis=1))[0, 0]) + 1
            raise SignalError(
                f"{mark.model} in {mark.dtype} gave NaN or infinite states for prompt {prompt.id} "
                f"at step {step}, layer {layer}. Use --dtype float32 or bfloat16."
            )
