"""The prompts of each arm: the sets of the study file, read and cut to size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.prompts import read_prompts
from demur.study.plan.spec import ModelSpec, PromptSetSpec, Role, Study
from demur.types import Label, Prompt, digest

#: Prefixes of sources that are not files.
_NOT_FILES = ("organism:", "hub:", "set:")


@dataclass(frozen=True)
class StudySet:
    """Prompts of one role and attack.

    Attributes:
        name: role, source and attack. Includes the full path and the attack's settings if two sets
            would otherwise have the same name.
        role: what the prompts are for.
        prompts: prompts before the attack.
        attack: settings of the attack to apply, its name included. None: no attack.
    """

    name: str
    role: Role
    prompts: tuple[Prompt, ...]
    attack: Mapping[str, Any] | None = None

    @property
    def inputs(self) -> str:
        """Hash of the prompts and the attack, for cell keys."""
        return digest([[prompt.as_data() for prompt in self.prompts], self.attack])


@dataclass(frozen=True)
class _Wanted:
    """A set whose prompts are not read yet."""

    role: Role
    source: str
    label: Label
    count: int
    attack: Mapping[str, Any] | None

    def read(self, folder: Path, *, planned: bool) -> list[Prompt]:
        return read_source(self.source, folder, limit=self.count, label=self.label, planned=planned)

    def name(self, folder: Path, *, full: bool) -> str:
        attack = dict(self.attack or {})
        parts = [self.role, self.source]
        if not full and not self.source.startswith(_NOT_FILES):
            parts[1] = Path(self.source).stem
        parts += [str(attack.pop("name"))] if attack else []
        settings = ", ".join(f"{k} {v}" for k, v in sorted(attack.items()))
        return " ".join(parts) + (f" ({settings})" if full and settings else "")


def prompt_sets(
    study: Study, folder: Path, model: ModelSpec, *, main: bool, planned: bool = False
) -> list[StudySet]:
    """Every set of a model, cut to the model's share, or to ``few`` for arms that are not main.

    Args:
        study: the study.
        folder: folder of its relative paths.
        model: the model.
        main: whether the arm is the model's first.
        planned: replace prompts of missing files by numbered placeholders.

    Raises:
        InputError: a source cannot be read, or two sets are the same.
    """
    wanted = [*_wanted(study, model, main=main)]
    short = Counter(one.name(folder, full=False) for one in wanted)
    names = [one.name(folder, full=short[one.name(folder, full=False)] > 1) for one in wanted]
    name, count = Counter(names).most_common(1)[0] if names else ("", 1)
    if count > 1:
        raise InputError(
            f"{count} sets of {model.name} are the same: {name!r}. Remove all but one, or change the "
            "settings of their attacks."
        )
    return [
        StudySet(name, one.role, tuple(one.read(folder, planned=planned)), one.attack)
        for name, one in zip(names, wanted, strict=True)
    ]


def read_source(
    source: str, folder: Path, *, limit: int, label: Label = "unknown", planned: bool = False
) -> list[Prompt]:
    """Prompts of a file next to the study, or of another source.

    Args:
        source: as in ``demur.prompts.read_prompts``, or a file in ``folder``.
        folder: folder of relative paths.
        limit: maximum number of prompts.
        label: label of prompts that have none.
        planned: if the file is missing, return ``limit`` numbered placeholders.

    Raises:
        InputError: the source cannot be read.
    """
    if planned and not _is_there(source, folder):
        return [Prompt(f"{source}, prompt {i}", label=label) for i in range(limit)]
    beside = folder / source
    return read_prompts(beside if beside.is_file() else source, label=label, limit=limit)


def one_a_goal(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each goal, in order."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(prompt.goal, prompt)
    return list(first.values())


def missing_files(study: Study, folder: Path) -> list[str]:
    """Prompt files that the study names and that do not exist, each once."""
    parts = [part for sets in study.sets.values() for part in sets]
    sources = [source for part in parts for source in _sources(part)]
    sources += [study.adaptive.source] if study.adaptive else []
    return [s for s in dict.fromkeys(sources) if not _is_there(s, folder)]


def require_files(study: Study, folder: Path) -> None:
    """Raise InputError if prompt files are missing. The message names all of them."""
    if missing := missing_files(study, folder):
        raise InputError(
            f"{len(missing)} prompt files are neither in {folder.resolve()} nor in {Path.cwd()}: "
            f"{', '.join(missing)}. Put them there, or change the sources in the study file."
        )


def _is_there(source: str, folder: Path) -> bool:
    file = source.partition("@")[2] if source.startswith("set:") else source
    if source.startswith(_NOT_FILES) and not (source.startswith("set:") and file):
        return True
    return (folder / file).is_file() or Path(file).is_file()


def _wanted(study: Study, model: ModelSpec, *, main: bool) -> Iterator[_Wanted]:
    for role, parts in study.sets.items():
        for part in parts:
            count = part.n if main else part.few
            if count is None or model.name not in (part.models or (model.name,)):
                continue
            count = ceil(count * model.share) if main else count
            for source in _sources(part):
                for attack in part.attacks or (None,):
                    yield _Wanted(role, source, part.label, count, attack)


def _sources(part: PromptSetSpec) -> Iterator[str]:
    return (part.source.replace("{each}", name) for name in part.each or ("",))
