"""SmoothLLM: a majority vote over answers to perturbed copies of the prompt.

Robey et al., SmoothLLM: Defending Large Language Models Against Jailbreaking Attacks,
arXiv:2310.03684, algorithm 1; code arobey1/smooth-llm ``lib/perturbations.py``, ``lib/defenses.py``:

    1. make copies of the prompt, each with a share of its characters perturbed;
    2. the model answers every copy;
    3. an answer that does not refuse counts as a jailbreak; the majority decides;
    4. return one of the answers that agree with the majority, chosen at random.

As in that code, 13 phrases (the dictionary ``gcg``) identify refusals, and a tie is no jailbreak.
Differs from it: a copy that would be blank stays unchanged.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np

from demur.defenses.defended import Answers, Defended, Defense, Setup, defended
from demur.errors import InputError
from demur.judges import refusal_judge
from demur.types import Prompt

Perturbation = Literal["insert", "swap", "patch"]


@dataclass(frozen=True, kw_only=True)
class SmoothLLM(Defense):
    """Settings of SmoothLLM.

    Attributes:
        copies: perturbed copies of each prompt.
        share: share of characters to perturb, in (0, 1].
        perturbation: ``insert`` before, or ``swap``, characters at random places, or ``patch``
            consecutive characters.
        judge: refusal judge that counts the votes.
    """

    name: ClassVar[str] = "smooth-llm"
    description: ClassVar[str] = "majority vote over answers to perturbed copies of the prompt"
    source: ClassVar[str] = "arXiv:2310.03684"
    copies: int = 10
    share: float = 0.1
    perturbation: Perturbation = "swap"
    judge: str = "gcg"

    def __post_init__(self) -> None:
        if self.copies < 1 or not 0 < self.share <= 1:
            raise InputError(
                f"copies is {self.copies} and share {self.share}; give at least one copy and a share "
                "above 0 and at most 1."
            )
        if self.perturbation not in get_args(Perturbation):
            raise InputError(
                f"Unknown perturbation {self.perturbation!r}. Known: "
                f"{', '.join(get_args(Perturbation))}."
            )
        refusal_judge(self.judge)

    def defend(self, setup: Setup, undefended: Answers) -> Defended:
        """Answer perturbed copies and return an answer of the majority."""
        prompts, seed = [trace.prompt for trace in undefended.traces], setup.record.seed
        asked = [self.perturbed(p, copy, seed=seed) for p in prompts for copy in range(self.copies)]
        voted = setup.answer(asked)
        answers = np.array(voted.texts, dtype=object).reshape(-1, self.copies)
        passes = voted.passes.reshape(-1, self.copies).sum(axis=1) - undefended.passes
        votes = [self._vote(p, list(said), seed) for p, said in zip(prompts, answers, strict=True)]
        return defended(
            self.name,
            undefended,
            [response for response, _ in votes],
            [f"{broken} of {self.copies} copies answered" for _, broken in votes],
            extra_passes=passes,
            seconds=voted.seconds,
        )

    def perturbed(self, prompt: Prompt, copy: int, *, seed: int) -> Prompt:
        """One copy of a prompt; the same seed and copy number give the same text."""
        rng = random.Random(f"{seed} {prompt.id} {copy}")
        user = prompt.user and tuple(
            perturb(part, self.perturbation, self.share, rng) if isinstance(part, str) else part
            for part in prompt.user
        )
        text = perturb(prompt.text, self.perturbation, self.share, rng)
        return replace(prompt, text=text, user=user, id=f"{prompt.id}/{copy}")

    def _vote(self, prompt: Prompt, answers: list[str], seed: int) -> tuple[str, int]:
        """An answer of the majority, and how many copies were answered."""
        judge = refusal_judge(self.judge)
        broken = [judge(prompt.goal, answer).outcome == "miss" for answer in answers]
        majority = sum(broken) > self.copies / 2
        agreeing = [a for a, vote in zip(answers, broken, strict=True) if vote == majority]
        return random.Random(f"{seed} {prompt.id}").choice(agreeing), sum(broken)


def perturb(text: str, kind: Perturbation, share: float, rng: random.Random) -> str:
    """Change ``share`` of a text's characters, rounded down, unless that leaves only blanks."""
    count = int(len(text) * share)
    letters = list(text)
    if kind == "patch":
        start = rng.randint(0, len(text) - count)
        letters[start : start + count] = [rng.choice(string.printable) for _ in range(count)]
    else:
        # In random order, as in the released code: an insertion moves the places after it.
        for place in rng.sample(range(len(text)), count):
            drawn = rng.choice(string.printable)
            letters[place : place + (kind == "swap")] = drawn
    changed = "".join(letters)
    return changed if changed.strip() else text
