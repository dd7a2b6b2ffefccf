"""Traces from ``transformers`` ``generate(output_hidden_states=True, return_dict_in_generate=True)``.

``generate`` returns, for each token t, the states from which it was chosen: ``hidden_states[t][k]`` is
``[B, S, D]``, and its last position is the one before token t. ``k`` counts decoder blocks: 0 is the
embedding, and the last entry is after the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from demur.adapters.hidden_states import from_hidden_states
from demur.errors import FingerprintError, InputError
from demur.generation import as_prompts, cut_at_end, fingerprint, thought_of
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive
from demur.types import Prompt, Record, Traces

#: Relative rounding error allowed between a greedy token's logit and the largest logit.
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
    """Make traces from the output of ``model.net.generate`` for ``model.encode(prompts)``.

    Greedy traces get the fingerprint of ``demur.trace``, so its anchors and guards accept them. This is
    checked: the prompt tokens must be the model's encoding, and each token must be the model's choice
    from the given states. Sampled tokens cannot be checked; their traces get the engine
    ``transformers generate`` instead.

    Args:
        model: the model whose ``net`` generated.
        prompts: in row order.
        output: of ``generate`` without beams, with ``output_hidden_states`` and
            ``return_dict_in_generate``.
        sampler: the settings used; ``steps`` is ``max_new_tokens``.
        pooling: must be ``running``, since ``generate`` never computes the last token's state.
        layers: ``last``, ``first``, ``middle`` or numbers of decoder blocks before the last.

    Raises:
        InputError: no hidden states, beams, a prefilled response, an unknown layer, or lengths that
            do not fit the sampler.
        FingerprintError: the prompts or the greedy tokens are not this model's.
    """
    rows = as_prompts(prompts)
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
    mark = fingerprint(model, sampler, Record(pooling=pooling))
    if sampler.temperature:
        mark = replace(mark, sampler={**mark.sampler, "name": "transformers generate"})
    found = []
    for row, (prompt, (response, _)) in enumerate(zip(rows, responses, strict=True)):
        opened = model.chat.opening(ids[row].tolist())
        one = from_hidden_states(
            {layer: states[layer][:, row] for layer in layers},
            response,
            prompt=prompt,
            response=opened + model.decode(response),
            first=-1,
            pooling=pooling,
            source=mark,
            end_ids=model.traits.end_ids,
        )
        thought = thought_of(model, one.committed, response, opened)
        found.append(replace(one, thought=thought))
    return Traces(tuple(found))


def _require_plain(output: Any, prompts: Sequence[Prompt]) -> None:
    if getattr(output, "hidden_states", None) is None:
        raise InputError(
            "The output has no hidden states. Call generate with output_hidden_states=True and "
            "return_dict_in_generate=True."
        )
    if getattr(output, "beam_indices", None) is not None or len(output.sequences) != len(prompts):
        raise InputError(
            f"{len(prompts)} prompts and {len(output.sequences)} generated rows. Generate one row per "
            "prompt, without beams (num_beams=1, num_return_sequences=1)."
        )
    if filled := [prompt.id for prompt in prompts if prompt.response]:
        raise InputError(
            f"Prompt {filled[0]} has a response template. Trace such prompts with demur.trace."
        )


def _states(model: LanguageModel, hidden: Sequence[Sequence[Tensor]], layer: str) -> Tensor:
    """``[T, B, D]`` states before each token."""
    if layer == "last":
        place = -1
    else:
        place = model.block_index(layer) + 1
        if place == len(model.layers):
            raise InputError(
                f"generate returns block {place}, the last, only after the final norm. Use layer last."
            )
    return torch.stack([step[place][:, -1] for step in hidden])


def _require_whole(
    responses: Sequence[tuple[list[int], str]], sampler: Autoregressive, *, shown: int
) -> None:
    for ids, reason in responses:
        whole = len(ids) <= sampler.steps and (reason == "stop" or len(ids) == sampler.steps)
        if not whole or len(ids) > shown:
            raise InputError(
                f"A response has {len(ids)} tokens and finish reason {reason!r}; there are states of "
                f"{shown} steps and the sampler has steps={sampler.steps}. Set steps to the "
                "max_new_tokens of generate, and pass the hidden states of all steps."
            )


def _require_greedy(model: LanguageModel, states: Tensor, responses: Sequence[list[int]]) -> None:
    """Raise unless each token is the model's greedy choice from the state before it."""
    for step, state in enumerate(states):
        logits = model.logits(state.to(model.device)).float()
        for row, ids in enumerate(responses):
            if step < len(ids):
                best, chosen = logits[row].max().item(), logits[row, ids[step]].item()
                if chosen < best - GREEDY_TOLERANCE * max(1.0, abs(best)):
                    raise FingerprintError(
                        f"Token {step + 1} of row {row + 1} is not what {model.name} chooses from "
                        "the state before it. Generate with do_sample=False and no penalties, or "
                        "set the sampler's temperature."
                    )
