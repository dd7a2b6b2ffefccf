"""Traces from the hidden states that serving engines return; docs/serving-engines.md has the commands.

vLLM: ``ExampleHiddenStatesConnector`` (source of commit 015a95c8) with ``"include_output_tokens":
true`` writes a safetensors file with ``hidden_states`` ``[S, L, D]`` and ``token_ids`` ``[S]``. S is
the prompt and the response without its last token, which is never fed to the model; L are the
requested layers. Layer id k is the residual stream after k decoder blocks. The id
``num_hidden_layers`` is *before* the final norm, so ``last`` needs the norm applied.

SGLang 0.5, started with ``--enable-return-hidden-states --disable-radix-cache``: a reply's
``meta_info["hidden_states"]`` is a list of the prompt's states ``[P, D]``, then one ``[D]`` for each
response token except the last. They are from the last layer, after the final norm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from demur.adapters.hidden_states import Source, from_hidden_states
from demur.errors import InputError
from demur.types import Prompt, Trace

Norm = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def from_vllm(
    path: str | Path,
    response_ids: Sequence[int],
    *,
    prompt: Prompt | str,
    response: str,
    layers: Mapping[str, int],
    final_norm: Norm | None = None,
    source: Source,
    end_ids: Collection[int] = (),
) -> Trace:
    """Make a trace from one vLLM request, with pooling ``running``.

    Other arguments are those of ``from_hidden_states``.

    Args:
        path: the file named by ``output.kv_transfer_params["hidden_states_path"]``.
        response_ids: ``output.outputs[0].token_ids``.
        response: ``output.outputs[0].text``.
        layers: demur's layer name -> index in the layer ids that vLLM was started with, such as
            ``{"last": 0}``.
        final_norm: the model's final norm, ``[S, D] -> [S, D]``; see ``rms_norm``.

    Raises:
        InputError: not such a file, other tokens than the response's, or ``last`` without its norm.
        SignalError: NaN or infinite states.
    """
    hidden, token_ids = _read(path)
    own = len(response_ids) - 1
    count = len(token_ids) - own
    if count < 1 or token_ids[count:] != [int(token) for token in response_ids[:own]]:
        raise InputError(
            f"{path} does not have the states of this response. Ask vLLM for them with "
            'kv_transfer_params {"include_output_tokens": true}, and pass the response of the same '
            "request."
        )
    if "last" in layers and final_norm is None:
        raise InputError(
            "vLLM's last layer is before the final norm and demur's is after it. Pass "
            "final_norm=rms_norm(weight, eps=...)."
        )
    states = {}
    for layer, place in layers.items():
        if not 0 <= place < hidden.shape[1]:
            raise InputError(
                f"{path} has {hidden.shape[1]} layers, numbered from 0; {layer!r} is set to {place}."
            )
        chosen = hidden[:, place]
        states[layer] = final_norm(chosen) if layer == "last" and final_norm else chosen
    return from_hidden_states(
        states,
        response_ids,
        prompt=prompt,
        response=response,
        first=-count,
        pooling="running",
        source=source,
        end_ids=end_ids,
    )


def rms_norm(weight: Any, *, eps: float) -> Norm:
    """The final norm of Llama-like models: x / sqrt(mean(x^2) + eps) * weight.

    Args:
        weight: ``[D]``, such as ``model.norm.weight`` of the checkpoint.
        eps: ``rms_norm_eps`` of its config.
    """
    scale = np.asarray(weight.detach().float().cpu() if hasattr(weight, "detach") else weight)

    def norm(states: NDArray[np.float32]) -> NDArray[np.float32]:
        size = np.sqrt(np.square(states).mean(axis=-1, keepdims=True) + eps)
        return np.asarray(states / size * scale, dtype=np.float32)

    return norm


def _read(path: str | Path) -> tuple[NDArray[np.float32], list[int]]:
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise InputError(f"No hidden states at {path}. See docs/serving-engines.md.")
    try:
        kept = load_file(path)
        hidden, token_ids = kept["hidden_states"].float().numpy(), kept["token_ids"].tolist()
    except (SafetensorError, KeyError) as error:
        raise InputError(
            f"{path} is damaged or was not written by vLLM's hidden-state connector "
            f"({type(error).__name__}). See docs/serving-engines.md."
        ) from error
    if hidden.ndim != 3 or len(hidden) != len(token_ids):
        raise InputError(
            f"{path} has states of shape {list(hidden.shape)} for {len(token_ids)} tokens; expected "
            "[tokens, layers, width]. See docs/serving-engines.md."
        )
    return hidden, token_ids


def from_sglang(
    answer: Mapping[str, Any],
    *,
    prompt: Prompt | str,
    source: Source,
    end_ids: Collection[int] = (),
) -> Trace:
    """Make a trace from one reply of SGLang, with pooling ``running``.

    ``answer`` is one JSON object of ``/generate``, or one element of ``Engine.generate``. Other
    arguments are those of ``from_hidden_states``.

    Raises:
        InputError: no hidden states, or some positions are missing.
        SignalError: NaN or infinite states.
    """
    try:
        about = answer["meta_info"]
        parts, count = about["hidden_states"], int(about["prompt_tokens"])
        response_ids, response = list(answer["output_ids"]), str(answer["text"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"The answer has no {error}. Start SGLang with --enable-return-hidden-states and send "
            '"return_hidden_states": true.'
        ) from error
    try:
        states = np.concatenate(
            [np.atleast_2d(np.asarray(part, dtype=np.float32)) for part in parts]
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The answer's hidden states are empty, null or of several sizes ({error}). Send "
            '"return_hidden_states": true, a prompt and at least one new token.'
        ) from error
    if len(states) < count + len(response_ids) - 1 or len(np.atleast_2d(parts[0])) != count:
        raise InputError(
            f"{len(states)} states for {count} prompt tokens and {len(response_ids)} response "
            "tokens. Cached prompts have no states: start SGLang with --disable-radix-cache."
        )
    return from_hidden_states(
        {"last": states},
        response_ids,
        prompt=prompt,
        response=response,
        first=-count,
        pooling="running",
        source=source,
        end_ids=end_ids,
    )
