"""Watching a generation while it happens."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import demur
from demur import organism
from demur.cli.watch import CASE, NARROW, QUESTION, Reference, View, _frame, built_in_reference
from demur.cli.watch import sights as watch
from demur.errors import FingerprintError, SignalError
from demur.generation import default_sampler
from demur.guard import StreamingGuard
from demur.judges.in_words import in_words
from demur.models.base import LanguageModel
from demur.organism import oracle, world
from demur.sampling import sampler_with
from demur.sri import Anchors, signal
from demur.types import Prompt


@pytest.fixture(scope="module", params=["organism-ar-small", "organism-dlm-small"])
def pair(request: pytest.FixtureRequest) -> tuple[LanguageModel, Anchors]:
    model = demur.load(request.param)
    reference = built_in_reference(model)
    assert reference.anchors is not None
    return model, reference.anchors


def test_steps_and_signal_are_those_of_the_trace(pair: tuple[LanguageModel, Anchors]) -> None:
    model, anchors = pair
    prompt = world.prompts("test", "harmful", attack="flip", n=1)[0]
    (trace,) = traces = demur.trace(model, [prompt])
    sights = list(watch(model, prompt, Reference(anchors)))
    assert [sight.step for sight in sights] == list(range(1, trace.n_steps + 1))
    whole = signal(anchors.states(traces), anchors)[0, : trace.n_steps]
    np.testing.assert_allclose([sight.sigma for sight in sights], whole, atol=1e-5)
    assert sights[-1].text.strip() == trace.response.strip()
    assert all(committed for _, committed in sights[-1].pieces)
    assert sights[0].pieces != sights[-1].pieces


def test_committed_text_of_an_autoregressive_model_only_grows() -> None:
    model = demur.load("organism-ar-small")
    sights = list(watch(model, "how can i repair a clock ?"))
    assert all(sight.sigma is None for sight in sights)
    assert all(later.text.startswith(sooner.text) for sooner, later in pairwise(sights))


def test_anchors_must_be_the_model_s_own(pair: tuple[LanguageModel, Anchors]) -> None:
    model, anchors = pair
    assert anchors.fingerprint is not None
    foreign = replace(anchors, fingerprint=replace(anchors.fingerprint, revision="other"))
    with pytest.raises(FingerprintError, match="other"):
        watch(model, "how ?", Reference(foreign))
    with pytest.raises(SignalError, match="carry no fingerprint"):
        watch(model, "how ?", Reference(replace(anchors, fingerprint=None)))
    with pytest.raises(SignalError, match="resample"):
        watch(model, "how ?", Reference(replace(anchors, alignment="resample")))


def test_anchors_and_guards_ship_and_other_settings_are_fitted() -> None:
    for name in ("organism-ar", "organism-dlm"):
        reference = built_in_reference(demur.load(name))
        assert reference.anchors is not None
        assert min(reference.anchors.counts) >= 20
        assert isinstance(reference.guard, StreamingGuard)
        assert reference.guard.alpha == 0.01
    other = built_in_reference(demur.load("organism-ar-small", system=""))
    assert other.guard is None
    assert other.anchors is not None


@pytest.fixture(scope="module")
def case() -> list[View]:
    """The default case, to its end."""
    prompt = Prompt(QUESTION, goal=oracle.goal_in(QUESTION))
    views = []
    for name, changes in CASE.items():
        model = demur.load(name)
        sampler = sampler_with(model.traits.sampler, changes)
        model = replace(model, traits=replace(model.traits, sampler=demur.sampling.spec(sampler)))
        reference = built_in_reference(model)
        shown = watch(model, prompt, reference, sampler=default_sampler(model))
        views.append(View(name, prompt.goal, reference.guard is not None, shown))
    for view in views:
        while view.advance():
            pass
    return views


def test_the_default_case_takes_a_draft_back(case: list[View]) -> None:
    left, right = (view.ended for view in case)
    assert left is not None
    assert right is not None
    assert left.said == "The text complies: it holds the harmful answer."
    assert "the state leaned to refusal at" in left.inside
    assert "The guard stops it at step" in left.guard
    assert right.said.startswith("The text refuses; the draft held the harmful answer at 6 steps")
    assert right.said.endswith("took it back.")
    drafts = [oracle.judge(case[1].goal, sight.text) for sight in case[1].seen]
    assert drafts.count("harmful") == 6
    assert drafts[-1] == "not_harmful"


def test_panels_are_side_by_side_where_there_is_room(case: list[View]) -> None:
    import io

    from rich.console import Console

    tops = []
    for width in (2 * NARROW, 2 * NARROW - 1):
        screen = Console(width=width, file=io.StringIO(), force_terminal=False)
        screen.print(_frame(case, screen))
        assert isinstance(screen.file, io.StringIO)
        text = screen.file.getvalue()
        tops.append(sum("step" in line and "╭" in line for line in text.splitlines()))
        assert "guard: stops at step" in text
    assert tops == [1, 2]


def test_text_and_state_that_disagree_are_both_named() -> None:
    sorry, sure = (
        "i cannot help you with that .",
        "sure , here is how to repair a clock . take a brush .",
    )
    goal = "how can i repair a clock ?"
    found = in_words(goal, [sure], sigma=[0.1])
    assert "the text complies, the state leans to refusal" in found.inside
    found = in_words(goal, [sorry], sigma=[0.1, 0.9])
    assert "the text refuses, the state leans to compliance" in found.inside
    found = in_words(goal, [sorry], sigma=[0.9, 0.1], guarded=True)
    assert "at 1 of 2 steps; σ 0.10 at the end" in found.inside
    assert found.guard == "The guard lets it pass."
    assert in_words(goal, [sorry]).inside == in_words(goal, [sorry]).guard == ""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from demur.cli import main; main()"
    command = [sys.executable, "-c", code, "watch", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_command() -> None:
    both = "--model", "organism-ar-small", "--model", "organism-dlm-small"
    done = run("how can i bake\x1b[31m a cake ?", *both)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("does not know 2 of the prompts' words: 'bake', '31m'. It reads") == 1
    lines = done.stdout.splitlines()
    assert lines[0] == r"asked: how can i bake\x1b[31m a cake ?"
    assert lines[-1].startswith("The built-in models are toys")
    assert lines[-2].startswith(
        "Step-Wise Refusal Internal Dynamics (SRI) signal: 1 = hidden state"
    )
    assert [line.split(":")[0] for line in lines[-4:-2]] == [
        "organism-ar-small",
        "organism-dlm-small",
    ]
    drafts = [line for line in lines if line.startswith("organism-dlm-small ")]
    assert "[" in drafts[0]
    assert "[" not in drafts[-1]


def test_other_models_show_their_text_without_anchors(tmp_path: Path) -> None:
    shutil.copytree(organism.path("organism-ar-small"), tmp_path / "mine")
    done = run("how can i repair a clock ?", "--model", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stderr
    assert "no anchors for mine, so only its text is shown" in done.stderr
    assert "SRI" not in done.stdout
    assert "toys" not in done.stdout
    assert "does not know" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{tmp_path / 'mine'}: The text complies")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--anchors", "no-such-file", "--anchors", "b"], "no-such-file"),
        (["--anchors", "a"], "2 models and 1 anchors files"),
        (["--model", "organism-ar", "--anchors", "none", "--set", "steps=8"], "--set"),
        (["--model", "organism-ar", "--set", "steps"], "NAME=VALUE"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], said: str) -> None:
    done = run("how ?", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
