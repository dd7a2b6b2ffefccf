"""Attacks: each turns prompts into attacked prompts that keep their goal.

To add one, write a frozen dataclass of its settings in a file of its own and add it to ``ATTACKS``;
other packages name the class under the entry point group ``demur.attacks``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from demur.attacks.adaptive import Adaptive
from demur.attacks.dija import DIJA
from demur.attacks.flip import FlipAttack
from demur.attacks.nesting import ContextNesting
from demur.attacks.pad import PAD
from demur.attacks.pair import PAIR
from demur.attacks.plain import Plain
from demur.attacks.prefill import Prefill
from demur.attacks.prefix_injection import PrefixInjection
from demur.attacks.random_search import RandomSearch
from demur.attacks.refusal_suppression import RefusalSuppression
from demur.attacks.role_play import RolePlay
from demur.models.base import LanguageModel
from demur.plugins import known
from demur.settings import made
from demur.types import Prompt

__all__ = ["ATTACKS", "Attack", "attack_from", "known_attacks"]


class Attack(Protocol):
    """Settings of an attack; calling it attacks prompts."""

    name: ClassVar[str]
    description: ClassVar[str]
    source: ClassVar[str]
    needs_target: ClassVar[bool]

    def __call__(
        self, prompts: Sequence[Prompt], *, target: LanguageModel | None = None, seed: int = 0
    ) -> list[Prompt]:
        """Return one attacked prompt per prompt, in order, with its goal and label.

        Args:
            prompts: the prompts to attack.
            target: the model under attack; required where ``needs_target``.
            seed: random seed; the same seed gives the same prompts.

        Raises:
            InputError: a prompt that the attack cannot use, or no target although it needs one.
        """


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
