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
from IPython.core.interactiveshell import InteractiveShell

import demur
from demur.anchors import fit_anchors
from demur.errors import InputError
from demur.guard import Guard, fit_guard
from demur.integrations import register_display
from demur.integrations.notebook import show
from demur.integrations.tracking import report
from demur.judges import Verdict, refusal_judge
from demur.organism.world import prompts as world_prompts
from demur.sampling import Autoregressive
from demur.sri import Anchors, signal
from demur.types import Prompt, Traces, Turn
from demur.viz.figures import Figure
from demur.viz.replay import scene
from demur.viz.tables import Table
from thinking import thinking_model

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
    return fit_anchors(
        traces, [judge(t.prompt.goal, t.response).hit for t in traces], allow_few=True
    )


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


def test_any_max_tokens_runs(guard: Guard, tmp_path: Path) -> None:
    path = guard.save(tmp_path / "guard.safetensors")
    asked_of = world_prompts("guard", "harmless", n=1)[0].text
    asked = [
        ("organism-ar", 8, {"guard": str(path)}),
        ("organism-ar", 500, {"guard": str(path)}),
        ("organism-dlm", 32, {}),
    ]
    code = """
import asyncio, json, sys
from inspect_ai.model import GenerateConfig, get_model
for name, tokens, args in json.loads(sys.argv[1]):
    settings = GenerateConfig(max_tokens=tokens)
    model = get_model(f"demur/{name}", config=settings, memoize=False, **args)
    output = asyncio.run(model.generate(sys.argv[2]))
    print("said", json.dumps([output.completion, output.stop_reason, output.metadata["demur"]]))
"""
    command = [sys.executable, "-c", code, json.dumps(asked), asked_of]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = [line[5:] for line in done.stdout.splitlines() if line.startswith("said ")]
    for (name, tokens, _), line in zip(asked, said, strict=True):
        completion, reason, known = json.loads(line)
        assert 0 < len(completion.split()) <= tokens
        assert (reason == "max_tokens") or tokens > 8
        assert ("sigma" in known) == (name == "organism-ar")


def test_a_conversation_with_a_model_that_thinks(tmp_path: Path) -> None:
    """Options of the model, earlier turns, reasoning beside the completion, and a thought cut off."""
    script = ["w1", "w2", "</think>", "w3", "<|eos|>"]
    thinker = thinking_model(tmp_path / "m", opens=True, script=script)
    template = str(thinker.tokenizer.chat_template)
    tokenizer = thinker.tokenizer
    tokenizer.chat_template = template.replace("<think>\n", "{% if deep %}<think>{% endif %}")
    tokenizer.save_pretrained(tmp_path / "m")
    code = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[2])
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, GenerateConfig, get_model
from thinking import force
args = {"system": "w9", "template": {"deep": True}, "steps": 8}
model = get_model(f"demur/{sys.argv[1]}", memoize=False, **args)
loaded = model.api.model
force(loaded, loaded.tokenizer.convert_tokens_to_ids(json.loads(sys.argv[3])))
user = [ChatMessageUser(content=text) for text in ("w5 w8", "w7")]
turns = [user[0], ChatMessageAssistant(content="w8 w6"), user[1]]
asked = []
embedding = loaded.net.get_input_embeddings()
embedding.register_forward_hook(lambda m, i, o: asked.append(i[0][0].tolist()))
for tokens in (None, 2):
    output = asyncio.run(model.generate(turns, config=GenerateConfig(max_tokens=tokens)))
    content = output.choices[0].message.content
    print("said", json.dumps([output.completion, content[0].reasoning, output.metadata["demur"]]))
print("read", loaded.decode(asked[0], special=True))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "m")]
    command += [str(Path(__file__).parent), json.dumps(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("said ")]
    assert said == [["w3", "w1 w2", {}], ["", "w1 w2", {"unanswered": True}]]
    (read,) = [line for line in done.stdout.splitlines() if line.startswith("read ")]
    order = [read.index(word) for word in ("w9", "w5", "w6", "w7", "<think>")]
    assert order == sorted(order)


def test_a_replay_shows_the_whole_conversation(benign: Traces) -> None:
    prompt = Prompt("and now ?", turns=(Turn("user", "first <i>"), Turn("assistant", "second")))
    trace = replace(benign[0], prompt=prompt)
    told = "user: first <i>\nassistant: second\nuser: and now ?"
    shown = scene(trace, np.zeros(trace.n_steps), text_of=str, title="x")
    assert shown.prompt == prompt.shown == told
    assert "assistant: second" in show(trace).html
    assert Prompt("alone").shown == "alone"


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
    shell = InteractiveShell.instance()

    def shown(value: object) -> str:
        data, _ = shell.display_formatter.format(value)
        return str(data.get("text/html", ""))

    table = Table("Rates", ("a", "b"), (("x", 1.0),))
    values = (benign[0], benign[:2], table, Figure("f", "<svg></svg>", table), Verdict("miss"))
    assert not any(map(shown, values))
    register_display(shell, demur.show)
    assert all(shown(value).startswith("<iframe sandbox") for value in values)
    sigma = signal(anchors.states(benign), anchors)
    assert not shown(sigma)
    shell.run_line_magic("load_ext", "demur.integrations.notebook")
    assert shown(sigma).startswith("<iframe sandbox")
    for other in (np.arange(3), np.ones((2, 2, 2), np.float32), sigma - 2, sigma[:0]):
        assert not shown(other)
    replayed = show(benign[0], sigma[0], tokenizer=demur.load("organism-ar").tokenizer)
    assert "data-replay" in replayed.html
    assert "<svg" in show(sigma).html
    assert "<svg" in show(sigma[0]).html
    with pytest.raises(InputError, match="A int cannot be shown"):
        show(3)
    with pytest.raises(InputError, match="40 signals for 1 traces"):
        show(benign[0], sigma, tokenizer=demur.load("organism-ar").tokenizer)


def test_import_in_a_notebook_registers_the_display(tmp_path: Path) -> None:
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import demur, sys; assert 'numpy' not in sys.modules or 'torch' not in sys.modules")
shell.run_cell("from demur.judges import Verdict; value = Verdict('miss')")
print(shell.display_formatter.format(shell.user_ns["value"])[0]["text/html"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.startswith("<iframe sandbox"), done.stderr


def test_metrics_for_a_tracker(benign: Traces, anchors: Anchors, guard: Guard) -> None:
    logged: list[Mapping[str, float]] = []
    found = report(benign[20:], to=logged.append, anchors=anchors, guard=guard)
    assert logged == [found]
    assert found["traces"] == 20
    assert found["refusal_rate"] == 0
    assert 0.5 < found["sigma_mean"] <= 1
    assert found["flagged_rate"] <= 0.05
    assert all(type(value) is float for value in found.values())
    with pytest.raises(InputError, match="No traces to report"):
        report(benign[:0], to=logged.append)
    assert len(logged) == 1
    assert set(report(benign[:1], to=logged.append)) == {"traces", "steps_mean", "refusal_rate"}
