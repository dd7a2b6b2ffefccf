"""Values of demur in a notebook: a cell that ends in traces, a table, a figure or a verdict shows it.

Signals are plain arrays, which ``demur.show(sigma)`` shows, or once per notebook

    %load_ext demur.integrations.notebook

after which every float32 array in [0, 1] of one or two axes is drawn. The replay needs script, so it
stands in a sandboxed frame of its own: it can reach neither the notebook nor the network, and every
text in it is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.judges import Verdict
from demur.types import Trace, Traces
from demur.viz.figures import Figure, trajectories
from demur.viz.replay import replay_html, scene
from demur.viz.tables import Table

#: A frame may run the replay's own script and nothing else; the page's policy keeps the network shut.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Shown:
    """Something to show in a notebook's cell.

    Attributes:
        html: a fragment, escaped.
        height: of its frame in pixels.
    """

    html: str
    height: int = 420

    def _repr_html_(self) -> str:
        """A frame that holds the fragment and is shut off from everything else."""
        page = (
            '<!doctype html><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">{self.html}'
        )
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{escape(page)}" title="demur" '
            f'style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def show(value: Any, sigma: ArrayLike | None = None, *, tokenizer: Any = None) -> Shown:
    """Make a trace, several, signals, a table, a figure or a verdict ready for a notebook's cell.

    Args:
        value: a ``Trace``, ``Traces``, signals ``[T]`` or ``[N, T]``, or a ``Table``, ``Figure`` or
            ``Verdict``.
        sigma: of traces, ``[T]`` or ``[N, T]``: the replay's curve.
        tokenizer: of the model, such as ``model.tokenizer``: with it a trace is replayed token by
            token, without it only its text is shown.

    Raises:
        InputError: nothing that can be shown, or another number of signals than traces.
    """
    if isinstance(value, Trace):
        return _replay(Traces((value,)), sigma, tokenizer)
    if isinstance(value, Traces):
        return _replay(value, sigma, tokenizer)
    if isinstance(value, Table):
        return Shown(value.to_html(), height=120 + 32 * len(value.rows))
    if isinstance(value, Figure):
        return Shown(value.svg)
    if isinstance(value, Verdict):
        return Shown(f"<p><b>{escape(value.outcome)}</b> {escape(value.raw)}</p>", height=60)
    if isinstance(value, np.ndarray) and value.ndim in (1, 2):
        return Shown(trajectories({"sigma": np.atleast_2d(value)}, title="SRI signal").svg)
    raise InputError(
        f"A {type(value).__name__} cannot be shown. Give a trace, signals, a table, a figure or a "
        "verdict."
    )


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext`` calls: teach the notebook to draw signals, which have no type of their own."""
    shell.display_formatter.formatters["text/html"].for_type(np.ndarray, _drawn)


def _drawn(value: NDArray[Any]) -> str | None:
    """The curves of what is a signal by its looks; None leaves an array as numpy prints it."""
    looks_so = value.dtype == np.float32 and value.ndim in (1, 2) and value.size > 1
    if not looks_so or not bool(((value >= 0) & (value <= 1)).all()):
        return None
    return show(value)._repr_html_()


def _replay(traces: Traces, sigma: ArrayLike | None, tokenizer: Any) -> Shown:
    if tokenizer is None:
        return Shown("".join(_text(trace) for trace in traces), height=120 * min(len(traces), 5))
    rows: Any = [None] * len(traces) if sigma is None else np.atleast_2d(np.asarray(sigma))
    if len(rows) != len(traces):
        raise InputError(f"{len(rows)} signals for {len(traces)} traces. Give one a trace.")
    scenes = [
        scene(
            trace,
            np.full(trace.n_steps, np.nan) if row is None else row,
            text_of=lambda token: str(tokenizer.decode([token])),
            title=trace.fingerprint.model,
        )
        for trace, row in zip(traces, rows, strict=True)
    ]
    return Shown(replay_html(scenes), height=620)


def _text(trace: Trace) -> str:
    about = f"{trace.n_steps} steps, {trace.finish_reason}"
    return (
        f"<p><b>{escape(trace.prompt.text)}</b><br>{escape(trace.response)}<br>"
        f"<small>{escape(trace.fingerprint.model)}, {about}</small></p>"
    )
