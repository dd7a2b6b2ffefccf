"""Typographic quotation marks made plain, as every list of refusal wordings is written."""

from __future__ import annotations

_PLAIN = str.maketrans(
    {**dict.fromkeys("\u2018\u2019\u02bc", "'"), **dict.fromkeys("\u201c\u201d", '"')}
)


def plain_quotes(text: str) -> str:
    """The text with straight quotation marks and apostrophes."""
    return text if text.isascii() else text.translate(_PLAIN)
