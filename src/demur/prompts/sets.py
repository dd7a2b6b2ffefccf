"""Published prompt sets by name: place on the hub, columns, and labels.

A set is read from the hub (extra ``hub``) or from the user's own file, which is recognised by its
columns. demur contains none of them; some require consent to their terms on the hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from demur.errors import InputError
from demur.types import Label, digest


@dataclass(frozen=True)
class PromptSet:
    """One published set.

    Attributes:
        name: name in demur.
        source: paper.
        hub: ``org/name``; empty if it is published as files only.
        label: label of its prompts, if no column has one.
        columns: lower-case columns that identify a file of the set, one tuple per published form.
        category: columns that may hold a prompt's category, in order of preference.
        config: configuration on the hub.
        split: split on the hub.
        options: further arguments of ``datasets.load_dataset``.
        attack: attack that made the prompts, if no column names one.
        told_by: word in the name of a file, configuration or split -> label, for sets with several
            files of the same columns.
        members: digests of the texts that have ``label``; other texts are ``unknown``. Used if the
            file's name does not decide.
        called: the file's name must contain one of these words, for sets with common columns.
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
    told_by: Mapping[str, Label] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    called: tuple[str, ...] = ()

    def label_of(self, name: str, text: str) -> Label:
        """The label of a text of the set.

        Args:
            name: name of the file, or configuration and split on the hub.
            text: the goal.
        """
        told = [label for word, label in self.told_by.items() if word in name.casefold()]
        if len(set(told)) == 1:
            return told[0]
        if self.members and digest(text.strip(), length=6) not in self.members:
            return "unknown"
        return self.label


#: Digests of the goals in JailbreakBench's file of harmful behaviours. Its file of benign ones has
#: the same columns.
_JAILBREAKBENCH = """
9a96b1 a73d4c 2c4463 c94213 0d74e6 61f855 f7f1f0 1883f2 3a2d36 59982c e738e8 e55a7a 2e3edc cdeba1
9130a3 df7b17 514985 46316d 678826 47236b fc89a6 b56afc 2d4654 f0d745 984d11 8f6d51 48dcf9 95302f
d7df38 7da04c 9d5833 258d97 136d0b 95bcca dbe723 343c21 923cad 6afdd4 04d915 313c52 fe9b5c c981d2
c7f9f2 22b3cc a78ff1 f2cdf8 6f2477 ab8a0d 56834d 070030 c96905 780d8c 3cfc5c 016d9a 53fd2c 092451
a78b90 2d62dc 1be166 adf453 83db1c 6512bc 4bc645 75a7a5 6c3bd9 76fc49 eba1e8 a8f731 81ce3b 14fd32
a26660 fffc94 732ff6 85e92d d116d2 ee16bd 47fbe8 9f2c80 449b81 8908f0 1884b9 b053f4 d88d78 c05576
02a7ed cf7bb3 e7b508 9921a2 8d5e28 8eac93 d13e34 5410f1 6062d9 b2f13e 995266 a89ba9 53ef05 b369e7
4d8e24 0041ce
"""

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
            told_by={"benign": "harmless", "harmful": "harmful"},
            members=frozenset(_JAILBREAKBENCH.split()),
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
            (("prompt", "category"),),
            config="or-bench-hard-1k",
            told_by={"toxic": "harmful", "hard": "borderline", "80k": "borderline"},
            called=("or-bench", "or_bench"),
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
    """Find a set by name.

    Raises:
        InputError: unknown name.
    """
    if name not in SETS:
        raise InputError(f"Unknown prompt set {name!r}. Known: {', '.join(SETS)}.")
    return SETS[name]


def recognised(columns: Iterable[str], name: str = "") -> PromptSet | None:
    """The set whose files have these columns and this name, or None.

    A form of two columns must match exactly; a longer one may have more columns beside it.
    """
    there = {column.strip().casefold() for column in columns}
    for one in SETS.values():
        if one.called and not any(word in name.casefold() for word in one.called):
            continue
        for form in one.columns:
            if there == set(form) or (len(form) > 2 and there >= set(form)):
                return one
    return None
