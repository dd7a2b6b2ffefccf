"""A conversation inside a model's chat template, as token ids.

What the turns say is read as plain text: control tokens written inside a turn stay text, so that a
judged response cannot end its own turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.endpoint import Message
from demur.models.base import LanguageModel


def turn_ids(model: LanguageModel, turns: Sequence[Message], *, after: str = "") -> list[int]:
    """Token ids of the conversation, and of what the answer begins with.

    Raises:
        InputError: the chat template takes no such conversation.
    """
    shown = [{"role": turn.role, "content": encodable(turn.content)} for turn in turns]
    return model.chat.turn_ids(shown, after=after)


def encodable(text: str) -> str:
    """Half a surrogate pair, which no tokenizer reads, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
