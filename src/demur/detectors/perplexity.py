"""Perplexity of the prompt: adversarial suffixes are unlikely text.

Alon and Kamfonas, Detecting Language Model Attacks with Perplexity, arXiv:2308.14132; Jain et al.,
Baseline Defenses for Adversarial Attacks Against Aligned Language Models, arXiv:2309.00614:

    1. an autoregressive model gives each prompt token its negative log-likelihood;
    2. the score is their mean, the logarithm of the perplexity.

Differs from the papers: the first token is left out, because nothing precedes it; a prompt of one token
scores 0. It reads the prompt alone, so it says nothing about the model's answer.

It does not beat chance on the built-in models: AUROC .55 against all harmless prompts of the test set
and .51 against those in the same wrappers, because attacks and harmless prompts are wrapped in the same
fluent words, and ``organism-ar`` was trained on responses alone. On ``organism-dlm`` with
prefilled answers, which change no prompt, it does not beat chance either: AUROC 0.49.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from demur.detectors.method import Detector
from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.types import Traces

#: Texts read together.
_BATCH = 8


@final
@dataclass(frozen=True)
class Perplexity(Detector):
    """Reads prompts with a model; there is nothing else to fit."""

    model: LanguageModel

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Nats a token: ``[N]``, 0 or more."""
        losses = surprisal(self.model, [trace.prompt.text for trace in traces])
        return np.array([loss.mean() if len(loss) else 0.0 for loss in losses], dtype=np.float32)


@torch.inference_mode()
def surprisal(model: LanguageModel, texts: Sequence[str]) -> list[NDArray[np.float32]]:
    """Negative log-likelihood in nats of every token but the first of each text.

    The texts stand alone, without a chat template. Each text is read once: one forward pass.

    Raises:
        InputError: the model is not autoregressive.
    """
    if model.traits.attention != "causal":
        raise InputError(
            f"Perplexity needs an autoregressive model; {model.name} is a "
            f"{model.traits.attention} one. Load another to read the prompts with."
        )
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(texts), _BATCH):
        rows = [model.chat.template_ids((text,)) or [0] for text in texts[start : start + _BATCH]]
        # Padded on the right: a causal model does not read it.
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long, device=model.device)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        logits = model.logits(model.states(ids, None)["last"][:, :-1]).float()
        loss = -logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0].cpu().numpy()
        found += [values[: len(row) - 1] for values, row in zip(loss, rows, strict=True)]
    return found
