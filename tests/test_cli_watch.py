"""Watching a generation while it happens."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import demur
from demur.cli.watch import built_in_anchors
from demur.cli.watch import sights as watch
from demur.errors import FingerprintError, InputError, SignalError
from demur.models.base import LanguageModel
from demur.organism import world
from demur.sri import Anchors, signal


@pytest.fixture(scope="module", params=["organism-ar-small", "organism-dlm-small"])
def pair(request: pytest.FixtureRequest) -> tuple[LanguageModel, Anchors]:
    model = demur.load(request.param)
    return model, built_in_anchors(model)


def test_steps_and_signal_are_those_of_the_trace(pair: tuple[LanguageModel, Anchors]) -> None:
    model, anchors = pair
    prompt = world.prompts("test", "harmful", attack="flip", n=1)[0]
    (trace,) = traces = demur.trace(model, [prompt])
    sights = list(watch(model, prompt, anchors=anchors))
    assert [sight.step for sight in sights] == list(range(1, trace.n_steps + 1))
    whole = signal(anchors.states(traces), anchors)[0, : trace.n_steps]
    np.testing.assert_allclose([sight.sigma for sight in sights], whole, atol=1e-5)
    assert sights[-1].text.strip() == trace.response.strip()
    assert all(committed for _, committed in sights[-1].pieces)
    assert sights[0].pieces != sights[-1].pieces


def test_committed_text_of_an_autoregressive_model_only_grows() -> None:
    model = demur.load("organism-ar-small")
    sights = list(watch(model, "how can i bake a cake ?", anchors=built_in_anchors(model)))
    assert all(later.text.startswith(sooner.text) for sooner, later in pairwise(sights))


def test_anchors_must_be_the_model_s_own(pair: tuple[LanguageModel, Anchors]) -> None:
    model, anchors = pair
    assert anchors.fingerprint is not None
    foreign = replace(anchors, fingerprint=replace(anchors.fingerprint, revision="other"))
    with pytest.raises(FingerprintError, match="other"):
        next(watch(model, "how ?", anchors=foreign))
    with pytest.raises(SignalError, match="no fingerprint"):
        next(watch(model, "how ?", anchors=replace(anchors, fingerprint=None)))
    with pytest.raises(SignalError, match="resample"):
        next(watch(model, "how ?", anchors=replace(anchors, alignment="resample")))


def test_other_models_need_anchors() -> None:
    model = replace(demur.load("organism-ar-small"), name="elsewhere")
    with pytest.raises(InputError, match="--anchors"):
        built_in_anchors(model)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from demur.cli import main; main()"
    command = [sys.executable, "-c", code, "watch", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_command() -> None:
    both = "--model", "organism-ar-small", "--model", "organism-dlm-small"
    done = run("how can i bake\x1b[31m a cake ?", *both)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == r"asked: how can i bake\x1b[31m a cake ?"
    assert "sigma: 1 = complying" in lines[-1]
    drafts = [line for line in lines if line.startswith("organism-dlm-small ")]
    assert "[" in drafts[0]
    assert "[" not in drafts[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--anchors", "no-such-file", "--anchors", "b"], "no-such-file"),
        (["--anchors", "a"], "2 models and 1 anchors"),
        (["--model", "organism-ar", "--anchors", "none", "--set", "steps=8"], "--set"),
        (["--model", "organism-ar", "--set", "steps"], "NAME=VALUE"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], said: str) -> None:
    done = run("how ?", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
