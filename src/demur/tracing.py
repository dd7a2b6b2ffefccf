"""Record a stream of ``Step`` as ``Trace``: one per prompt, from a batch or from a whole list."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demur.errors import InputError, SignalError
from demur.models.base import LanguageModel
from demur.sampling import RowNoise, Sampler, find_pooling, sampler_from, spec
from demur.sampling.fitting import in_halves, largest_batch
from demur.types import Fingerprint, Prompt, Step, Trace, Traces

#: Called with the number of traces just finished.
Progress = Callable[[int], None]


def trace(
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    sampler: Sampler | None = None,
    pooling: str | None = None,
    layers: Sequence[str] = ("last",),
    batch_size: int | Literal["auto"] = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Traces:
    """Generate a response to each prompt and record it step by step, in memory.

    Args:
        model: from ``demur.load``.
        prompts: prompts or plain texts.
        sampler: the model's default when None.
        pooling: the model's default when None; see ``demur.sampling.pooling``.
        layers: ``last``, ``first``, ``middle`` or numbers of decoder blocks.
        batch_size: prompts generated together, ``auto`` for what the device takes; changes no
            result. A batch that does not fit after all is done in halves.
        seed: of temperature and random remasking.
        progress: called with the number of traces just finished.

    Raises:
        InputError: a prompt is empty or too long, or a setting does not fit the model.
        SignalError: the model gave NaN or infinite states.
    """
    rows = [p if isinstance(p, Prompt) else Prompt(p) for p in prompts]
    sampler = sampler or sampler_from(model.traits.sampler)
    found: dict[int, Trace] = {}
    places_of = batches(model, rows, sampler, batch_size=batch_size, layers=layers, pooling=pooling)
    for places in places_of:
        traced = record(
            model,
            [rows[i] for i in places],
            sampler=sampler,
            pooling=pooling,
            layers=layers,
            seed=seed,
        )
        found.update(zip(places, traced, strict=True))
        if progress:
            progress(len(places))
    return Traces(tuple(found[i] for i in range(len(rows))))


def record(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    sampler: Sampler | None = None,
    pooling: str | None = None,
    layers: Sequence[str] = ("last",),
    seed: int = 0,
    watch: Callable[[Iterator[Step]], Iterator[Step]] | None = None,
) -> list[Trace]:
    """Trace one batch of prompts; arguments as for ``trace``.

    Args:
        watch: wraps the stream of steps and may end it early, as a guard does.
    """
    sampler = sampler or sampler_from(model.traits.sampler)
    chosen = find_pooling(pooling or model.traits.pooling)
    mark = fingerprint(model, sampler, pooling=chosen.name)

    def run(part: Sequence[Prompt]) -> list[Trace]:
        batch = model.encode(part)
        noise = RowNoise.seeded([row_seed(seed, prompt.id) for prompt in part])
        steps = sampler.run(model, batch, layers=tuple(layers), pooling=chosen, noise=noise)
        recorded = list(watch(steps) if watch else steps)
        if not recorded:
            raise InputError(
                "Nothing was generated: the response templates leave no masked position."
            )
        return traces_of(model, part, recorded, batch.responses, mark)

    return in_halves(prompts, run)


def batches(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    sampler: Sampler,
    *,
    batch_size: int | Literal["auto"],
    layers: Sequence[str] = ("last",),
    pooling: str | None = None,
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
            prompts=len(prompts),
            layers=layers,
            pooling=pooling or model.traits.pooling,
        )
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def fingerprint(model: LanguageModel, sampler: Sampler, *, pooling: str) -> Fingerprint:
    """What traces of this model, sampler and pooling carry."""
    return Fingerprint(
        model=model.name,
        revision=model.revision,
        sampler=spec(sampler),
        pooling=pooling,
        system=model.system,
        dtype=model.dtype,
    )


def row_seed(seed: int, key: str) -> int:
    """Seed of one row, in [0, 2**63), from the run's seed and the prompt's id."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") >> 1


def traces_of(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    steps: Sequence[Step],
    prefills: Sequence[tuple[int, ...]],
    mark: Fingerprint,
) -> list[Trace]:
    """Split the steps of a batch into one trace a row, each with the steps that it took part in."""
    committed = _stack([step.tokens for step in steps])
    draft = _stack([step.draft for step in steps])
    phi = {
        layer: torch.stack([step.phi[layer] for step in steps]).cpu().numpy()
        for layer in steps[0].phi
    }
    running = torch.stack([step.running for step in steps]).cpu().numpy()
    blocks = _stack([torch.zeros(len(prompts)) if s.block is None else s.block for s in steps])
    filled = steps[-1].prompt.cpu().tolist()
    traces = []
    for row, prompt in enumerate(prompts):
        own = running[:, row]
        if not own.any():
            raise InputError(f"Prompt {prompt.id} leaves no masked position to generate.")
        states = {layer: value[own, row] for layer, value in phi.items()}
        _check_finite(states, prompt, mark)
        final = committed[own, row][-1].tolist()
        if model.traits.attention == "causal":
            final = [token for token in prefills[row] if token >= 0] + final
        ids, reason = cut_at_end([i for i in final if i >= 0], model.traits.end_ids)
        traces.append(
            Trace(
                prompt=prompt,
                response=model.decode(ids),
                response_ids=np.array(ids, dtype=np.int32),
                committed=committed[own, row],
                draft=draft[own, row],
                phi=states,
                finish_reason=reason,
                blocks=blocks[own, row],
                fingerprint=mark,
                filled_prompt=model.decode(filled[row]) if prompt.user else "",
            )
        )
    return traces


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


def _check_finite(states: dict[str, Any], prompt: Prompt, mark: Fingerprint) -> None:
    for layer, value in states.items():
        if not np.isfinite(value).all():
            step = int(np.argwhere(~np.isfinite(value).all(axis=1))[0, 0]) + 1
            raise SignalError(
                f"{mark.model} in {mark.dtype} gave NaN or infinite states for prompt {prompt.id} "
                f"at step {step}, layer {layer}. Use --dtype float32 or bfloat16."
            )
