"""Models, one family a file.

To add one, write ``NAME``, ``EXAMPLES``, ``TESTED``, ``recognises`` and ``load`` in a file of its own
and add it to ``FAMILIES``; other packages use the entry point group ``demur.families``.
"""

from __future__ import annotations

import json
import warnings
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
from demur.models.formats import beside
from demur.models.verification import notes_on, verify
from demur.organism import NAMES
from demur.plugins import plugins


class ModelWarning(UserWarning):
    """Something about a model that may change results."""


class Family(Protocol):
    """A family's module."""

    NAME: str
    EXAMPLES: str
    TESTED: str

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json is of this family."""

    def load(self, checkpoint: Checkpoint) -> LanguageModel:
        """Load the checkpoint."""


#: The first family that recognises a config loads it; the most general one comes last.
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
    adapter: str | Path | None = None,
    system: str | None = None,
    template: Mapping[str, Any] | None = None,
) -> LanguageModel:
    """Load a model; its family is recognised from its config.

    Anything that may change results, such as a setting of generation_config.json that demur does not
    apply, causes a warning and is kept in ``notes``.

    Args:
        name: a built-in model, a folder, a GGUF file (extra ``gguf``), the folder of a PEFT adapter
            (extra ``peft``) or a hub id: ``"organism-dlm"``, ``"./llama"``, ``"llama.Q4_K_M.gguf"``,
            ``"org/model"``; the name of a plug-in's model; or a causal language model of transformers
            that is in memory already.
        tokenizer: of a network in memory; only ``system`` and ``template`` go with it.
        dtype: ``float32`` on a CPU and the checkpoint's own elsewhere, unless given.
        device: such as ``"cuda"``; the CPU by default.
        device_map: as transformers takes it, such as ``"auto"``; excludes ``device``.
        revision: hub revision to pin.
        attention: transformers' implementation, such as ``"eager"``; its own choice by default.
            Masked models take ``"sdpa"`` and ``"eager"``.
        bits: load linear weights in 8 or 4 bits (extra ``quant``).
        allow_pickle: read pickled weights if there are no safetensors. Only tensors are unpickled;
            still, load none that you do not trust.
        adapter: a PEFT adapter to apply to these weights: a folder or a hub id (extra ``peft``).
        system: the system prompt, empty for none; the paper's by default.
        template: arguments of the chat template, such as ``{"enable_thinking": False}``.

    Raises:
        ModelError: nothing there, an unknown family, or a checkpoint that does not fit.
        InputError: the chat template has no such argument.
        MissingExtraError: an extra is not installed.
    """
    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "revision": revision,
        "attention": attention,
        "bits": bits,
        "allow_pickle": allow_pickle,
        "adapter": adapter,
    }
    notes: tuple[str, ...] = ()
    if (model := _in_memory(name, tokenizer)) is not None:
        if given := [option for option, value in options.items() if value]:
            raise ModelError(
                f"{model.name} is in memory already, so {', '.join(given)} cannot be set here. Set it "
                "where the network is made."
            )
    elif tokenizer is not None:
        raise ModelError(
            f"{str(name)!r} is loaded with the tokenizer that belongs to it. Leave tokenizer out."
        )
    else:
        checkpoint = find(name, **options)
        model, notes = _read(checkpoint), beside(checkpoint.location, checkpoint.adapter)
    verify(model)
    if system is not None:
        model = replace(model, system=system)
    if template:
        model.chat.check_options(template)
        model = replace(model, template=dict(template), revision=_with(model.revision, template))
    notes = (*notes, *notes_on(model))
    for note in notes:
        warnings.warn(note, ModelWarning, stacklevel=2)
    return replace(model, notes=notes) if notes else model


def _read(checkpoint: Checkpoint) -> LanguageModel:
    """Load a checkpoint with the family that recognises its config."""
    family = next((f for f in known_families() if f.recognises(checkpoint.config)), None)
    if family is None:
        known = "; ".join(f"{f.NAME} ({f.EXAMPLES})" for f in known_families())
        raise ModelError(
            f"Unknown architecture {checkpoint.config.get('model_type')!r} in {checkpoint.name}. "
            f"Known: {known}. To add one, write a family file (see docs/architecture.md)."
        )
    return family.load(checkpoint)


def _with(revision: str, template: Mapping[str, Any]) -> str:
    """A revision with the chat template's arguments, as in ``0123abcd?enable_thinking=false``."""
    given = sorted(template.items())
    return f"{revision}?" + "&".join(f"{name}={json.dumps(value)}" for name, value in given)


def _in_memory(name: Any, tokenizer: Any) -> LanguageModel | None:
    """The model of a network or of a plug-in; None for anything else.

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
    """Plug-ins first, then the built-in ones."""
    found = (plugin.value for plugin in plugins("families") if not plugin.problem)
    return (*found, *FAMILIES)
