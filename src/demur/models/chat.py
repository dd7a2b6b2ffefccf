"""A prompt inside a chat template, as token ids: no token beyond the template's own, and control-token
text inside a prompt stays text.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from demur.errors import InputError
from demur.types import Prompt, Template

#: Stands for the user's text while the template is rendered; never part of what a model reads.
_TEXT = "\ue0f2text\ue0f2"


@final
@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template with a system prompt.

    Attributes:
        name: of the model, for messages.
        tokenizer: a transformers tokenizer with a chat template.
        system: the system prompt; folded into the user turn where the template refuses one.
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
        """
        before, after = (self._tokens(part) for part in self._render(_TEXT).split(_TEXT))
        if prompt.user is None:
            if not self._cuts(prompt.text):
                return self._tokens(self._render(prompt.text))
            return [*before, *self._plain_tokens(prompt.text), *after]
        slots = self.template_ids(prompt.user)
        if mask_id is None and -1 in slots:
            raise InputError(
                f"Prompt {prompt.id} has masked slots, but {self.name} is autoregressive and has "
                "no mask token. Use a diffusion model."
            )
        return [*before, *(mask_id if i < 0 and mask_id is not None else i for i in slots), *after]

    def template_ids(self, template: Template) -> list[int]:
        """Token ids of a template, -1 for each masked slot."""
        ids: list[int] = []
        for part in template:
            ids += self._plain_tokens(part) if isinstance(part, str) else [-1] * part
        return ids

    def _render(self, text: str) -> str:
        user = {"role": "user", "content": text}
        turns = [{"role": "system", "content": self.system}, user] if self.system else [user]
        try:
            return self._apply(turns)
        except Exception as error:
            if type(error).__name__ not in ("TemplateError", "UndefinedError"):
                raise
        folded = {"role": "user", "content": f"{self.system}\n\n{text}"}
        return self._apply([folded])

    def _apply(self, turns: list[dict[str, str]]) -> str:
        rendered: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **self.options
        )
        return rendered

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _plain_tokens(self, text: str) -> list[int]:
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
