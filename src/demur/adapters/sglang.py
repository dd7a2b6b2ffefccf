"""Traces from answers of SGLang's ``/generate`` with ``return_hidden_states``.

Format: SGLang 0.5, started with ``--enable-return-hidden-states --disable-radix-cache``. In an answer,
``meta_info["hidden_states"]`` is a list: first the prompt's states ``[P, D]``, then one ``[D]`` for
each token that was fed back, which is every response token but the last. They are of the last layer,
after the final norm. docs/serving-engines.md has the commands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from demur.adapters.hidden_states import Source, from_hidden_states
from demur.errors import InputError
from demur.types import Prompt, Trace


def from_sglang(
    answer: Mapping[str, Any],
    *,
    prompt: Prompt | str,
    source: Source,
    end_ids: Collection[int] = (),
) -> Trace:
    """Make a trace, pooled by ``running``, of one answer of SGLang.

    Args:
        answer: one JSON object of ``/generate``, or one element of ``Engine.generate``.
        prompt: what was asked.
        source: what ran the model.
        end_ids: tokens that end a response.

    Raises:
        InputError: no hidden states, or not those of every prompt and response token.
        SignalError: NaN or infinite states.
    """
    try:
        about = answer["meta_info"]
        parts, count = about["hidden_states"], int(about["prompt_tokens"])
        response_ids, response = list(answer["output_ids"]), str(answer["text"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"The answer has no {error}. Start SGLang with --enable-return-hidden-states and ask with "
            '"return_hidden_states": true.'
        ) from error
    try:
        states = np.concatenate(
            [np.atleast_2d(np.asarray(part, dtype=np.float32)) for part in parts]
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The answer's hidden states are empty, null or of several sizes ({error}). Ask again "
            'with "return_hidden_states": true, a prompt and at least one new token.'
        ) from error
    if len(states) < count + len(response_ids) - 1 or len(np.atleast_2d(parts[0])) != count:
        raise InputError(
            f"{len(states)} states for {count} prompt tokens and {len(response_ids)} response "
            "tokens. A prompt that is read from the cache gives none: start SGLang with "
            "--disable-radix-cache."
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
