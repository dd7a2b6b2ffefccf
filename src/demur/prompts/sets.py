"""Published prompt sets by name: where each is on the hub, its columns, and what its prompts are.

A set is read from the hub (extra ``hub``) or from the user's own file, whose columns tell which set it
is. Nothing of them is part of demur; some ask on the hub for consent to their terms first.
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
        told_by: word in the name of a file, configuration or split -> label, where several published
            files of the set have the same columns.
        members: digests of the texts that have ``label``, where a file's name need not tell; those of
            any other text are ``unknown``.
        called: words of which a file's name holds one, where its columns are anybody's.
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
        """What is known about a text of the set.

        Args:
            name: of the file, or of the configuration and split on the hub.
            text: the goal.
        """
        told = [label for word, label in self.told_by.items() if word in name.casefold()]
        if len(set(told)) == 1:
            return told[0]
        if self.members and digest(text.strip(), length=6) not in self.members:
            return "unknown"
        return self.label


#: Digests of the goals in JailbreakBench's file of harmful behaviours; that of benign ones has the
#: same columns.
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
    """Look a set up by name.

    Raises:
        InputError: no such set.
    """
    if name not in SETS:
        raise InputError(f"Unknown prompt set {name!r}. Known: {', '.join(SETS)}.")
    return SETS[name]


def recognised(columns: Iterable[str], name: str = "") -> PromptSet | None:
    """The set whose file has these columns and, where they are anybody's, this name; None else.

    Two columns alone must be all there are; of longer forms every column must be there.
    """
    there = {column.strip().casefold() for column in columns}
    for one in SETS.values():
        if one.called and not any(word in name.casefold() for word in one.called):
            continue
        for form in one.columns:
            if there == set(form) or (len(form) > 2 and there >= set(form)):
                return one
    return None
