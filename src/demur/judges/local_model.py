"""A loaded model as an assistant that judges, attackers and defenses can ask.

What the turns say is read as plain text: control tokens written inside a turn stay text, so that a
judged response cannot end its own turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from demur.endpoint import ROOM, Message, each_seed
from demur.errors import InputError
from demur.generation import cut_at_end
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, RowNoise, Sampler, sampler_from
from demur.sampling.choice import row_seed
from demur.sampling.fitting import in_halves
from demur.thoughts import thought_tokens
from demur.types import Record, digest


def turn_ids(model: LanguageModel, turns: Sequence[Message], *, after: str = "") -> list[int]:
    """Token ids of a conversation in the model's chat template and of the beginning of the answer.

    Raises:
        InputError: the chat template does not accept the conversation.
    """
    shown = [{"role": turn.role, "content": encodable(turn.content)} for turn in turns]
    return model.chat.turn_ids(shown, after=after)


def encodable(text: str) -> str:
    """Half a surrogate pair, which no tokenizer reads, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class LocalAssistant:
    """Answers conversations with a model from ``demur.load``.

    An autoregressive model writes up to ``max_tokens``; any other runs its own default sampler and its
    answer is cut there.

    A thought at the beginning of an answer is kept; ``max_tokens`` then counts the tokens after it.

    Attributes:
        model: what answers.
        batch_size: conversations answered together.
        reasoning_tokens: tokens beyond ``max_tokens`` for thinking. None: up to ``ROOM``, as far as
            the context allows, if the model's chat template has marks of thoughts, else 0.
    """

    model: LanguageModel
    batch_size: int = 8
    reasoning_tokens: int | None = None

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | Sequence[int] | None = None,
    ) -> list[str]:
        """The next turn of each conversation. The default seed is 0: the same call, the same answer.

        Raises:
            InputError: a conversation does not fit into the model's context or its chat template.
        """
        rows = [turn_ids(self.model, turns) for turns in conversations]
        room = self._room(max(map(len, rows), default=0) + max_tokens)
        sampler = self._sampler(max_tokens + room, temperature)
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

    def _room(self, taken: int) -> int:
        """Tokens for thinking, besides ``taken`` tokens of the conversation and its answer."""
        if self.reasoning_tokens is not None:
            return self.reasoning_tokens
        if not self.model.chat.thinks:
            return 0
        return max(0, min(ROOM, self.model.context_length - taken))

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
        for row, tokens in zip(rows, last.tokens.tolist(), strict=True):
            ids, _ = cut_at_end([i for i in tokens if i >= 0], self.model.traits.end_ids)
            answers.append(self._text(ids, max_tokens, self.model.chat.opening(row)))
        return answers

    def _text(self, ids: list[int], max_tokens: int, opening: str) -> str:
        """An answer, cut to so many tokens after its thought; one that the prompt opened is marked."""
        pieces = [self.model.decode([i]) for i in ids] if self.model.chat.thinks else []
        thought = thought_tokens([opening, *pieces])[1:]
        begins = len(thought) - thought[::-1].index(True) if any(thought) else 0
        return opening + self.model.decode(ids[: begins + max_tokens])
