"""A prompt inside a chat template, as token ids: no token beyond the template's own, and control-token
text inside a prompt stays text.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from demur.errors import InputError, ModelError
from demur.types import Prompt, Template

#: Stands for the user's text while the template is rendered; never part of what a model reads.
_TEXT = "\ue0f2text\ue0f2"

#: Put before a template that asks for today's date, so that a prompt has the same tokens every day: the
#: date that Llama 3's own template states where it cannot ask.
_TODAY = (
    "{% macro strftime_now(format) %}{{ format"
    " | replace('%d', '26') | replace('%m', '07') | replace('%b', 'Jul') | replace('%B', 'July')"
    " | replace('%Y', '2024') | replace('%y', '24') | replace('%a', 'Fri') | replace('%A', 'Friday')"
    " | replace('%H', '12') | replace('%M', '00') | replace('%S', '00') }}{% endmacro %}"
)


@final
@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template with a system prompt.

    Attributes:
        name: of the model, for messages.
        tokenizer: a transformers tokenizer with a chat template.
        system: the system prompt; put before the user's text where the template has no place for one.
        options: what the template is given besides the turns.
    """

    name: str
    tokenizer: Any
    system: str
    options: Mapping[str, Any]

    def ids(self, prompt: Prompt, *, mask_id: int | None) -> list[int]:
        """Token ids of the whole prompt, masked slots of a user template holding ``mask_id``.

        Raises:
            InputError: the prompt has masked slots and the model no mask token.
                The template refuses the prompt's earlier turns.
            ModelError: the template does not show the user's text once and as it is.
        """
        if prompt.turns:
            said = [{"role": turn.role, "content": turn.content} for turn in prompt.turns]
            asked = {"role": "user", "content": prompt.text}
            slots = None if prompt.user is None else self._slots(prompt, prompt.user, mask_id)
            return self.dialogue_ids([*said, asked], last=slots)
        frame = self._asked(_TEXT).split(_TEXT)
        if len(frame) != 2:
            raise ModelError(
                f"The chat template of {self.name} shows the user's text {len(frame) - 1} times "
                "unchanged, not once. Correct chat_template.jinja, or the chat_template of "
                "tokenizer_config.json."
            )
        before, after = (self._tokens(part) for part in frame)
        if prompt.user is None:
            if not self._cuts(prompt.text):
                return self._tokens(self._asked(prompt.text))
            return [*before, *self.plain_ids(prompt.text), *after]
        return [*before, *self._slots(prompt, prompt.user, mask_id), *after]

    def _slots(self, prompt: Prompt, template: Template, mask_id: int | None) -> list[int]:
        """Token ids of a user template, masked slots holding ``mask_id``."""
        ids = self.template_ids(template)
        if mask_id is None and -1 in ids:
            raise InputError(
                f"Prompt {prompt.id} has masked slots, but {self.name} is autoregressive and has "
                "no mask token. Use a diffusion model."
            )
        return [mask_id if i < 0 and mask_id is not None else i for i in ids]

    def dialogue_ids(
        self, turns: Sequence[Mapping[str, str]], *, last: Sequence[int] | None = None
    ) -> list[int]:
        """Token ids of a dialogue, the beginning of the answer included.

        Args:
            turns: ``{"role": "system", "user" or "assistant", "content": text}`` in order. The
                model's own system prompt is put first where there is none.
            last: token ids that replace the last turn's content.

        Raises:
            InputError: the template refuses these turns.
        """
        if self.system and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.system}, *turns]
        return self.turn_ids(turns, last=last)

    def turn_ids(
        self,
        turns: Sequence[Mapping[str, str]],
        *,
        after: str = "",
        last: Sequence[int] | None = None,
    ) -> list[int]:
        """Token ids of these turns and no other, and of ``after``, which the answer begins with.

        Args:
            turns: as for ``dialogue_ids``.
            after: how the answer begins.
            last: token ids that replace the last turn's content.

        Raises:
            InputError: the template refuses these turns.
        """
        texts = [turn["content"] for turn in turns]
        parts = self._render([{**turn, "content": _TEXT} for turn in turns]).split(_TEXT)
        if len(parts) != len(turns) + 1:
            raise InputError(
                f"The chat template of {self.name} shows {len(parts) - 1} of these {len(turns)} turns. "
                "Use a model whose template shows every turn."
            )
        if last is not None and not any(map(self._cuts, texts[:-1])):
            shown = self._render([*turns[:-1], {**turns[-1], "content": _TEXT}])
            before, _, behind = shown.partition(_TEXT)
            return [*self._tokens(before), *last, *self._tokens(behind + after)]
        if last is not None:
            ids = self._tokens(parts[0])
            for text, behind in zip(texts[:-1], parts[1:-1], strict=True):
                ids += [*self.plain_ids(text), *self._tokens(behind)]
            return [*ids, *last, *self._tokens(parts[-1] + after)]
        if not any(map(self._cuts, texts)):
            return self._tokens(self._render(turns) + after)
        return self.framed_ids([*parts[:-1], parts[-1] + after], texts)

    def framed_ids(self, frame: Sequence[str], texts: Sequence[str]) -> list[int]:
        """Token ids of user texts between the parts of a frame, whose control tokens alone are such.

        Read in one piece where it can be: some tokenizers put a space before every piece.
        """
        if not any(map(self._cuts, texts)):
            pairs = zip(frame, [*texts, ""], strict=True)
            return self._tokens("".join(part for pair in pairs for part in pair))
        ids = self._tokens(frame[0])
        for text, behind in zip(texts, frame[1:], strict=True):
            ids += [*self.plain_ids(text), *self._tokens(behind)]
        return ids

    def template_ids(self, template: Template) -> list[int]:
        """Token ids of a template, -1 for each masked slot."""
        ids: list[int] = []
        for part in template:
            ids += self.plain_ids(part) if isinstance(part, str) else [-1] * part
        return ids

    def _asked(self, text: str) -> str:
        user = {"role": "user", "content": text}
        return self._render([{"role": "system", "content": self.system}, user][not self.system :])

    def _render(self, turns: Sequence[Mapping[str, str]]) -> str:
        """The template around these turns; a system turn without a place in it goes into the next."""
        if turns[0]["role"] == "system" and len(turns) > 1 and not self._shows_system():
            system, first, *others = turns
            folded = {**first, "content": f"{system['content']}\n\n{first['content']}"}
            turns = [folded, *others]
        try:
            return self._apply(turns)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip()}"[:300]
            raise InputError(
                f"The chat template of {self.name} refuses these turns ({reason}). Correct "
                "chat_template.jinja, or use a model whose template takes them."
            ) from error

    def _shows_system(self) -> bool:
        """Whether a system turn is shown; some templates refuse one, others leave it out."""
        turns = [{"role": "system", "content": _TEXT}, {"role": "user", "content": "text"}]
        try:
            return _TEXT in self._apply(turns)
        except Exception:
            return False

    def _apply(self, turns: Sequence[Mapping[str, str]]) -> str:
        rendered: str = self.tokenizer.apply_chat_template(
            [dict(turn) for turn in turns],
            chat_template=undated(self.tokenizer),
            tokenize=False,
            add_generation_prompt=True,
            **self.options,
        )
        return rendered

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def plain_ids(self, text: str) -> list[int]:
        """Tokens of user text; control-token text is cut apart so that it stays text."""
        edges = [0, *self._cuts(text), len(text)]
        pieces = (text[a:b] for a, b in itertools.pairwise(edges))
        return [token for piece in pieces if piece for token in self._tokens(piece)]

    def _cuts(self, text: str) -> list[int]:
        """Offsets one character into each control token's text, named special or only added."""
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        cuts = set()
        for token in {*self.tokenizer.all_special_tokens, *added}:
            start = text.find(token)
            while start >= 0:
                cuts.add(start + 1)
                start = text.find(token, start + 1)
        return sorted(cuts)


def undated(tokenizer: Any) -> str:
    """A tokenizer's chat template, which writes the same date every day."""
    template: str = tokenizer.get_chat_template()
    return _TODAY + template if "strftime_now" in template else template
