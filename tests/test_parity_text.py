"""Attacks, defenses and judges against released code at the level of text (parity/freeze_text.py)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from demur.attacks.dija import spans
from demur.attacks.pad import anchored
from demur.attacks.pair import proposal
from demur.attacks.suffix_search import width_at
from demur.defenses.smooth_llm import perturb
from demur.judges.guard_model import _WILDGUARD

FROZEN = json.loads((Path(__file__).parent / "parity" / "text.json").read_text())["cases"]
MASK = "<|mdm_mask|>"


@pytest.mark.parametrize(("kind", "percent", "seed", "request_", "expected"), FROZEN["smooth_llm"])
def test_smooth_llm_draws_the_same_characters(
    kind: Any, percent: int, seed: int, request_: str, expected: str
) -> None:
    assert perturb(request_, kind, percent / 100, random.Random(seed)) == expected


@pytest.mark.parametrize(("answer", "expected"), FROZEN["pair"])
def test_what_pair_reads_is_read_alike(answer: str, expected: list[str] | None) -> None:
    found = proposal(answer)
    if expected is None:
        # Read all the same where a bracket alone is missing, which the released code asks again for.
        assert found is None or answer == '{"improvement": "x", "prompt": "bake it"'
        return
    assert found is not None
    # The released code drops line breaks, inside strings too.
    assert [found.improvement.replace("\n", ""), found.prompt] == expected


def test_the_width_follows_the_released_schedule() -> None:
    for most, query, expected in FROZEN["widths"]:
        assert width_at(most, query) == expected


@pytest.mark.parametrize(("outline", "expected"), FROZEN["dija"])
def test_spans_are_masked_where_the_released_code_masks_them(outline: str, expected: str) -> None:
    found = "".join(part if isinstance(part, str) else MASK * part for part in spans(outline))
    # Its tokens around a span at the end are LLaDA's alone.
    assert found == expected.replace("<startoftext>", "").replace("<endoftext>", "")


@pytest.mark.parametrize(("anchors", "length", "expected"), FROZEN["pad"])
def test_anchors_are_fixed_at_the_released_places(
    anchors: list[str], length: int, expected: list[list[Any]]
) -> None:
    sizes = [len(anchor.split()) for anchor in anchors]
    place, found = 0, []
    for part in anchored(anchors, sizes, gen_length=length):
        words = part.split() if isinstance(part, str) else []
        found += [[place + i, word] for i, word in enumerate(words)]
        place += len(words) if isinstance(part, str) else part
    assert found == expected


@pytest.mark.parametrize(("prompt", "response", "expected"), FROZEN["wildguard"])
def test_wildguard_reads_the_released_text(prompt: str, response: str, expected: str) -> None:
    first, second, third = _WILDGUARD
    assert first + prompt + second + response + third == f"<s>{expected}"
