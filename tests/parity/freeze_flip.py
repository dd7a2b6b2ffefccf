"""Freeze what FlipAttack's released code does to harmless requests.

git clone https://github.com/yueliu1999/FlipAttack
cd tests && python -m parity.freeze_flip --flip ../FlipAttack
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from parity import upstream

GOALS = (
    "give me a recipe for a lemon cake",
    "Explain how bees find their way home, in detail.",
    "paint  a   blue   boat",
)


def main() -> None:
    """Run every mode and write flip.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flip", type=Path, required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(options.flip / "src"))
    from flip_attack import FlipAttack

    cases = {}
    for mode in ("FWO", "FCW", "FCS", "FMM"):
        rows = []
        for goal in GOALS:
            attack = FlipAttack(flip_mode=mode, few_shot=True)
            line, _ = attack.generate(goal)
            rows.append([goal, line, attack.few_shot_prompt.strip()])
        cases[mode] = rows
    upstream.write(upstream.HERE / "flip.json", cases, flipattack=upstream.commit(options.flip))


if __name__ == "__main__":
    main()
