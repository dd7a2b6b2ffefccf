"""The paper's printed numbers, from ``tables/paper_numbers.yaml``, to stand beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

#: Ends the name of every row that is the paper's.
MARK = " (paper)"

#: Below every table that holds rows of the paper.
NOTE = (
    "Rows marked (paper) are numbers printed in Rahimi et al., arXiv:2602.02600: other models, prompts "
    "and judges, shown for the direction of a finding, not for its size."
)


@cache
def printed(table: str) -> Mapping[str, Any]:
    """One table of the paper; see the file for its layout."""
    text = files("demur.study.tables").joinpath("paper_numbers.yaml").read_text("utf-8")
    found: Mapping[str, Any] = yaml.safe_load(text)[table]
    return found
