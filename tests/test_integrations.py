"""demur inside other tools: a real inspect eval, what a notebook shows, and a tracker's callback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import demur
from demur.errors import InputError
from demur.guard import Guard, fit_guard
from demur.integrations.notebook import load_ipython_extension, show
from demur.integrations.tracking import report
from demur.judges import Verdict, refusal_judge
from demur.organism.world import prompts as world_prompts
from demur.sampling import Autoregressive
from demur.sri import Anchors, fit_anchors, signal
from demur.types import Prompt, Traces
from demur.viz.tables import Table

SAMPLER = Autoregressive(steps=24)

TASK = """
import json, sys
import inspect_ai
from inspect_ai.dataset import Sample
from demur.integrations.inspect_ai import sri

samples = [Sample(input=text, target="x") for text in json.loads(sys.argv[1])]
task = inspect_ai.Task(dataset=samples, scorer=sri(), name="refusals")
(log,) = inspect_ai.eval(
    task, model="demur/organism-ar", model_args=json.loads(sys.argv[2]), display="none",
    log_dir=sys.argv[3], log_format="json", max_tokens=24,
)
print(log.status, log.error)
"""


@pytest.fixture(scope="module")
def benign() -> Traces:
    model = demur.load("organism-ar")
    prompts = world_prompts("guard", "harmless", n=40)
    return demur.trace(model, prompts, sampler=SAMPLER, batch_size=40)


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    model, judge = demur.load("organism-ar"), refusal_judge("paper")
    prompts = [
        *world_prompts("anchors", "harmless", n=12),
        *world_prompts("anchors", "harmful", n=12),
    ]
    traces = demur.trace(model, prompts, sampler=SAMPLER, batch_size=24)
    return fit_anchors(traces, [judge(t.prompt.goal, t.response).hit for t in traces])


@pytest.fixture(scope="module")
def guard(benign: Traces, anchors: Anchors) -> Guard:
    return fit_guard(benign[:20], benign[20:], anchors=anchors, alpha=0.05)


def test_inspect_eval(guard: Guard, tmp_path: Path) -> None:
    path = guard.save(tmp_path / "guard.safetensors")
    prompts = [
        *world_prompts("test", "harmless", n=2),
        *world_prompts("test", "harmful", attack="wild", n=2),
    ]
    script = tmp_path / "task.py"
    script.write_text(TASK)
    asked = json.dumps([prompt.text for prompt in prompts])
    model_args = json.dumps({"guard": str(path)})
    done = subprocess.run(
        [sys.executable, str(script), asked, model_args, str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "success None", done.stdout + done.stderr
    (log,) = (tmp_path / "logs").glob("*.json")
    samples = json.loads(log.read_text())["samples"]
    model = demur.load("organism-ar")
    ours = demur.trace(model, [Prompt(p.text) for p in prompts], sampler=SAMPLER)
    assert guard.anchors
    sigma = signal(guard.anchors.states(ours), guard.anchors)
    flags = guard.flag(ours)
    for sample, trace, row, flagged in zip(samples, ours, sigma, flags, strict=True):
        (score,) = sample["scores"].values()
        np.testing.assert_allclose(score["metadata"]["sigma"], row[: trace.n_steps], atol=2e-3)
        assert score["value"] == score["metadata"]["sigma"][-1]
        assert score["metadata"]["flagged"] == flagged
        (choice,) = sample["output"]["choices"]
        shown = "" if flagged else trace.response
        assert choice["message"]["content"] == shown
        assert (choice["stop_reason"] == "content_filter") == flagged
    assert flags.any()
    assert not flags.all()


def test_a_replay_is_shut_into_its_frame(benign: Traces, anchors: Anchors) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    trace = replace(benign[0], prompt=Prompt(hostile), response=hostile)
    sigma = signal(anchors.states(benign[:1]), anchors)[0]
    tokenizer = demur.load("organism-ar").tokenizer
    for html in (
        show(trace, sigma, tokenizer=tokenizer)._repr_html_(),
        show(trace)._repr_html_(),
        show(Verdict("hit", hostile))._repr_html_(),
    ):
        assert re.fullmatch(
            r"<iframe sandbox=\"allow-scripts\" srcdoc=\"[^\"<>]*\"[^<>]*></iframe>", html
        )
        page = unescape(html)
        assert "default-src 'none'" in page
        assert "<img src=x" not in page
    assert "data-replay" in show(trace, sigma, tokenizer=tokenizer).html


def test_what_a_notebook_shows_by_itself(benign: Traces, anchors: Anchors) -> None:
    known: dict[type, object] = {}

    class Formatter:
        def for_type(self, kind: type, show_it: object) -> None:
            known[kind] = show_it

    class Shell:
        class display_formatter:
            formatters: Mapping[str, Formatter] = {"text/html": Formatter()}

    load_ipython_extension(Shell())
    table = Table("Rates", ("a", "b"), (("x", 1.0),))
    for value in (benign[0], benign[:2], table, Verdict("miss")):
        assert "<iframe" in known[type(value)](value)  # type: ignore[operator]
    sigma = signal(anchors.states(benign), anchors)
    assert "<svg" in show(sigma).html
    assert "<svg" in show(sigma[0]).html
    with pytest.raises(InputError, match="A int cannot be shown"):
        show(3)
    with pytest.raises(InputError, match="40 signals for 1 traces"):
        show(benign[0], sigma, tokenizer=demur.load("organism-ar").tokenizer)


def test_metrics_for_a_tracker(benign: Traces, anchors: Anchors, guard: Guard) -> None:
    logged: list[Mapping[str, float]] = []
    found = report(benign[20:], to=logged.append, anchors=anchors, guard=guard)
    assert logged == [found]
    assert found["traces"] == 20
    assert found["refusal_rate"] == 0
    assert 0.5 < found["sigma_mean"] <= 1
    assert found["flagged_rate"] <= 0.05
    assert all(type(value) is float for value in found.values())
    assert set(report(benign[:1], to=logged.append)) == {"traces", "steps_mean", "refusal_rate"}
