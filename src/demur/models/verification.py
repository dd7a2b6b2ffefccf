"""What is tried out on a model that was just loaded, before anything is traced with it."""

from __future__ import annotations

import torch
from torch import Tensor

from demur.errors import ModelError
from demur.models.base import LanguageModel
from demur.models.faults import sentence

#: Columns of padding before the short row.
_PAD = 2

_RECURRENT = (
    "Architectures that carry a state from token to token (Mamba, RWKV and hybrids of them) are not "
    "supported. Use a transformer."
)


def verify(model: LanguageModel) -> None:
    """Try the vocabulary, and of an autoregressive model the head, the cache and the padding.

    Raises:
        ModelError: something does not give the network's own numbers.
    """
    check_vocabulary(model)
    if model.traits.attention != "causal":
        return
    try:
        check_logits(model)
        check_cache(model)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{model.name} ({type(model.net).__name__}) cannot be run in a padded batch with a cache: "
            f"{sentence(error)} {_RECURRENT}"
        ) from error


def check_vocabulary(model: LanguageModel) -> None:
    """Raise ModelError unless the tokenizer is the one of these weights, as far as can be told.

    transformers makes a tokenizer of the added tokens alone where the vocabulary's files are missing;
    less than a quarter of the embedding's rows is no padding of theirs any more.
    """
    rows = int(model.net.get_input_embeddings().weight.shape[0])
    known = set(model.tokenizer.get_vocab().values())
    if 4 * len(known) < rows:
        raise ModelError(
            f"The tokenizer of {model.name} knows {len(known):,} tokens and its weights {rows:,}. "
            "Put all its tokenizer files into the folder: tokenizer.json, or vocab.json and merges.txt."
        )
    mask, named = model.traits.mask_id, model.tokenizer.mask_token_id
    if mask is not None and not 0 <= mask < rows:
        raise ModelError(
            f"The mask token {mask} of {model.name} is outside its vocabulary of {rows:,}. Correct "
            "mask_token_id in config.json."
        )
    if mask is not None and named not in (None, mask):
        raise ModelError(
            f"{model.name} has mask_token_id {mask} in config.json, but its tokenizer's mask token is "
            f"{named}. Use the tokenizer that belongs to the weights."
        )
    if unknown := [i for i in model.traits.end_ids if i not in known or i >= rows]:
        raise ModelError(
            f"Responses of {model.name} end with {unknown}, which its tokenizer of {len(known):,} "
            "tokens does not know. Use the tokenizer that belongs to the weights, or correct "
            "eos_token_id in generation_config.json."
        )


@torch.inference_mode()
def check_logits(model: LanguageModel) -> None:
    """Raise ModelError unless states and head give the very logits that the whole network gives.

    It keeps an unknown head or logit scaling from going unseen.
    """
    ids = _tokens(model)[None, _PAD:]
    found = model.logits(model.states(ids, None)["last"]).float()
    expected = _whole(model, ids)
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        worst = (found - expected).abs().max().item()
        raise ModelError(
            f"{model.name}: logits made from its final states differ from the network's own by "
            f"{worst:.3g}. Its head is not one that demur knows; add a family file for it."
        )


@torch.inference_mode()
def check_cache(model: LanguageModel) -> None:
    """Raise ModelError unless a padded row, read beside a longer one, goes on from the cache alone.

    Networks that carry a state from token to token read padding into it, or know no such cache.
    """
    tokens = _tokens(model)
    expected = _whole(model, tokens[None, _PAD:])[0, -1]
    found = _second_step(model, tokens)
    # Relative to how far logits lie apart, with what rounding below float32 adds up to over the layers.
    off = float((found - expected).norm() / (expected - expected.mean()).norm())
    if not off < (1e-3 if model.dtype == "float32" else 0.1):
        raise ModelError(
            f"{model.name} ({type(model.net).__name__}): in a padded batch with a cache its logits "
            f"differ from those of the prompt alone by {off:.1%}. {_RECURRENT}"
        )


def _second_step(model: LanguageModel, tokens: Tensor) -> Tensor:
    """``[V]`` logits of the last token, the others read before it beside a row that has ended."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.net.config)
    attention = torch.ones(2, len(tokens), dtype=torch.bool, device=model.device)
    attention[1, :_PAD] = False
    model.states(tokens[:-1].expand(2, -1), attention[:, :-1], cache=cache)
    cache.batch_select_indices(torch.tensor([1], device=model.device))
    place = torch.tensor([[len(tokens) - 1 - _PAD]], device=model.device)
    states = model.states(tokens[None, -1:], attention[1:], positions=place, cache=cache)
    return model.logits(states["last"])[0, -1].float()


def _tokens(model: LanguageModel) -> Tensor:
    """``[6]`` different tokens from the middle of the vocabulary, where no special ones are."""
    rows = int(model.net.get_input_embeddings().weight.shape[0])
    return torch.arange(4, 10, device=model.device) * rows // 16


def _whole(model: LanguageModel, ids: Tensor) -> Tensor:
    """``[B, S, V]`` logits of the whole network, without cache or padding."""
    logits: Tensor = model.net(input_ids=ids, use_cache=False).logits.float()
    return logits.to(model.device)
