"""How likely a response is to begin with a given word.

In an autoregressive model this is the probability of the next token, in a masked diffusion model that
of the first masked response position in the first draft.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.sampling import sampler_from
from demur.sampling.autoregressive import with_prefill
from demur.sampling.denoising import masked_text, predictors
from demur.sampling.fitting import in_halves
from demur.types import Prompt


def openings(model: LanguageModel, word: str) -> tuple[int, ...]:
    """Tokens that begin a response with this word, with and without a space before it.

    They are encoded after a whole prompt, because some tokenizers put a space before a text.

    Raises:
        InputError: the model's tokenizer does not know the word.
    """
    turns = [{"role": "user", "content": "?"}]
    before = model.chat.turn_ids(turns)
    found = set()
    for text in (word, f" {word}"):
        ids = model.chat.turn_ids(turns, after=text)
        if len(ids) > len(before) and ids[: len(before)] == before:
            found.add(ids[len(before)])
    # A token of only spaces could begin any word.
    found = {i for i in found if i != model.tokenizer.unk_token_id and model.decode([i]).strip()}
    if not found:
        raise InputError(
            f"{model.name}'s tokenizer does not know {word!r}. Choose an opening that it knows."
        )
    return tuple(sorted(found))


def opening_log_probabilities(
    model: LanguageModel, prompts: list[Prompt], tokens: tuple[int, ...]
) -> list[float]:
    """Log-probability of the likeliest of ``tokens`` as first response token, one per prompt.

    One forward pass for all prompts, or several if they do not fit into memory.

    Raises:
        InputError: a prompt is too long, or the model is a block or canvas model.
    """
    new_tokens = sampler_from(model.traits.sampler).new_tokens
    for prompt in prompts:
        model.check_fits(prompt, new_tokens=new_tokens)
    places = torch.tensor(tokens, device=model.device)

    @torch.inference_mode()
    def run(part: list[Prompt]) -> list[float]:
        scores = _first_logits(model, part, new_tokens).float().log_softmax(-1)
        found: list[float] = scores[:, places].max(-1).values.tolist()
        return found

    return in_halves(prompts, lambda part: run(list(part)))


def _first_logits(model: LanguageModel, prompts: list[Prompt], new_tokens: int) -> Tensor:
    """``[B, V]`` logits of the first response position that is not fixed."""
    batch = model.encode(prompts)
    if model.traits.attention == "causal":
        batch = with_prefill(model, batch)
        attention = batch.attention if batch.padded else None
        return model.logits(model.states(batch.ids, attention)["last"][:, -1])
    if model.traits.attention not in ("bidirectional", "encoder"):
        raise InputError(
            f"{model.name} is a {model.traits.attention} diffusion model; this search supports only "
            "autoregressive and masked diffusion models. Search on one of those and send its prompts "
            "to this one."
        )
    page = masked_text(model, batch, new_tokens)
    masked = page.tokens == page.mask_id
    masked[:, : page.start] = False
    first = masked & (masked.cumsum(1) == 1)
    states = model.states(page.tokens, page.attention)["last"]
    logits = model.logits(predictors(model, states, first, page.attention))
    logits[:, page.mask_id] = -torch.inf
    return logits
