"""A tiny real model that thinks: hooks force its tokens, and its states are its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer

import demur
from conftest import TEMPLATE, WORDS, save_llama
from demur.models.base import LanguageModel

#: Families of marks: opening, closing, and whether they are control tokens.
MARKS = {
    "think": ("<think>", "</think>", False),
    "magistral": ("[THINK]", "[/THINK]", True),
    "command": ("<|START_THINKING|>", "<|END_THINKING|>", True),
}
CHANNELS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")


def thinking_model(
    folder: Path, marks: str = "think", *, opens: bool = False, script: Sequence[str] = ()
) -> LanguageModel:
    """A random Llama whose tokenizer and template know of thoughts.

    Args:
        folder: where it is written.
        marks: a name of ``MARKS``, or ``harmony``.
        opens: whether the template opens the thought itself.
        script: tokens that it writes after any prompt, whatever its states are; random without.
    """
    save_llama(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if marks == "harmony":
        new, control = (*CHANNELS, "analysis", "final", "assistant"), True
        tokenizer.add_special_tokens({"additional_special_tokens": list(CHANNELS)})
        tokenizer.add_tokens(["analysis", "final"])
        head = "<|channel|>analysis<|message|>"
    else:
        first, last, control = MARKS[marks]
        new, head = (first, last), first
        if control:
            extra = {"additional_special_tokens": ["<|user|>", "<|assistant|>", *new]}
            tokenizer.add_special_tokens(extra)
        else:
            tokenizer.add_tokens(list(new))
    shown = TEMPLATE + (head + "\n" if opens else "{# " + "".join(new) + " #}")
    tokenizer.chat_template = shown
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    torch.manual_seed(0)
    from transformers import LlamaConfig, LlamaForCausalLM

    config["vocab_size"] = len(tokenizer)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    model = demur.load(folder)
    if script:
        ids = tokenizer.convert_tokens_to_ids(list(script))
        assert None not in ids
        assert tokenizer.unk_token_id not in ids, script
        force(model, ids)
    return model


def force(model: LanguageModel, ids: Sequence[int]) -> None:
    """Make a model write these tokens after any prompt, in batches whose rows begin together.

    The embedding layer counts the tokens that each row has read since its prompt.
    """
    embedding, head = model.net.get_input_embeddings(), model.net.get_output_embeddings()
    rows: list[list[int]] = []

    def seen(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal rows
        given = inputs[0].tolist()
        long = given and len(given[0]) > 1
        rows = [[] for _ in given] if long or len(rows) != len(given) else rows
        if not long:
            for row, (token,) in zip(rows, given, strict=True):
                row.append(token)

    def told(
        module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        forced = torch.full_like(output, -100.0)
        flat = forced.view(-1, forced.shape[-1])
        for place, line in enumerate(flat):
            done = len(rows[place]) if place < len(rows) else 0
            line[ids[min(done, len(ids) - 1)]] = 100.0
        return forced

    embedding.register_forward_hook(seen)
    head.register_forward_hook(told)


__all__ = ["CHANNELS", "MARKS", "WORDS", "force", "thinking_model"]
