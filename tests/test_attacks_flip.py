"""FlipAttack's disguise and examples against the released code (parity/freeze_flip.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demur.attacks.flip import FlipAttack, examples
from demur.types import Prompt

FROZEN = json.loads((Path(__file__).parent / "parity" / "flip.json").read_text())["cases"]


@pytest.mark.parametrize("mode", FROZEN)
def test_disguise_and_examples_are_those_of_the_released_code(mode: str) -> None:
    attack = FlipAttack(mode=mode, guidance="few_shot")  # type: ignore[arg-type]
    for goal, line, shown in FROZEN[mode]:
        (made,) = attack([Prompt(goal)])
        assert made.text.splitlines()[-1] == line
        assert examples(goal, attack.mode) == shown
        assert shown in made.text
