"""The pages of errors hold every message that the source can stop with, each with what to do."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

import error_messages as source  # noqa: E402
import hooks  # noqa: E402


def raised() -> Iterator[tuple[str, ast.Raise]]:
    """Every ``raise`` of a new error, with its file."""
    for path in sorted(source.SOURCE.rglob("*.py")):
        for node in ast.walk(source.tree(path)):
            if isinstance(node, ast.Raise) and node.exc is not None:
                yield path.relative_to(source.SOURCE).as_posix(), node


def test_every_raise_has_its_entry() -> None:
    known = {(one.room, one.line) for one in source.messages()}
    told, unseen = 0, 0
    for room, node in raised():
        made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        name = ast.unparse(made).partition("(")[0]
        line = node.exc.lineno
        if name in source.kinds() or name == source.SERVER:
            assert (room, line) in known, f"{room}:{line} raises {name} and has no entry"
            told += 1
        elif (room, line) not in known:
            constant = name.strip("_").isupper()  # read where it is made
            assert constant or name in source.UNSEEN or name == "error", f"{room}:{line}: {name}"
            unseen += 1
    assert told > 300
    assert unseen < 40


def test_every_error_that_is_made_has_its_entry() -> None:
    known = {(one.room, one.line) for one in source.messages()}
    for path in sorted(source.SOURCE.rglob("*.py")):
        room = path.relative_to(source.SOURCE).as_posix()
        for node in ast.walk(source.tree(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in source.kinds():
                assert room == "errors.py" or (room, node.lineno) in known, f"{room}:{node.lineno}"


def test_every_message_says_what_to_do_in_words() -> None:
    found = source.entries()
    without = {anchor: places[0].text for anchor, places in found.items() if not places[0].fix}
    assert not without, "add these to docs/error_fixes.yaml, or let the message say it"
    for places in found.values():
        for value in re.findall(r"‹([^›]*)›", places[0].text):
            assert re.fullmatch(r"[A-Za-z0-9' -]+", value), places[0].text


def test_every_entry_is_on_one_page_under_its_anchor() -> None:
    pages = hooks.error_pages()
    anchors = [a for text in pages.values() for a in re.findall(r"\{ #([a-z0-9-]+) ", text)]
    assert sorted(anchors) == sorted(source.entries())
    for text in pages.values():
        assert len(text.splitlines()) < 700


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("missingextra-demur-serve-needs", ("pip install 'demur[serve]'",)),
        ("store-the-disk-is-full", ("Free some space",)),
        ("store-is-being-written-by", ("another --out", ".lock")),
        ("input-is-damaged-or-no-parquet-file", ("Make it again",)),
        ("input-a-guard-follows-rows-token-by-token", ("neither beams",)),
        ("endpoint-at-gave-no-answer", ("Check the server",)),
        ("fingerprint-these-anchors-were-not-made-with-this-model", ("demur anchors",)),
        ("refusal-a-valid-api-key-is-needed", ("Bearer",)),
        ("refusal-the-last-message-must-be-of-the-user", ("role",)),
        ("fail-out-of-memory", ("--batch-size",)),
    ],
)
def test_messages_of_helpers_and_constants_are_told(start: str, words: tuple[str, ...]) -> None:
    found = [places for anchor, places in source.entries().items() if anchor.startswith(start)]
    said = " ".join(one.text + " " + one.fix for places in found for one in places)
    assert found
    assert all(word in said for word in words)
