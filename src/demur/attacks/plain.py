"""No attack: the prompt unchanged, as the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from demur.models.base import LanguageModel
from demur.types import Prompt


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Leaves prompts unchanged."""

    name: ClassVar[str] = "none"
    description: ClassVar[str] = "The prompt unchanged."
    source: ClassVar[str] = "the baseline of every table"
    needs_target: ClassVar[bool] = False

    def __call__(
        self, prompts: Sequence[Prompt], *, target: LanguageModel | None = None, seed: int = 0
    ) -> list[Prompt]:
        """The same prompts, ids included."""
        return list(prompts)
