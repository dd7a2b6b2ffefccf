"""Defenses: each generates safer answers, and says what that cost.

To add one, derive a frozen dataclass of its settings from ``Defense`` in a file of its own and add it
to ``DEFENSES``; other packages name the class under the entry point group ``demur.defenses``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.defenses.defended import (
    REFUSAL,
    Action,
    Answers,
    Defended,
    Defense,
    Outcome,
    Setup,
    screened,
)
from demur.defenses.diffuguard import DiffuGuard
from demur.defenses.llama_guard import LlamaGuard
from demur.defenses.perplexity_filter import PerplexityFilter
from demur.defenses.self_examine import SelfExamine
from demur.defenses.smooth_llm import SmoothLLM
from demur.defenses.sri_guard import SriGuard
from demur.plugins import known, made

__all__ = [
    "DEFENSES",
    "REFUSAL",
    "Action",
    "Answers",
    "Defended",
    "Defense",
    "DiffuGuard",
    "LlamaGuard",
    "Outcome",
    "PerplexityFilter",
    "SelfExamine",
    "Setup",
    "SmoothLLM",
    "SriGuard",
    "defense_from",
    "known_defenses",
    "screened",
]

#: Every defense that ships with demur.
DEFENSES: Mapping[str, type[Defense]] = {
    defense.name: defense
    for defense in (PerplexityFilter, SelfExamine, LlamaGuard, SmoothLLM, SriGuard, DiffuGuard)
}


def known_defenses() -> Mapping[str, type[Defense]]:
    """Our own defenses and those of plug-ins, by name."""
    return known("defenses", DEFENSES)


def defense_from(values: Mapping[str, Any]) -> Defense:
    """Make a defense from its name and settings: ``{"name": "smooth-llm", "copies": 5}``.

    Raises:
        InputError: an unknown defense or setting, a missing setting, or a value of the wrong type.
    """
    defense: Defense = made(known_defenses(), values, what="defense")
    return defense
