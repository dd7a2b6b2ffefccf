"""The prompts of a study: each set of the file, read and cut for one model's arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from demur.prompts import read_prompts
from demur.study.spec import ModelSpec, PromptSet, Role, Study
from demur.types import Prompt, digest


@dataclass(frozen=True)
class Set:
    """Prompts of one role and attack.

    Attributes:
        name: role, source and attack.
        role: what it is for.
        prompts: as read, before the attack.
        attack: spec of the attack to put them through, if any.
    """

    name: str
    role: Role
    prompts: tuple[Prompt, ...]
    attack: Mapping[str, Any] | None = None

    @property
    def digest(self) -> str:
        """Hash of the prompts and the attack."""
        return digest([[asdict(prompt) for prompt in self.prompts], self.attack])


def prompt_sets(study: Study, folder: Path, model: ModelSpec, *, main: bool) -> list[Set]:
    """Every set of a model, cut to its share; arms that are not main get the ``few`` of each.

    Raises:
        InputError: a source cannot be read; the message says where.
    """
    found = []
    for role, parts in study.sets.items():
        for part in parts:
            count = part.n if main else part.few
            if count is not None and model.name in (part.models or (model.name,)):
                wanted = ceil(count * model.share) if main else count
                found += list(_expanded(part, role, folder, wanted))
    return found


def _expanded(part: PromptSet, role: Role, folder: Path, count: int) -> Iterator[Set]:
    for name in part.each or ("",):
        source = part.source.replace("{each}", name)
        beside = folder / source
        read = read_prompts(beside if beside.is_file() else source, label=part.label, limit=count)
        for attack in part.attacks or (None,):
            parts = [role, Path(source).stem if beside.is_file() else source]
            label = " ".join([*parts, *([str(attack["name"])] if attack else [])])
            yield Set(label, role, tuple(read), attack)
