"""demur inside other tools, one file a tool.

- ``inspect_ai``: a model provider with a guard, and a scorer that keeps the signal.
- ``notebook``: traces, tables, figures and verdicts in notebook cells.
- ``tracking``: metrics of a run for MLflow, Weights & Biases or any callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Values that a notebook cell shows by itself: module -> classes.
SHOWN: Mapping[str, tuple[str, ...]] = {
    "demur.types": ("Trace", "Traces"),
    "demur.viz.tables": ("Table",),
    "demur.viz.figures": ("Figure",),
    "demur.judges.verdict": ("Verdict",),
}


def register_display(shell: Any, show: Callable[[Any], Any]) -> None:
    """Teach an IPython shell to show demur's values; ``import demur`` does so inside a notebook.

    Args:
        shell: what ``IPython.get_ipython()`` returns.
        show: ``demur.show``.
    """
    formatter = shell.display_formatter.formatters["text/html"]
    for module, names in SHOWN.items():
        for name in names:
            # By name, so that nothing is imported before there is a value to show.
            formatter.for_type_by_name(module, name, lambda value: show(value)._repr_html_())
