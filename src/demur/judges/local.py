"""A loaded model as an assistant that judges, attackers and defenses can ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from demur.endpoint import Message, each_seed
from demur.errors import InputError
from demur.generation import cut_at_end
from demur.judges.turns import turn_ids
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, RowNoise, Sampler, sampler_from
from demur.sampling.choice import row_seed
from demur.sampling.fitting import in_halves
from demur.types import Record, digest


@dataclass(frozen=True)
class LocalAssistant:
    """Answers conversations with a model from ``demur.load``.

    An autoregressive model writes up to ``max_tokens``; any other runs its own default sampler and its
    answer is cut there.

    Attributes:
        model: what answers.
        batch_size: conversations answered together.
    """

    model: LanguageModel
    batch_size: int = 8

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | Sequence[int] | None = None,
    ) -> list[str]:
        """The next turn of each conversation. Without a seed it is 0: the same call, the same answer.

        Raises:
            InputError: a conversation does not fit into the model's context or its chat template.
        """
        sampler = self._sampler(max_tokens, temperature)
        rows = [turn_ids(self.model, turns) for turns in conversations]
        for row in rows:
            if len(row) + sampler.new_tokens > self.model.context_length:
                raise InputError(
                    f"A conversation has {len(row):,} tokens; with {sampler.new_tokens} to generate "
                    f"that is more than {self.model.name} reads ({self.model.context_length:,}). "
                    "Use a model with a longer context."
                )
        seeds = [
            row_seed(one or 0, digest([*turns]))
            for one, turns in zip(each_seed(seed, len(rows)), conversations, strict=True)
        ]
        answers: list[str] = []
        for start in range(0, len(rows), self.batch_size):
            places = range(start, min(start + self.batch_size, len(rows)))
            answers += in_halves(
                places,
                lambda part: self._generate(
                    [rows[i] for i in part], [seeds[i] for i in part], sampler, max_tokens
                ),
            )
        return answers

    def _sampler(self, max_tokens: int, temperature: float) -> Sampler:
        if self.model.traits.attention == "causal":
            return Autoregressive(steps=max_tokens, temperature=temperature)
        sampler = sampler_from(self.model.traits.sampler)
        if "temperature" not in {field.name for field in fields(sampler)}:  # type: ignore[arg-type]
            return sampler
        return replace(sampler, temperature=temperature)  # type: ignore[type-var]

    def _generate(
        self, rows: list[list[int]], seeds: list[int], sampler: Sampler, max_tokens: int
    ) -> list[str]:
        record = Record(pooling=self.model.traits.pooling)
        batch = self.model.batch(rows)
        steps = sampler.run(self.model, batch, record, RowNoise.seeded(seeds))
        *_, last = steps
        answers = []
        for tokens in last.tokens.tolist():
            ids, _ = cut_at_end([i for i in tokens if i >= 0], self.model.traits.end_ids)
            answers.append(self.model.decode(ids[:max_tokens]))
        return answers
