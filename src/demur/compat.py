"""The paper's released wrappers, reproduced to compare with numbers that they computed.

Source: github.com/ElironRahimi/sri-signal, ``Models/LlamaWrapper.py``, ``Models/LLaDAWrapper.py``
(``_collectActivationsAndRefusals``) and ``SRI_alg.py`` (``create_signal``). Where they differ from
``demur.trace`` and ``demur.signal``:

- the tokenizer adds its own start token to a chat template that already has one;
- only the tokenizer's end token ends an autoregressive response, and after it the state that
  produced it is repeated to T inside the running mean;
- distances are taken in the dtype of the states, which in bfloat16 moves sigma by up to 0.2.

Differs from the wrappers: batched, and cached for autoregressive models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from demur.alignment import Alignment, align
from demur.models.base import Batch, LanguageModel
from demur.sampling import Autoregressive, Masked, RowNoise
from demur.sri import EPS, TAU
from demur.types import Record


def activations(
    model: LanguageModel,
    prompts: Sequence[str],
    *,
    steps: int = 32,
    gen_length: int = 128,
    block_length: int = 128,
    batch_size: int = 8,
) -> NDArray[np.float32]:
    """States as ``_collectActivationsAndRefusals`` returns them, ``[N, T, D]``.

    Args:
        model: autoregressive or masked; in float32 the numbers match the wrappers' within 1e-5.
        prompts: user turns.
        steps: T; generated tokens or denoising steps (no more than ``gen_length``).
        gen_length: response positions of a masked model.
        block_length: positions of a block of a masked model.
        batch_size: prompts generated together; changes no result.
    """
    causal = model.traits.attention == "causal"
    sampler = (
        Autoregressive(steps=steps)
        if causal
        else Masked(steps=steps, gen_length=gen_length, block_length=block_length)
    )
    record = Record(pooling="running" if causal else "response")
    rule: Alignment = "repeat_state" if causal else "repeat_last"
    ends = (int(model.tokenizer.eos_token_id),)
    released = replace(model, traits=replace(model.traits, end_ids=ends))
    found = []
    for first in range(0, len(prompts), batch_size):
        batch = encode(released, prompts[first : first + batch_size])
        noise = RowNoise.seeded([0] * len(batch.ids))
        taken = list(sampler.run(released, batch, record, noise))
        phi = torch.stack([step.phi["last"] for step in taken]).cpu().numpy()
        running = torch.stack([step.running for step in taken]).cpu().numpy()
        found += [align(phi[own, row], steps, rule=rule) for row, own in enumerate(running.T)]
    return np.stack(found)


def encode(model: LanguageModel, prompts: Sequence[str]) -> Batch:
    """Prompts as ``get_prompt_tensor`` encodes them, padded on the left."""
    rows = []
    for text in prompts:
        turns = [
            {"role": "system", "content": "You are a helpful assistant"},
            {"role": "user", "content": text},
        ]
        rendered = model.chat.render(turns)
        rows.append(model.tokenizer(rendered)["input_ids"])
    return model.batch(rows)


def create_signal(
    centers: tuple[ArrayLike, ArrayLike],
    states: ArrayLike,
    *,
    dtype: torch.dtype = torch.float32,
    tau: float = TAU,
    eps: float = EPS,
) -> NDArray[np.float32]:
    """The signal as ``create_signal`` computes it, every operation rounded to ``dtype``.

    Args:
        centers: harmless and harmful, each ``[T, D]``.
        states: ``[N, T, D]``.
        dtype: the dtype of the wrapper: bfloat16 for LLaDA, float16 for Llama.
        tau: sharpness.
        eps: guard against division by and logarithm of 0.

    Returns:
        ``[N, T]`` in [0, 1], 1 = complying.
    """
    x, *both = (torch.as_tensor(np.asarray(value), dtype=dtype) for value in (states, *centers))
    good, bad = (_distance(x, center, eps) for center in both)
    logit = (torch.log(bad + eps) - torch.log(good + eps)) / tau
    sigma: NDArray[np.float32] = torch.sigmoid(logit).float().numpy()
    return sigma


def _distance(x: Tensor, center: Tensor, eps: float) -> Tensor:
    """Cosine distance ``[N, T]`` of states ``[N, T, D]`` to one center, rounded as upstream."""
    x = x / (x.norm(dim=-1, keepdim=True) + eps)
    center = center / (center.norm(dim=-1, keepdim=True) + eps)
    products = [torch.dot(a, b) for row in x for a, b in zip(row, center, strict=True)]
    return 1.0 - torch.stack(products).reshape(x.shape[:-1])
