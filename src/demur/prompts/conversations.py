"""Conversations in a cell: lists of ``{role, content}``, or of ``{from, value}`` (ShareGPT)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from demur.errors import InputError
from demur.types import Turn

#: Columns that hold conversations, in order of preference.
CONVERSATIONS = ("messages", "conversations", "conversation", "turns", "dialogue", "dialog", "chat")

_NAMES: dict[str, Literal["system", "user", "assistant"]] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatbot"), "assistant"),
}
#: Keys of a turn: the speaker, and the text.
WHO, WHAT = ("role", "from"), ("content", "value")


def is_conversation(value: Any) -> bool:
    """Whether a cell holds a list of turns that name their speakers."""
    items = _items(value)
    return bool(items) and all(
        isinstance(item, dict) and any(name in item for name in WHO) for item in items
    )


def turns_of(value: Any, where: str, column: str) -> list[Turn]:
    """The turns in a cell. A list of one text is one user turn.

    Raises:
        InputError: not a conversation, or one with a turn that is not text.
    """
    items = _items(value)
    if len(items) > 1 and all(isinstance(item, str) for item in items):
        raise InputError(
            f"{where}: column {column} holds {len(items)} user turns without the answers between them. "
            "Keep one of them, or write the conversation as {role, content} with its answers."
        )
    if not items:
        raise InputError(
            f"{where}: column {column} holds {str(value)[:80]!r}, not a conversation. Write a list of "
            '{"role": "user", "content": "..."}.'
        )
    return [_turn(item, f"{where}: turn {n} of column {column}") for n, item in enumerate(items, 1)]


def split_turns(turns: Sequence[Turn], where: str) -> tuple[tuple[Turn, ...], str, str | None]:
    """Split a conversation into earlier turns, the last user text, and the answer to it or None.

    Raises:
        InputError: it ends neither with a user turn nor with an answer to one.
    """
    answer = turns[-1].content if turns and turns[-1].role == "assistant" else None
    before = turns[:-1] if answer is not None else turns
    if not before or before[-1].role != "user":
        roles = ", ".join(turn.role for turn in turns[-4:]) or "none"
        raise InputError(
            f"{where}: the conversation ends with {roles}; it must end with a user turn, or with one "
            "and its answer. Remove the row or what follows the last user turn."
        )
    return tuple(before[:-1]), before[-1].content, answer


def _items(value: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    if isinstance(value, dict):  # columns of a ``datasets`` sequence
        names = [name for name in (*WHO, *WHAT) if isinstance(value.get(name), list)]
        value = [
            dict(zip(names, one, strict=False)) for one in zip(*map(value.get, names), strict=False)
        ]
    return value if isinstance(value, list) else []


def _turn(item: Any, where: str) -> Turn:
    if isinstance(item, str):
        return Turn("user", item)
    if not isinstance(item, dict):
        raise InputError(f"{where} is {str(item)[:80]!r}, not an object with role and content.")
    who = next((item[name] for name in WHO if item.get(name) is not None), None)
    role = _NAMES.get(who.strip().casefold()) if isinstance(who, str) else None
    if role is None:
        raise InputError(
            f"{where} is by {who!r}. Known: {', '.join(_NAMES)}. Remove the turn or the row."
        )
    what = next((item[name] for name in WHAT if item.get(name) is not None), None)
    if isinstance(what, list) and all(
        isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str)
        for p in what
    ):
        what = "".join(part["text"] for part in what)
    if not isinstance(what, str):
        raise InputError(
            f"{where} holds {str(what)[:80]!r}, not text; demur reads no images or tool calls. Remove "
            "the turn or the row."
        )
    return Turn(role, what)
