"""Notebook display: a cell that ends in traces, a table, a figure or a verdict shows it.

``import demur`` registers these types with IPython. Signals are plain arrays: ``demur.show(sigma)``
draws them, and after

    %load_ext demur.integrations.notebook

every float32 array in [0, 1] of one or two axes is drawn. The replay runs a script, so it is in a
sandboxed frame that can reach neither the notebook nor the network; all text in it is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.integrations import register_display
from demur.judges import Verdict
from demur.types import Trace, Traces
from demur.viz.figures import Figure, trajectories
from demur.viz.replay import replay_html, scene
from demur.viz.tables import Table

#: The frame may run the replay's script; the content security policy blocks the network.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Frame:
    """HTML for a notebook cell.

    Attributes:
        html: a fragment, escaped.
        height: of the frame, in pixels.
    """

    html: str
    height: int = 420

    def _repr_html_(self) -> str:
        """The fragment in a sandboxed frame."""
        page = (
            '<!doctype html><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">{self.html}'
        )
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{escape(page)}" title="demur" '
            f'style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def show(value: Any, sigma: ArrayLike | None = None, *, tokenizer: Any = None) -> Frame:
    """Show traces, signals, a table, a figure or a verdict in a notebook cell.

    Args:
        value: a ``Trace``, ``Traces``, signals ``[T]`` or ``[N, T]``, or a ``Table``, ``Figure`` or
            ``Verdict``.
        sigma: the signals of traces, ``[T]`` or ``[N, T]``, drawn beside the replay.
        tokenizer: such as ``model.tokenizer``; without it a trace shows only its text, with it a
            replay token by token.

    Raises:
        InputError: a type that cannot be shown, or not one signal for each trace.
    """
    if isinstance(value, Trace):
        return _replay(Traces((value,)), sigma, tokenizer)
    if isinstance(value, Traces):
        return _replay(value, sigma, tokenizer)
    if isinstance(value, Table):
        return Frame(value.to_html(), height=120 + 32 * len(value.rows))
    if isinstance(value, Figure):
        return Frame(value.svg)
    if isinstance(value, Verdict):
        return Frame(f"<p><b>{escape(value.outcome)}</b> {escape(value.raw)}</p>", height=60)
    if isinstance(value, np.ndarray) and value.ndim in (1, 2):
        return Frame(trajectories({"sigma": np.atleast_2d(value)}, title="SRI signal").svg)
    raise InputError(
        f"A {type(value).__name__} cannot be shown. Give a trace, signals, a table, a figure or a "
        "verdict."
    )


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext``: register demur's types, and draw arrays that look like signals."""
    register_display(shell, show)
    shell.display_formatter.formatters["text/html"].for_type(np.ndarray, _drawn)


def _drawn(value: NDArray[Any]) -> str | None:
    """Curves, if the array looks like a signal; None leaves it as numpy prints it."""
    possible = value.dtype == np.float32 and value.ndim in (1, 2) and value.size > 1
    if not possible or not bool(((value >= 0) & (value <= 1)).all()):
        return None
    return show(value)._repr_html_()


def _replay(traces: Traces, sigma: ArrayLike | None, tokenizer: Any) -> Frame:
    if tokenizer is None:
        return Frame("".join(_text(trace) for trace in traces), height=120 * min(len(traces), 5))
    rows: Any = [None] * len(traces) if sigma is None else np.atleast_2d(np.asarray(sigma))
    if len(rows) != len(traces):
        raise InputError(f"{len(rows)} signals for {len(traces)} traces. Give one for each trace.")
    scenes = [
        scene(
            trace,
            np.full(trace.n_steps, np.nan) if row is None else row,
            text_of=lambda token: str(tokenizer.decode([token])),
            title=trace.fingerprint.model,
        )
        for trace, row in zip(traces, rows, strict=True)
    ]
    return Frame(replay_html(scenes), height=620)


def _text(trace: Trace) -> str:
    about = f"{trace.n_steps} steps, {trace.finish_reason}"
    return (
        f"<p><b>{escape(trace.prompt.shown)}</b><br>{escape(trace.response)}<br>"
        f"<small>{escape(trace.fingerprint.model)}, {about}</small></p>"
    )
