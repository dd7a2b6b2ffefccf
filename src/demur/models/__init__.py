"""Models: one family a file. To add one, write ``NAME``, ``EXAMPLES``, ``TESTED``, ``recognises``
and ``load`` in a file of its own and add it to ``FAMILIES``; other packages use the entry point group
``demur.families``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from demur.errors import ModelError
from demur.models import (
    a2d,
    bert_chat,
    causal,
    diffusion_gemma,
    dream,
    llada,
    llada2,
    masked_lm,
    sdar,
)
from demur.models.base import LanguageModel
from demur.models.checkpoint import Checkpoint, find
from demur.models.verification import verify
from demur.organism import NAMES
from demur.plugins import plugins


class Family(Protocol):
    """What a family's module offers."""

    NAME: str
    EXAMPLES: str
    TESTED: str

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json is of this family."""

    def load(self, checkpoint: Checkpoint) -> LanguageModel:
        """Load the checkpoint."""


#: The first family that recognises a config loads it, so the most general one comes last.
FAMILIES: tuple[Family, ...] = (
    masked_lm,
    llada,
    dream,
    a2d,
    bert_chat,
    sdar,
    llada2,
    diffusion_gemma,
    causal,
)


def load(
    name: str | Path | Any,
    *,
    tokenizer: Any = None,
    dtype: str | None = None,
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    revision: str | None = None,
    attention: str | None = None,
    bits: int | None = None,
    allow_pickle: bool = False,
) -> LanguageModel:
    """Load a built-in model, a local folder or a hub id, recognised from its config.

    Args:
        name: such as ``"organism-dlm"``, ``"./llama"`` or ``"org/model"``; the name of a plug-in's
            model; or a causal language model of transformers that is in memory already.
        tokenizer: of a network in memory; the other options do not go with it.
        dtype: ``float32`` on a CPU and the checkpoint's own elsewhere, unless given.
        device: where to put it, such as ``"cuda"``; the CPU by default.
        device_map: handed to transformers, such as ``"auto"``; excludes ``device``.
        revision: hub revision to pin.
        attention: transformers' implementation, such as ``"eager"``; its own choice by default.
            Masked models take ``"sdpa"`` and ``"eager"``.
        bits: load linear weights in 8 or 4 bits (extra ``quant``).
        allow_pickle: read pickled weights where there are no safetensors; tensors only are
            unpickled, but load none that you do not trust.

    Raises:
        ModelError: nothing there, an unknown family, or a checkpoint that does not fit.
        MissingExtraError: ``device_map`` or ``bits`` without the extra ``quant``.
    """
    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "revision": revision,
        "attention": attention,
        "bits": bits,
        "allow_pickle": allow_pickle,
    }
    if (model := _in_memory(name, tokenizer)) is not None:
        if given := [option for option, value in options.items() if value]:
            raise ModelError(
                f"{model.name} is in memory already, so {', '.join(given)} cannot be set here. Set it "
                "where the network is made."
            )
        verify(model)
        return model
    if tokenizer is not None:
        raise ModelError(
            f"{str(name)!r} is loaded with the tokenizer that belongs to it. Leave tokenizer out."
        )
    checkpoint = find(name, **options)
    family = next((f for f in known_families() if f.recognises(checkpoint.config)), None)
    if family is None:
        known = "; ".join(f"{f.NAME} ({f.EXAMPLES})" for f in known_families())
        raise ModelError(
            f"Unknown architecture {checkpoint.config.get('model_type')!r} in {checkpoint.name}. "
            f"Known: {known}. To add one, write a family file (see docs/architecture.md)."
        )
    model = family.load(checkpoint)
    verify(model)
    return model


def _in_memory(name: Any, tokenizer: Any) -> LanguageModel | None:
    """The model of a network or of a plug-in; None for what has to be found first.

    Raises:
        ModelError: a network that cannot be used, or a misspelt name of a model.
    """
    if not isinstance(name, str | Path):
        return causal.wrap(name, tokenizer)
    own = {plugin.name: plugin.value for plugin in plugins("models") if not plugin.problem}
    if str(name) in own:
        model: LanguageModel = own[str(name)]()
        return replace(model, name=str(name))
    if "/" not in str(name) and not Path(name).exists():
        # Asking the hub for a misspelt name would take half a minute.
        close = get_close_matches(str(name), [*NAMES, *own], n=1, cutoff=0.75)
        if close and close != [str(name)]:
            raise ModelError(
                f"No model {str(name)!r}. Did you mean {close[0]!r}? Known: "
                f"{', '.join([*NAMES, *own])}, a folder, or a hub id such as org/model."
            )
    return None


def known_families() -> tuple[Family, ...]:
    """Plug-ins first, then our own."""
    found = (plugin.value for plugin in plugins("families") if not plugin.problem)
    return (*found, *FAMILIES)
