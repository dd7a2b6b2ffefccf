"""A model whose states can be seen reads what a black box wrote.

Rahimi et al., arXiv:2602.02600, appendix E.6. One teacher-forced pass over the chat prompt and the
response:

    1. the state at each position produces, in an autoregressive model, the token at the next one;
    2. the running mean of the states behind the response's tokens is what the pooling ``running``
       records when the surrogate writes that text itself.

Differs from the paper: its surrogate is a diffusion model (Dream). A bidirectional model reads the
whole response at once, so that no step of it is known before the end; here it is autoregressive, and
the guard sees after each word of the black box what it would see of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.types import Fingerprint, Prompt, Trace, Traces


def read_texts(
    model: LanguageModel,
    texts: Iterable[tuple[Prompt, str]],
    *,
    steps: int | None = None,
    layers: Sequence[str] = ("last",),
    batch_size: int = 32,
) -> Traces:
    """Traces of a surrogate reading prompts and responses, in order.

    A step a response token, as the surrogate's tokenizer cuts it, and one for what follows the last;
    at most ``steps`` of them. Anchors and a guard for these traces are fitted on such traces.

    Args:
        model: autoregressive.
        texts: prompts and what the black box answered.
        steps: T; the surrogate's own when None.
        layers: ``last``, ``first``, ``middle`` or numbers of decoder blocks.
        batch_size: texts read together; changes no result.

    Raises:
        InputError: not an autoregressive model, no texts, or one too long for it.
    """
    if model.traits.attention != "causal":
        raise InputError(
            f"{model.name} is a {model.traits.attention} model: it has no state that knows only the "
            "beginning of a text. Use an autoregressive surrogate, such as organism-ar."
        )
    steps = steps or int(model.traits.sampler["steps"])
    mark = Fingerprint(
        model=model.name,
        revision=model.revision,
        sampler={"name": "surrogate", "steps": steps},
        pooling="running",
        system=model.system,
        dtype=model.dtype,
    )
    pairs = list(texts)
    if not pairs:
        raise InputError("No texts to read: the list is empty. Give prompts and their responses.")
    parts = (pairs[first : first + batch_size] for first in range(0, len(pairs), batch_size))
    return Traces(tuple(t for part in parts for t in _read(model, part, mark, layers=layers)))


@torch.inference_mode()
def _read(
    model: LanguageModel,
    part: Sequence[tuple[Prompt, str]],
    mark: Fingerprint,
    *,
    layers: Sequence[str],
) -> list[Trace]:
    steps = int(mark.sampler["steps"])
    asked = [model.chat.ids(prompt, mask_id=None) for prompt, _ in part]
    # What a step sees lies before its token, so the last token needs no position.
    answers = [model.chat.plain_ids(text) for _, text in part]
    rows = [ids + answer[: steps - 1] for ids, answer in zip(asked, answers, strict=True)]
    longest = max(map(len, rows))
    if longest > model.context_length:
        raise InputError(
            f"A prompt and its response have {longest:,} tokens, more than {model.name} can read "
            f"({model.context_length:,}). Shorten or remove it."
        )
    # Padding behind a text is never seen by it.
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
    states = model.states(ids, None, layers=("last", *layers))
    traces = []
    for index, (prompt, text) in enumerate(part):
        own = slice(len(asked[index]) - 1, len(rows[index]))
        phi = {layer: _running_mean(states[layer][index, own]) for layer in layers}
        traces.append(_trace(prompt, text, answers[index][:steps], phi, mark))
    return traces


def _running_mean(states: torch.Tensor) -> Any:
    """``[T, D]`` states -> their mean up to each step, float32."""
    counts = torch.arange(1, len(states) + 1, device=states.device)[:, None]
    return (states.double().cumsum(0) / counts).float().cpu().numpy()


def _trace(prompt: Prompt, text: str, ids: list[int], phi: Any, mark: Fingerprint) -> Trace:
    length = len(next(iter(phi.values())))
    answer = np.array(ids, dtype=np.int32)
    seen = np.arange(len(ids)) < np.arange(1, length + 1)[:, None]
    committed = np.where(seen, answer, np.int32(-1))
    return Trace(
        prompt=prompt,
        response=text,
        response_ids=answer,
        committed=committed,
        draft=committed,
        phi=phi,
        finish_reason="stop" if length > len(ids) else "length",
        blocks=np.zeros(length, dtype=np.int32),
        fingerprint=mark,
    )
