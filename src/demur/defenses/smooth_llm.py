"""SmoothLLM: a majority vote over answers to perturbed copies of the prompt.

Robey et al., SmoothLLM: Defending Large Language Models Against Jailbreaking Attacks,
arXiv:2310.03684, algorithm 1; code arobey1/smooth-llm ``lib/perturbations.py``, ``lib/defenses.py``:

    1. make copies of the prompt, with a share of the characters of each perturbed;
    2. the model answers every copy;
    3. an answer that is no refusal counts as a jailbreak; the majority decides;
    4. one of the answers that agree with the majority is returned, drawn evenly.

As in that code refusals are told by its 13 phrases (the dictionary ``gcg``), and a tie is no jailbreak.
Differs from it: a copy that would be blank stays as it was.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np

from demur.defenses.defended import Defended, Outcome
from demur.defenses.generation import Generation, generate
from demur.errors import InputError
from demur.judges import refusal_judge
from demur.models.base import LanguageModel
from demur.sampling import Sampler, sampler_from
from demur.types import Prompt

Perturbation = Literal["insert", "swap", "patch"]


@dataclass(frozen=True, kw_only=True)
class SmoothLLM:
    """Settings of SmoothLLM.

    Attributes:
        copies: perturbed copies of each prompt.
        share: of the characters that are perturbed, in (0, 1].
        perturbation: ``insert`` before, or ``swap``, characters at random places, or ``patch``
            consecutive ones.
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

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        sampler: Sampler | None = None,
        seed: int = 0,
        batch_size: int = 8,
        undefended: Generation | None = None,
    ) -> Defended:
        """See ``Defense``."""
        sampler = sampler or sampler_from(model.traits.sampler)
        plain = undefended or generate(
            model, prompts, sampler=sampler, seed=seed, batch_size=batch_size
        )
        asked = [self.perturbed(p, copy, seed=seed) for p in prompts for copy in range(self.copies)]
        voted = generate(model, asked, sampler=sampler, seed=seed, batch_size=batch_size)
        answers = np.array(voted.answers, dtype=object).reshape(-1, self.copies)
        passes = voted.passes.reshape(-1, self.copies).sum(axis=1) - plain.passes
        outcomes = tuple(
            self._vote(prompt, before, list(said), int(extra), seed=seed)
            for prompt, before, said, extra in zip(
                prompts, plain.answers, answers, passes, strict=True
            )
        )
        return Defended(
            defense=self.name,
            outcomes=outcomes,
            undefended_passes=int(plain.passes.sum()),
            undefended_seconds=plain.seconds,
            seconds=voted.seconds,
        )

    def perturbed(self, prompt: Prompt, copy: int, *, seed: int) -> Prompt:
        """One copy of a prompt; the same seed and number give the same copy."""
        rng = random.Random(f"{seed} {prompt.id} {copy}")
        user = prompt.user and tuple(
            perturb(part, self.perturbation, self.share, rng) if isinstance(part, str) else part
            for part in prompt.user
        )
        text = perturb(prompt.text, self.perturbation, self.share, rng)
        return replace(prompt, text=text, user=user, id=f"{prompt.id}/{copy}")

    def _vote(
        self, prompt: Prompt, before: str, answers: list[str], extra: int, *, seed: int
    ) -> Outcome:
        judge = refusal_judge(self.judge)
        broken = [judge(prompt.goal, answer).outcome == "miss" for answer in answers]
        majority = sum(broken) > self.copies / 2
        agreeing = [a for a, vote in zip(answers, broken, strict=True) if vote == majority]
        response = random.Random(f"{seed} {prompt.id}").choice(agreeing)
        return Outcome(
            prompt=prompt,
            response=response,
            undefended=before,
            action="kept" if response == before else "changed",
            reason=f"{sum(broken)} of {self.copies} copies answered",
            extra_passes=extra,
        )


def perturb(text: str, kind: Perturbation, share: float, rng: random.Random) -> str:
    """Change ``share`` of a text's characters, rounded down; a text left blank stays as it was."""
    count = int(len(text) * share)
    letters = list(text)
    if kind == "patch":
        start = rng.randint(0, len(text) - count)
        letters[start : start + count] = [rng.choice(string.printable) for _ in range(count)]
    else:
        # In the order drawn, as in the released code: an insertion moves the places behind it.
        for place in rng.sample(range(len(text)), count):
            drawn = rng.choice(string.printable)
            letters[place : place + (kind == "swap")] = drawn
    changed = "".join(letters)
    return changed if changed.strip() else text
