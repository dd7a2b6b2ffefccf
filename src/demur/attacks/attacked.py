"""What an attack is, and what attacks share: attacked prompts, templates, settings that are models."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator

from demur.endpoint import Assistant
from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.types import Prompt, Template, digest


class Attack(ABC):
    """Settings of an attack; calling it attacks prompts. Subclasses are frozen dataclasses."""

    name: ClassVar[str]
    description: ClassVar[str]
    source: ClassVar[str]
    needs_target: ClassVar[bool] = False

    @abstractmethod
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


class PromptAttack(Attack):
    """An attack that needs nothing but the prompt."""

    def __call__(
        self, prompts: Sequence[Prompt], *, target: LanguageModel | None = None, seed: int = 0
    ) -> list[Prompt]:
        """See ``Attack``; each prompt goes through ``attack``."""
        return [self.attack(prompt) for prompt in prompts]

    @abstractmethod
    def attack(self, prompt: Prompt) -> Prompt:
        """The attacked prompt."""


def attacked(
    origin: Prompt,
    attack: str,
    *,
    text: str | None = None,
    user: Template | None = None,
    response: Template | None = None,
) -> Prompt:
    """The attacked prompt; goal and label stay.

    Its id is the origin's id, the attack's name and a digest of what is sent, so that the same attack
    gives the same id and different settings give different ones. An attack on an attacked prompt adds
    its name to the ``attack`` field: ``role_play+prefill``.

    Args:
        origin: the prompt to attack.
        attack: the attack's name.
        text: the new user turn; unchanged when None.
        user: a user turn with masked slots.
        response: fixed parts of the response.

    Raises:
        InputError: the origin already has a template that this one would replace.
    """
    if origin.user is not None and (text is not None or user is not None):
        raise InputError(
            f"Prompt {origin.id} has masked slots in its user turn, which {attack} would remove. "
            f"Use {attack} on the original prompt."
        )
    if origin.response is not None and response is not None:
        raise InputError(
            f"The response to prompt {origin.id} has fixed parts already, and {attack} sets others. "
            f"Use {attack} on the original prompt."
        )
    made = replace(
        origin,
        text=origin.text if text is None else text,
        user=origin.user if user is None else user,
        response=origin.response if response is None else response,
        attack=attack if origin.attack == "none" else f"{origin.attack}+{attack}",
    )
    mark = digest([made.attack, made.text, made.user, made.response], length=8)
    return replace(made, id=f"{origin.id}/{attack}-{mark}")


def fill(template: str, **slots: str) -> str:
    """Fill the ``{slots}`` of a template where each first stands; other braces stay as they are.

    Raises:
        InputError: the template lacks a slot.
    """
    for name in slots:
        if f"{{{name}}}" not in template:
            raise InputError(f"The template has no {{{name}}}: {template!r}. Add it.")
    # In one pass, so that braces in what is filled in stay as they are.
    return re.sub(r"\{(\w+)\}", lambda found: slots.pop(found[1], found[0]), template)


def require_target(target: LanguageModel | None, attack: str) -> LanguageModel:
    """The target, for attacks that need one.

    Raises:
        InputError: there is none.
    """
    if target is None:
        raise InputError(
            f"The attack {attack} needs the model under attack. Pass target=load(...), or --model on "
            "the command line."
        )
    return target


def _can_answer(value: Any) -> Any:
    if not callable(getattr(value, "answer", None)):
        raise ValueError(f"{value!r} cannot answer; give an Assistant (see demur.endpoint)")
    return value


#: A setting whose value is a model to ask.
AskedModel = Annotated[Assistant, PlainValidator(_can_answer)]
