"""Published prompt sets by name: where each is on the hub, its columns, and what its prompts are.

A set is read from the hub (extra ``hub``) or from the user's own file, whose columns tell which set it
is. Nothing of them is part of demur; some ask on the hub for consent to their terms first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from demur.errors import InputError
from demur.types import Label


@dataclass(frozen=True)
class PromptSet:
    """One published set.

    Attributes:
        name: what it is called here.
        source: paper.
        hub: ``org/name``; empty where it is published as files only.
        label: what its prompts are, where no column says.
        columns: lower-case columns by which a file of it is known, one tuple for each published form.
        category: columns that hold a prompt's category, the first that is there.
        config: configuration on the hub.
        split: split on the hub.
        options: further arguments of ``datasets.load_dataset``.
        attack: what made the prompts, where no column says.
    """

    name: str
    source: str
    hub: str
    label: Label
    columns: tuple[tuple[str, ...], ...]
    category: tuple[str, ...] = ("category",)
    config: str | None = None
    split: str = "train"
    options: Mapping[str, Any] = field(default_factory=dict)
    attack: str = "none"


SETS: Mapping[str, PromptSet] = {
    one.name: one
    for one in (
        PromptSet(
            "advbench",
            "Zou et al. 2023, arXiv:2307.15043",
            "walledai/AdvBench",
            "harmful",
            (("goal", "target"), ("prompt", "target")),
            category=(),
        ),
        PromptSet(
            "jailbreakbench",
            "Chao et al. 2024, arXiv:2404.01318",
            "JailbreakBench/JBB-Behaviors",
            "harmful",
            (("goal", "target", "behavior", "category", "source"),),
            config="behaviors",
            split="harmful",
        ),
        PromptSet(
            "harmbench",
            "Mazeika et al. 2024, arXiv:2402.04249",
            "walledai/HarmBench",
            "harmful",
            (("behavior", "functionalcategory", "semanticcategory", "behaviorid"),),
            category=("semanticcategory", "category"),
            config="standard",
        ),
        PromptSet(
            "strongreject",
            "Souly et al. 2024, arXiv:2402.10260",
            "walledai/StrongREJECT",
            "harmful",
            (("category", "source", "forbidden_prompt"),),
        ),
        PromptSet(
            "xstest",
            "Röttger et al. 2023, arXiv:2308.01263",
            "walledai/XSTest",
            "unknown",
            (("prompt", "type", "label", "focus"), ("id", "prompt", "type", "label", "focus")),
            category=("type",),
            split="test",
        ),
        PromptSet(
            "wildjailbreak",
            "Jiang et al. 2024, arXiv:2406.18510",
            "allenai/wildjailbreak",
            "unknown",
            (("vanilla", "adversarial", "data_type"), ("adversarial", "label", "data_type")),
            category=("data_type",),
            config="train",
            options={"delimiter": "\t", "keep_default_na": False},
        ),
        PromptSet(
            "or_bench",
            "Cui et al. 2024, arXiv:2405.20947",
            "bench-llm/or-bench",
            "borderline",
            (),
            config="or-bench-hard-1k",
        ),
        PromptSet(
            "alpaca",
            "Taori et al. 2023, github.com/tatsu-lab/stanford_alpaca",
            "tatsu-lab/alpaca",
            "harmless",
            (("instruction", "input", "output"),),
            category=(),
        ),
        PromptSet(
            "jailbreak_artifacts",
            "Chao et al. 2024, arXiv:2404.01318, github.com/JailbreakBench/artifacts",
            "",
            "harmful",
            (("index", "goal", "behavior", "category", "prompt", "response", "jailbroken"),),
            attack="artifact",
        ),
    )
}


def find_set(name: str) -> PromptSet:
    """Look a set up by name.

    Raises:
        InputError: no such set.
    """
    if name not in SETS:
        raise InputError(f"Unknown prompt set {name!r}. Known: {', '.join(SETS)}.")
    return SETS[name]


def recognised(columns: Iterable[str]) -> PromptSet | None:
    """The set whose file has these columns; None where it is another's.

    Two columns alone must be all there are; of longer forms every column must be there.
    """
    there = {column.strip().casefold() for column in columns}
    for one in SETS.values():
        for form in one.columns:
            if there == set(form) or (len(form) > 2 and there >= set(form)):
                return one
    return None
