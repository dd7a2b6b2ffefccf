"""A whole conversation inside a model's chat template, as token ids.

What the turns say is read as plain text: control tokens written inside a turn stay text, so that a
judged response cannot end its own turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demur.endpoint import Message
from demur.errors import ModelError
from demur.models.base import LanguageModel

#: Stands for the text of the turn with this number while the template is rendered.
_MARK = "\ue0f2{}\ue0f2"


def turn_ids(
    model: LanguageModel, turns: Sequence[Message], *, add_generation_prompt: bool = True
) -> list[int]:
    """Token ids of the conversation, ready for the model to answer.

    Raises:
        ModelError: the chat template takes no such conversation.
    """
    rendered = _render(model, turns, add_generation_prompt)
    ids: list[int] = []
    for number, turn in enumerate(turns):
        before, mark, rendered = rendered.partition(_MARK.format(number))
        if not mark:
            raise ModelError(
                f"The chat template of {model.name} drops turn {number + 1} ({turn.role}). "
                "Use a model whose template shows every turn."
            )
        ids += control_ids(model, before) + text_ids(model, turn.content)
    return ids + control_ids(model, rendered)


def control_ids(model: LanguageModel, text: str) -> list[int]:
    """Token ids of a template's own text, control tokens read as such."""
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def text_ids(model: LanguageModel, text: str) -> list[int]:
    """Token ids of somebody's text, control tokens read as text."""
    return model.chat.template_ids((_encodable(text),))


def _render(model: LanguageModel, turns: Sequence[Message], add_generation_prompt: bool) -> str:
    marked = [{"role": t.role, "content": _MARK.format(i)} for i, t in enumerate(turns)]
    try:
        return _apply(model, marked, add_generation_prompt)
    except Exception as error:
        if type(error).__name__ not in ("TemplateError", "UndefinedError"):
            raise
        if not (len(marked) > 1 and marked[0]["role"] == "system"):
            raise ModelError(f"The chat template of {model.name} refuses: {error}") from error
    # A template without a system turn takes its text in front of the first user turn.
    folded = {"role": "user", "content": f"{marked[0]['content']}\n\n{marked[1]['content']}"}
    return _apply(model, [folded, *marked[2:]], add_generation_prompt)


def _apply(model: LanguageModel, turns: list[dict[str, str]], add_generation_prompt: bool) -> str:
    options: dict[str, Any] = dict(model.traits.template)
    rendered: str = model.tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=add_generation_prompt, **options
    )
    return rendered


def _encodable(text: str) -> str:
    """Half a surrogate pair, which no tokenizer reads, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
