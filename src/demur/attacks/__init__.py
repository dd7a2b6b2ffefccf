"""Attacks: each turns prompts into attacked prompts that keep their goal.

To add one, derive a frozen dataclass of its settings from ``Attack`` in a file of its own and add it to
``ATTACKS``; other packages name the class under the entry point group ``demur.attacks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.attacks.adaptive import Adaptive
from demur.attacks.attacked import Attack, PromptAttack, attacked
from demur.attacks.dija import DIJA
from demur.attacks.flip import FlipAttack
from demur.attacks.pad import PAD
from demur.attacks.pair import PAIR
from demur.attacks.suffix_search import RandomSearch
from demur.attacks.templates import (
    ContextNesting,
    Plain,
    Prefill,
    PrefixInjection,
    RefusalSuppression,
    RolePlay,
)
from demur.plugins import known, made

__all__ = [
    "ATTACKS",
    "Attack",
    "PromptAttack",
    "attack_from",
    "attacked",
    "known_attacks",
]


#: Every attack that ships with demur.
ATTACKS: Mapping[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        Plain,
        PrefixInjection,
        RefusalSuppression,
        FlipAttack,
        RolePlay,
        ContextNesting,
        Prefill,
        RandomSearch,
        PAD,
        DIJA,
        PAIR,
        Adaptive,
    )
}


def known_attacks() -> dict[str, type[Attack]]:
    """Our own attacks and those of plug-ins, by name."""
    return known("attacks", ATTACKS)


def attack_from(values: Mapping[str, Any]) -> Attack:
    """Make an attack from its name and settings: ``{"name": "flip", "mode": "FWO"}``.

    Raises:
        InputError: an unknown attack or setting, or a value of a wrong kind.
    """
    attack: Attack = made(known_attacks(), values, what="attack")
    return attack
