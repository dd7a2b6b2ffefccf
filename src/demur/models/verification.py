"""Checks of a model that was just loaded, before anything is traced with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from demur.errors import ModelError
from demur.models.base import LanguageModel
from demur.models.formats import sentence

#: Columns of padding before the short row.
_PAD = 2

#: Settings of generation_config.json that change the tokens of ``generate``, with the values that have
#: no effect. demur decodes as arXiv:2602.02600 does: by the model's own logits.
_DECODING: Mapping[str, tuple[Any, ...]] = {
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "forced_decoder_ids": ([],),
    "sequence_bias": ({}, []),
    "exponential_decay_length_penalty": (),
    "min_new_tokens": (0,),
    "min_length": (0,),
    "num_beams": (1,),
    "guidance_scale": (1.0,),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
}


def verify(model: LanguageModel) -> None:
    """Check the vocabulary, and of an autoregressive model the head, the cache and the padding.

    Raises:
        ModelError: a result differs from the network's own.
    """
    check_vocabulary(model)
    if model.traits.attention != "causal":
        if model.recurrent:
            raise ModelError(
                f"{model.name} is a diffusion model with layers that carry a state from left to right "
                f"({type(model.net).__name__}); they cannot attend to both sides. Use a transformer."
            )
        return
    try:
        check_logits(model)
        check_cache(model)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{model.name} ({type(model.net).__name__}) cannot be run in a padded batch with a cache: "
            f"{sentence(error)} Use a model that transformers generates with in batches."
        ) from error


def notes_on(model: LanguageModel) -> tuple[str, ...]:
    """Warnings about an autoregressive model: settings that demur does not apply, and a turn end that
    does not end an answer."""
    if model.traits.attention != "causal":
        return ()
    found = []
    config = getattr(model.net, "generation_config", None)
    said = {name: getattr(config, name, None) for name in _DECODING}
    odd = {k: v for k, v in said.items() if v is not None and v not in _DECODING[k]}
    if odd:
        named = ", ".join(f"{name} {value!r}" for name, value in odd.items())
        found.append(
            f"generation_config.json of {model.name} sets {named}. demur decodes by the model's own "
            "logits and does not apply it, so that answers differ from those of generate. Remove it "
            "there to compare the two."
        )
    closing = model.chat.turn_end()
    if closing and closing[1] not in model.traits.end_ids:
        text, number = closing
        found.append(
            f"The chat template of {model.name} ends an answer with {text} ({number}), which is not an "
            f"end token ({list(model.traits.end_ids)}): answers run on into further turns. Add "
            f"{number} to eos_token_id in generation_config.json."
        )
    return tuple(found)


def check_vocabulary(model: LanguageModel) -> None:
    """Raise ModelError if the tokenizer clearly does not belong to these weights.

    If the vocabulary's files are missing, transformers makes a tokenizer of the added tokens alone.
    Embeddings are padded, but not to four times the vocabulary.
    """
    rows = model.vocabulary
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
    """Raise ModelError unless states and head produce the logits of the whole network.

    This finds heads and logit scalings that demur does not know.
    """
    ids = _tokens(model)[None, _PAD:]
    found = model.logits(model.states(ids, None)["last"]).float()
    expected = _whole(model, ids)
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        worst = (found - expected).abs().max().item()
        raise ModelError(
            f"{model.name}: logits made from its final states differ from the network's own by "
            f"{worst:.3g}. demur does not know its head; add a family file for it."
        )


@torch.inference_mode()
def check_cache(model: LanguageModel) -> None:
    """Raise ModelError unless a padded row, read beside a longer one, continues from the cache alone.

    Some networks carry a state from token to token that padding changes.
    """
    tokens = _tokens(model)
    expected = _whole(model, tokens[None, _PAD:])[0, -1]
    found = _second_step(model, tokens)
    # Relative to the spread of the logits; below float32, rounding adds up over the layers.
    off = float((found - expected).norm() / (expected - expected.mean()).norm())
    if not off < (1e-3 if model.dtype == "float32" else 0.1):
        raise ModelError(
            f"{model.name} ({type(model.net).__name__}): in a padded batch with a cache its logits "
            f"differ from those of the prompt alone by {off:.1%}. It reads padding into a state, or "
            "keeps one outside the cache. Use another model."
        )


def _second_step(model: LanguageModel, tokens: Tensor) -> Tensor:
    """``[V]`` logits of the last token, read after the others were read beside a row that ended."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.net.config)
    attention = torch.ones(2, len(tokens), dtype=torch.bool, device=model.device)
    attention[1, :_PAD] = False
    model.states(tokens[:-1].expand(2, -1), attention[:, :-1], cache=cache)
    cache.reorder_cache(torch.tensor([1], device=model.device))
    place = torch.tensor([[len(tokens) - 1 - _PAD]], device=model.device)
    states = model.states(tokens[None, -1:], attention[1:], positions=place, cache=cache)
    return model.logits(states["last"])[0, -1].float()


def _tokens(model: LanguageModel) -> Tensor:
    """``[6]`` different tokens from the middle of the vocabulary, away from special ones."""
    return torch.arange(4, 10, device=model.device) * model.vocabulary // 16


def _whole(model: LanguageModel, ids: Tensor) -> Tensor:
    """``[B, S, V]`` logits of the whole network, without cache or padding."""
    logits: Tensor = model.net(input_ids=ids, use_cache=False).logits.float()
    return logits.to(model.device)
