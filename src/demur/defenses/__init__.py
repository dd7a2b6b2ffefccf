"""Defenses: generate, and answer more safely. To add one, write a frozen dataclass of its settings in
a file of its own and add it to ``DEFENSES``; other packages name such a class under the entry point
group ``demur.defenses``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.defenses.defended import REFUSAL, Action, Defended, Defense, Outcome
from demur.defenses.diffuguard import DiffuGuard
from demur.defenses.llama_guard import LlamaGuard
from demur.defenses.perplexity_filter import PerplexityFilter
from demur.defenses.self_examine import SelfExamine
from demur.defenses.smooth_llm import SmoothLLM
from demur.defenses.sri_guard import SriGuard
from demur.plugins import known
from demur.settings import made

__all__ = [
    "DEFENSES",
    "REFUSAL",
    "Action",
    "Defended",
    "Defense",
    "DiffuGuard",
    "LlamaGuard",
    "Outcome",
    "PerplexityFilter",
    "SelfExamine",
    "SmoothLLM",
    "SriGuard",
    "defense_from",
    "known_defenses",
]

#: Every defense that ships with demur.
DEFENSES: Mapping[str, Any] = {
    defense.name: defense
    for defense in (PerplexityFilter, SelfExamine, LlamaGuard, SmoothLLM, SriGuard, DiffuGuard)
}


def known_defenses() -> Mapping[str, Any]:
    """Ours and those of installed plug-ins, by name."""
    return known("defenses", DEFENSES)


def defense_from(values: Mapping[str, Any]) -> Defense:
    """Make a defense from plain data: ``{"name": "smooth-llm", "copies": 5}``.

    Raises:
        InputError: an unknown defense or setting, one that is missing, or a value of a wrong kind.
    """
    defense: Defense = made(known_defenses(), values, what="defense")
    return defense
