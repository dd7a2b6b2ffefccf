"""A generation step by step: token grid, drafts, commits and the signal, played in the page.

``replay_html`` is a fragment that needs nothing but itself. Its parts (``replay.js``, ``replay.css``)
also take live steps: ``Replay.mount(element, scenes)`` returns a replay with ``push(step, scene)``.
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

#: Words that refusals say and other answers seldom do.
REFUSAL_WORDS = frozenset(
    {"cannot", "can't", "sorry", "decline", "refuse", "unable", "apologize", "apologies"}
)

_PUNCTUATION = " \t\n.,;:!?\"'()▁Ġ"


@dataclass(frozen=True)
class Cell:
    """One response position at one step.

    Attributes:
        text: the token's text; empty where nothing is known.
        state: masked (no token yet), draft (predicted, not committed) or committed.
        mark: what kind of word it is, if it is a special one.
    """

    text: str
    state: State
    mark: Mark = ""


@dataclass(frozen=True)
class Scene:
    """One generation to replay.

    Attributes:
        title: what made it, for example model and sampler.
        prompt: what was asked.
        steps: one row of cells a step, all of one length.
        sigma: one value in [0, 1] a step, 1 = complying; NaN where there is none.
        note: one sentence about it.
        flagged: 1-based step at which a guard flagged it, if one did.
    """

    title: str
    prompt: str
    steps: Sequence[Sequence[Cell]]
    sigma: Sequence[float]
    note: str = ""
    flagged: int | None = None

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.sigma) or not self.steps:
            raise InputError(
                f"Scene {self.title!r} has {len(self.steps)} steps and {len(self.sigma)} values of "
                "sigma. Give one of each, at least one."
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
) -> Scene:
    """Make a scene of a trace.

    A prefilled beginning is shown as committed; positions after the last that ever held a word are
    left out.

    Args:
        trace: the generation.
        sigma: ``[T]`` its signal, at least as long as the trace; what goes beyond is cut.
        text_of: text of a token id.
        title: what made it.
        refusal_words: words to mark as refusing; compared without case and punctuation.
        harmful_words: words to mark as harmful.
        end_ids: tokens that end a response, besides the one this response ended with.
        note: one sentence about it.
        flagged: 1-based step at which a guard flagged it.

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
    def cell(token: int, committed: bool) -> Cell:
        if token < 0:
            return Cell("", "masked")
        text = text_of(token)
        mark: Mark = "end" if token in ends else marks.get(plain_word(text), "")
        return Cell(text, "committed" if committed else "draft", mark)

    steps = _rows(trace, ends, cell)
    prompt = trace.filled_prompt or trace.prompt.text
    return Scene(title, prompt, steps, values.tolist(), note, flagged)


def _rows(
    trace: Trace, ends: Collection[int], cell: Callable[[int, bool], Cell]
) -> list[tuple[Cell, ...]]:
    """The cells of each step: the prefilled beginning, then the positions that ever held a word."""
    # Of an autoregressive trace the steps hold only what was generated; the response holds both.
    missing = max(0, len(trace.response_ids) - int((trace.committed[-1] >= 0).sum()))
    prefix = tuple(cell(token, True) for token in trace.response_ids[:missing].tolist())
    spoken = (trace.draft >= 0) & ~np.isin(trace.draft, list(ends))
    width = 1 + int(np.flatnonzero(spoken.any(axis=0)).max(initial=-1))
    width += bool(ends)
    rows = zip(trace.draft[:, :width].tolist(), trace.committed[:, :width].tolist(), strict=True)
    return [prefix + tuple(cell(d, c >= 0) for d, c in zip(*row, strict=True)) for row in rows]


def replay_html(scenes: Sequence[Scene]) -> str:
    """A fragment to put into any page: the scenes side by side on one clock, style and script.

    It has its own switch between light and dark. A scene of fewer steps than another moves on in
    proportion, so that all begin and end together.

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
    """Only the element with its data, for pages that bring ``replay.css`` and ``replay.js`` once.

    Args:
        scenes: at least one.
        theme: whether it has its own switch between light and dark.

    Raises:
        InputError: there are no scenes.
    """
    if not scenes:
        raise InputError("There are no scenes to replay. Make one with demur.viz.replay.scene.")
    data = as_script_json([_plain_scene(s) for s in scenes])
    return fill("replay_element.html.j2", data=data, scenes=scenes, theme=theme)


def as_script_json(value: Any) -> Markup:
    """JSON that can stand inside a ``script`` element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _plain_scene(value: Scene) -> dict[str, Any]:
    """The scene as ``replay.js`` takes it; a live page pushes steps of the same form."""
    steps = [
        {
            "cells": [[c.text, c.state[0], c.mark[:1]] for c in cells],
            "sigma": round(float(sigma), 4) if math.isfinite(sigma) else None,
        }
        for cells, sigma in zip(value.steps, value.sigma, strict=True)
    ]
    return {
        "title": value.title,
        "prompt": value.prompt,
        "note": value.note,
        "total": len(value.steps),
        "flagged": value.flagged,
        "steps": steps,
    }


def plain_word(text: str) -> str:
    """A token's text without case, punctuation and what marks the beginning of a word."""
    return text.strip(_PUNCTUATION).casefold()
