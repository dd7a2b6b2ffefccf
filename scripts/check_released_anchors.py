"""Check files of released anchors: python scripts/check_released_anchors.py centers.pt ...

The paper's (arXiv:2602.02600) have 32 steps of width 4096. Prints a line per file; stops at an error.
"""

from __future__ import annotations

import sys
from pathlib import Path

import demur
from demur.sri import distances


def check(path: Path) -> str:
    """Raise AssertionError unless the classes differ at every step and the signal separates them."""
    anchors = demur.import_anchors(path)
    to_harmless, _ = distances(anchors.harmful, anchors)
    assert (to_harmless > 1e-4).all(), f"{path}: the two classes are equal at some step"
    harmless, harmful = (demur.signal(a, anchors) for a in (anchors.harmless, anchors.harmful))
    assert (harmless > 0.9).all(), f"{path}: signal of the harmless anchors is {harmless.min():.2f}"
    assert (harmful < 0.1).all(), f"{path}: signal of the harmful anchors is {harmful.max():.2f}"
    steps, width = anchors.harmless.shape
    return f"{path}: {steps} steps of width {width}, smallest distance {to_harmless.min():.2g}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(check(Path(name)))
