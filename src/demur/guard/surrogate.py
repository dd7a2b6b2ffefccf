"""A white-box model reads the texts of a black-box model, so that a guard can judge them.

Rahimi et al., arXiv:2602.02600, appendix E.6. One teacher-forced pass over the chat prompt and the
response:

    1. in an autoregressive model, the state at each position produces the token at the next one;
    2. the running mean of the states behind the response's tokens is what the pooling ``running``
       records when the surrogate generates that text itself.

Differs from the paper: its surrogate is a diffusion model (Dream). A bidirectional model reads the
whole response at once, so it has no state that depends on the beginning of a response alone. Here the
surrogate is autoregressive, and the guard can judge each prefix of the response.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.sampling.pooling import RunningMeans
from demur.thoughts import spoken
from demur.types import Fingerprint, Prompt, Trace, Traces


def read_texts(
    model: LanguageModel,
    texts: Iterable[tuple[Prompt, str]],
    *,
    steps: int | None = None,
    layers: Sequence[str] = ("last",),
    batch_size: int = 32,
) -> Traces:
    """Traces of a surrogate that reads prompts and responses, in order.

    There is one step for each response token of the surrogate's tokenizer and one after the last, at
    most ``steps``. Fit anchors and a guard for these traces on traces read in the same way.

    Args:
        model: autoregressive surrogate.
        texts: prompts and the black box's responses, of which it reads what follows the thought.
        steps: T; the surrogate's own when None.
        layers: ``last``, ``first``, ``middle`` or numbers of decoder blocks.
        batch_size: texts read together; does not change results.

    Raises:
        InputError: not an autoregressive model, no texts, or one too long for it.
    """
    if model.traits.attention != "causal":
        raise InputError(
            f"{model.name} is a {model.traits.attention} model: each of its states depends on the "
            "whole text. Use an autoregressive surrogate, such as organism-ar."
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
    pairs = [(prompt, spoken(text) or "") for prompt, text in texts]
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
    # A step reads the tokens before its own, so the last token needs no position.
    answers = [model.chat.plain_ids(text) for _, text in part]
    rows = [ids + answer[: steps - 1] for ids, answer in zip(asked, answers, strict=True)]
    longest = max(map(len, rows))
    if longest > model.context_length:
        raise InputError(
            f"A prompt and its response have {longest:,} tokens, more than {model.name} can read "
            f"({model.context_length:,}). Shorten or remove it."
        )
    # Padding comes after a text, where a causal model does not read it.
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
    states = model.states(ids, None, layers=("last", *layers))
    traces = []
    for row, (prompt, text) in enumerate(part):
        own = {layer: states[layer][row, len(asked[row]) - 1 : len(rows[row])] for layer in layers}
        answer = np.array(answers[row][:steps], dtype=np.int32)
        length = len(next(iter(own.values())))
        seen = np.arange(len(answer)) < np.arange(1, length + 1)[:, None]
        committed = np.where(seen, answer, np.int32(-1))
        traces.append(
            Trace(
                prompt=prompt,
                response=text,
                response_ids=answer,
                committed=committed,
                draft=committed,
                phi=_running_means(own),
                finish_reason="stop" if length > len(answer) else "length",
                blocks=np.zeros(length, dtype=np.int32),
                fingerprint=mark,
            )
        )
    return traces


def _running_means(states: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    """Layer -> ``[T, D]``, the mean of the states ``[T, D]`` up to each."""
    first = next(iter(states.values()))
    means, row = RunningMeans(1), torch.zeros(1, dtype=torch.long, device=first.device)
    parts = (dict(zip(states, step, strict=True)) for step in zip(*states.values(), strict=True))
    found = [means.add({k: v[None] for k, v in part.items()}, row, row == 0) for part in parts]
    return {layer: torch.cat([one[layer] for one in found]).cpu().numpy() for layer in states}
