"""Traces from ``transformers`` ``generate(output_hidden_states=True, return_dict_in_generate=True)``.

The tuple that ``generate`` returns holds, for each token it chose, the states that it chose it from:
``hidden_states[t][k]`` is ``[B, S, D]``, whose last position is the one before token t. ``k`` counts
decoder blocks, 0 is the embedding, and the last entry is after the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from demur.adapters.hidden_states import Source, pooled
from demur.errors import FingerprintError, InputError
from demur.generation import cut_at_end, fingerprint
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, spec
from demur.types import Fingerprint, Prompt, Record, Traces

#: How far below the largest logit a greedy token's may lie, relative to that: rounding alone.
GREEDY_TOLERANCE = 1e-3


@torch.inference_mode()
def from_generate(
    model: LanguageModel,
    prompts: Sequence[Prompt | str],
    output: Any,
    *,
    sampler: Autoregressive,
    pooling: str = "running",
    layers: Sequence[str] = ("last",),
) -> Traces:
    """Make traces of what ``model.net.generate`` returned for ``model.encode(prompts)``.

    Greedy traces carry the fingerprint that ``demur.trace`` gives, so its anchors and guards accept
    them: the prompt tokens are compared with the model's encoding, and each token with the model's own
    choice from the states given. Sampled tokens cannot be checked so, and their traces carry the
    engine ``transformers generate`` instead.

    Args:
        model: whose ``net`` generated.
        prompts: in the order of the rows.
        output: of ``generate`` without beams, with ``output_hidden_states`` and
            ``return_dict_in_generate``.
        sampler: what was asked for; ``steps`` is ``max_new_tokens``.
        pooling: only ``running`` can be had: ``generate`` never computes the last token's state.
        layers: ``last``, ``first``, ``middle`` or numbers of decoder blocks before the last.

    Raises:
        InputError: no hidden states, beams, a prefilled response, a layer that is not there, or
            lengths that do not fit the sampler.
        FingerprintError: the prompts or the greedy tokens are not this model's.
    """
    rows = [Prompt(p) if isinstance(p, str) else p for p in prompts]
    _require_plain(output, rows)
    ids = model.encode(rows).ids
    width = ids.shape[1]
    if not torch.equal(output.sequences[:, :width].to(ids.device), ids):
        raise FingerprintError(
            f"The generated rows do not begin with these prompts as {model.name} encodes them. "
            "Generate from model.encode(prompts), with its ids and attention."
        )
    states = {layer: _states(model, output.hidden_states, layer) for layer in {*layers, "last"}}
    tokens = output.sequences[:, width:].tolist()
    responses = [cut_at_end(row, model.traits.end_ids) for row in tokens]
    _require_whole(responses, sampler, shown=len(states["last"]))
    if sampler.temperature == 0:
        _require_greedy(model, states["last"], [row for row, _ in responses])
    mark = _mark(model, sampler, pooling)
    return Traces(
        tuple(
            pooled(
                {layer: states[layer][:, row] for layer in layers},
                response,
                prompt=prompt,
                response=model.decode(response),
                first=-1,
                fingerprint=mark,
                end_ids=model.traits.end_ids,
            )
            for row, (prompt, (response, _)) in enumerate(zip(rows, responses, strict=True))
        )
    )


def _require_plain(output: Any, prompts: Sequence[Prompt]) -> None:
    if getattr(output, "hidden_states", None) is None:
        raise InputError(
            "The output holds no hidden states. Call generate with output_hidden_states=True and "
            "return_dict_in_generate=True."
        )
    if getattr(output, "beam_indices", None) is not None or len(output.sequences) != len(prompts):
        raise InputError(
            f"{len(prompts)} prompts and {len(output.sequences)} generated rows. Generate one row a "
            "prompt, without beams (num_beams=1, num_return_sequences=1)."
        )
    if filled := [prompt.id for prompt in prompts if prompt.response]:
        raise InputError(
            f"Prompt {filled[0]} begins the response itself. Trace such prompts with demur.trace."
        )


def _states(model: LanguageModel, hidden: Sequence[Sequence[Tensor]], layer: str) -> Tensor:
    """``[T, B, D]`` states before each token."""
    if layer == "last":
        place = -1
    else:
        place = model.block_index(layer) + 1
        if place == len(model.layers):
            raise InputError(
                f"generate gives block {place}, the last, only after the final norm. Use layer last."
            )
    return torch.stack([step[place][:, -1] for step in hidden])


def _require_whole(
    responses: Sequence[tuple[list[int], str]], sampler: Autoregressive, *, shown: int
) -> None:
    for ids, reason in responses:
        whole = len(ids) <= sampler.steps and (reason == "stop" or len(ids) == sampler.steps)
        if not whole or len(ids) > shown:
            raise InputError(
                f"A response has {len(ids)} tokens and ended by {reason!r}; there are states of "
                f"{shown} steps and the sampler has steps={sampler.steps}. Give as steps the "
                "max_new_tokens of generate, and the hidden states of all of them."
            )


def _require_greedy(model: LanguageModel, states: Tensor, responses: Sequence[list[int]]) -> None:
    """Check that each token is the model's greedy choice from the state before it."""
    for step, state in enumerate(states):
        logits = model.logits(state.to(model.device)).float()
        for row, ids in enumerate(responses):
            if step < len(ids):
                best, chosen = logits[row].max().item(), logits[row, ids[step]].item()
                if chosen < best - GREEDY_TOLERANCE * max(1.0, abs(best)):
                    raise FingerprintError(
                        f"Token {step + 1} of row {row + 1} is not what {model.name} chooses from "
                        "the state before it. Generate with do_sample=False and no penalties, or "
                        "give the sampler its temperature."
                    )


def _mark(model: LanguageModel, sampler: Autoregressive, pooling: str) -> Fingerprint:
    if sampler.temperature == 0:
        return fingerprint(model, sampler, Record(pooling=pooling))
    return Source(
        engine="transformers generate",
        model=model.name,
        steps=sampler.steps,
        revision=model.revision,
        settings=spec(sampler),
        system=model.system,
        dtype=model.dtype,
    ).fingerprint(pooling=pooling)
