"""A generation step by step in a page: token grid, drafts, commits and the signal.

``replay_html`` gives a self-contained fragment. Its parts (``replay.js``, ``replay.css``) also show
live steps: ``Replay.mount(element, scenes)`` returns a replay with ``push(step, scene)``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from demur.errors import InputError
from demur.types import Trace
from demur.viz.assets import fill, read

State = Literal["masked", "draft", "committed"]
Mark = Literal["", "refusal", "harmful", "end"]

#: Words that are common in refusals and rare in other answers.
REFUSAL_WORDS = frozenset(
    {"cannot", "can't", "sorry", "decline", "refuse", "unable", "apologize", "apologies"}
)

_PUNCTUATION = " \t\n.,;:!?\"'()▁Ġ"


@dataclass(frozen=True)
class TokenCell:
    """One response position at one step.

    It is masked (no token yet, no text), a draft (predicted, not committed) or committed. ``mark`` is
    the kind of a special word.
    """

    text: str
    state: State
    mark: Mark = ""


@dataclass(frozen=True)
class Scene:
    """One generation to replay.

    Attributes:
        title: what made it, for example model and sampler.
        prompt: the prompt.
        steps: one row of cells per step, all of equal length.
        sigma: one value in [0, 1] per step, 1 = complying; NaN for none.
        note: one sentence about it.
        flagged: 1-based step at which a guard flagged it, if any.
        verdict: what happened, in words; shown at the end.
    """

    title: str
    prompt: str
    steps: Sequence[Sequence[TokenCell]]
    sigma: Sequence[float]
    note: str = ""
    flagged: int | None = None
    verdict: str = ""

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.sigma) or not self.steps:
            raise InputError(
                f"Scene {self.title!r} has {len(self.steps)} steps and {len(self.sigma)} values of "
                "sigma. Give as many of both, at least one."
            )
        if self.flagged is not None and not 1 <= self.flagged <= len(self.steps):
            raise InputError(
                f"Scene {self.title!r} is flagged at step {self.flagged} of {len(self.steps)}."
            )


def scene(
    trace: Trace,
    sigma: ArrayLike,
    *,
    text_of: Callable[[int], str],
    title: str,
    refusal_words: Collection[str] = REFUSAL_WORDS,
    harmful_words: Collection[str] = frozenset(),
    end_ids: Collection[int] = frozenset(),
    note: str = "",
    flagged: int | None = None,
    verdict: str = "",
) -> Scene:
    """Make a scene of a trace.

    A prefilled beginning is shown as committed. Positions after the last word are left out.

    Args:
        trace: the generation.
        sigma: ``[T]`` its signal, at least as long as the trace; the rest is ignored.
        text_of: text of a token id.
        title: what made it.
        refusal_words: words to mark as refusing, without case and punctuation.
        harmful_words: words to mark as harmful.
        end_ids: tokens that end a response, besides the last token of this response.
        note: one sentence about it.
        flagged: 1-based step at which a guard flagged it.
        verdict: what happened, in words.

    Raises:
        InputError: sigma is shorter than the trace.
    """
    values = np.asarray(sigma, dtype=np.float64).reshape(-1)[: trace.n_steps]
    ends = (
        {*end_ids, *trace.response_ids[-1:].tolist()} if trace.finish_reason == "stop" else end_ids
    )
    marks: dict[str, Mark] = {plain_word(word): "harmful" for word in harmful_words}
    marks |= {plain_word(word): "refusal" for word in refusal_words}

    @cache
    def cell(token: int, committed: bool) -> TokenCell:
        if token < 0:
            return TokenCell("", "masked")
        text = text_of(token)
        mark: Mark = "end" if token in ends else marks.get(plain_word(text), "")
        return TokenCell(text, "committed" if committed else "draft", mark)

    steps = _rows(trace, ends, cell)
    prompt = trace.filled_prompt or trace.prompt.shown
    return Scene(title, prompt, steps, values.tolist(), note, flagged, verdict)


def _rows(
    trace: Trace, ends: Collection[int], cell: Callable[[int, bool], TokenCell]
) -> list[tuple[TokenCell, ...]]:
    """The cells of each step: the prefilled beginning, then the positions up to the last word."""
    # The steps of an autoregressive trace leave out the prefilled beginning; the response has it.
    missing = max(0, len(trace.response_ids) - int((trace.committed[-1] >= 0).sum()))
    prefix = tuple(cell(token, True) for token in trace.response_ids[:missing].tolist())
    spoken = (trace.draft >= 0) & ~np.isin(trace.draft, list(ends))
    width = 1 + int(np.flatnonzero(spoken.any(axis=0)).max(initial=-1))
    width += bool(ends)
    rows = zip(trace.draft[:, :width].tolist(), trace.committed[:, :width].tolist(), strict=True)
    return [prefix + tuple(cell(d, c >= 0) for d, c in zip(*row, strict=True)) for row in rows]


def replay_html(scenes: Sequence[Scene]) -> str:
    """A fragment for any page: the scenes side by side on one clock, with style and script.

    It has a switch between light and dark. Scenes of fewer steps run slower, so that all end
    together.

    Raises:
        InputError: there are no scenes.
    """
    page = fill(
        "replay.html.j2",
        element=replay_element(scenes, theme=True),
        style=read("replay.css"),
        script=read("replay.js"),
    )
    return str(page)


def replay_element(scenes: Sequence[Scene], *, theme: bool = False) -> Markup:
    """Only the element with its data, for pages that include ``replay.css`` and ``replay.js``.

    Args:
        scenes: at least one.
        theme: whether to add a switch between light and dark.

    Raises:
        InputError: there are no scenes.
    """
    if not scenes:
        raise InputError("There are no scenes to replay. Make one with demur.viz.replay.scene.")
    data = as_script_json([_plain_scene(s) for s in scenes])
    return fill("replay_element.html.j2", data=data, scenes=scenes, theme=theme)


def as_script_json(value: Any) -> Markup:
    """JSON for a ``script`` element; nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _plain_scene(value: Scene) -> dict[str, Any]:
    """The scene as ``replay.js`` takes it. A live page pushes steps of the same form."""
    return {
        "title": value.title,
        "prompt": value.prompt,
        "note": value.note,
        "verdict": value.verdict,
        "total": len(value.steps),
        "flagged": value.flagged,
        "steps": [
            {
                "cells": [[c.text, c.state[0], c.mark[:1]] for c in cells],
                "sigma": round(float(sigma), 4) if math.isfinite(sigma) else None,
            }
            for cells, sigma in zip(value.steps, value.sigma, strict=True)
        ],
    }


def plain_word(text: str) -> str:
    """A token's text without case, punctuation and start-of-word marks."""
    return text.strip(_PUNCTUATION).casefold()
