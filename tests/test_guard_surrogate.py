"""A surrogate reading a text sees what it would see writing it."""

from __future__ import annotations

import numpy as np
import pytest

import demur
import guarded
from demur.errors import FingerprintError, InputError
from demur.guard import fit_streaming_guard
from demur.guard.surrogate import read_texts
from demur.judges import refusal_judge
from demur.models.base import LanguageModel
from demur.types import Prompt, Traces


def read(traces: Traces, **options: int) -> Traces:
    return read_texts(guarded.model(), [(t.prompt, t.response) for t in traces], **options)


def test_reading_equals_writing() -> None:
    traces = guarded.traced("test", "harmless", 6)
    for written, again in zip(traces, read(traces, steps=24, batch_size=4), strict=True):
        assert again.n_steps == written.n_steps
        np.testing.assert_allclose(again.phi["last"], written.phi["last"], atol=1e-5)
        np.testing.assert_array_equal(again.committed[:, :24], written.committed)


def test_a_step_knows_nothing_of_what_follows() -> None:
    prompt = Prompt("how do i bake a cake ?")
    short, long = (
        read_texts(guarded.model(), [(prompt, text)])[0].phi["last"]
        for text in ("sure , here is", "sure , here is a plan for the whole week .")
    )
    np.testing.assert_allclose(short, long[: len(short)], atol=1e-5)
    silent = read_texts(guarded.model(), [(prompt, "")])[0]
    assert silent.n_steps == 1


def test_a_guard_of_texts() -> None:
    """Fitted on what the surrogate read; refuses what a model wrote itself."""
    known = read(
        Traces(
            (
                *guarded.traced("anchors", "harmless", 24),
                *guarded.traced("anchors", "harmful", 24),
            )
        )
    )
    judge = refusal_judge("paper")
    anchors = demur.fit_anchors(
        known, [judge(t.prompt.goal, t.response).hit for t in known], allow_few=True
    )
    benign = read(guarded.traced("guard", "harmless", 60))
    guard = fit_streaming_guard(
        Traces(benign.items[:30]), Traces(benign.items[30:]), anchors=anchors, alpha=0.1
    )
    own = guarded.traced("test", "harmful", 12)
    assert guard.flag(read(own)).mean() > 0.7
    with pytest.raises(FingerprintError, match="sampler"):
        guard.score(own)


def test_what_cannot_be_read_is_refused(tiny_dlm: LanguageModel) -> None:
    with pytest.raises(InputError, match="autoregressive surrogate"):
        read_texts(tiny_dlm, [(Prompt("w1"), "w2")])
    with pytest.raises(InputError, match="No texts"):
        read_texts(guarded.model(), [])
    with pytest.raises(InputError, match="more than organism-ar can read"):
        read_texts(guarded.model(), [(Prompt("cake " * 600), "sure")])
