"""The server tells thought from answer: whole, streamed, with other marks, and under a guard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demur
from demur.guard import fit_streaming_guard
from demur.sampling import Autoregressive
from demur.sri import Anchors
from demur.thoughts import ThoughtSplitter
from served import at_threshold, serving
from test_thoughts import ANSWERED, CUT
from thinking import thinking_model

CHAT = "/v1/chat/completions"
SCRIPTS = {
    ("think", False): ["<think>", "w1", "w2", "</think>", "w3", "w4", "<|eos|>"],
    ("think", True): ["w1", "w2", "</think>", "w3", "w4", "<|eos|>"],
    ("magistral", False): ["[THINK]", "w1", "w2", "[/THINK]", "w3", "w4", "<|eos|>"],
}


def asked(model: str, text: str = "w5 w6", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def joined(events: list[Any], field: str) -> str:
    choices = [choice for e in events if e != "[DONE]" for choice in e["choices"]]
    return "".join(choice["delta"].get(field) or "" for choice in choices)


@pytest.mark.parametrize(("marks", "opens"), SCRIPTS)
def test_a_thought_stands_beside_the_answer(tmp_path: Path, marks: str, opens: bool) -> None:
    model = thinking_model(tmp_path / "m", marks, opens=opens, script=SCRIPTS[marks, opens])
    with serving([model]) as server:
        (choice,) = server.chat(model.name, "w5 w6", max_tokens=20)["choices"]
        message = choice["message"]
        assert message["content"] == "w3 w4"
        assert message["reasoning_content"].strip() == "w1 w2"
        assert choice["finish_reason"] == "stop"
        events = server.stream(CHAT, asked(model.name, stream=True, max_tokens=20))
        assert joined(events, "content") == "w3 w4"
        assert joined(events, "reasoning_content").strip() == "w1 w2"
        (choice,) = server.chat(model.name, "w5 w6", max_tokens=2)["choices"]
        assert choice["message"]["content"] == ""
        assert choice["message"]["reasoning_content"].startswith("w1")
        assert choice["finish_reason"] == "length"
        # A text completion is the text as it is.
        raw = server.post("/v1/completions", {"model": model.name, "prompt": "w5", "max_tokens": 9})
        assert raw.json()["choices"][0]["text"].strip().endswith("w3 w4")
        assert SCRIPTS[marks, opens][-4] in raw.json()["choices"][0]["text"]


def test_a_model_that_does_not_think_has_no_such_field() -> None:
    with serving([demur.load("organism-ar")]) as server:
        (choice,) = server.chat("organism-ar")["choices"]
        assert set(choice["message"]) == {"role", "content"}


def test_the_guard_reads_the_thought(tmp_path: Path) -> None:
    """A guard that flags everything at once lets no thought out either."""
    model = thinking_model(tmp_path / "m", script=SCRIPTS["think", False])
    sampler = Autoregressive(steps=8)
    traces = demur.trace(model, [f"w{i} w{i % 7}" for i in range(40)], sampler=sampler)
    mark = traces.fingerprint
    ones = np.random.default_rng(0).normal(size=(2, 8, 32)).astype(np.float32)
    anchors = Anchors(ones[0], ones[1], alignment="repeat_last", fingerprint=mark)
    guard = fit_streaming_guard(traces[:20], traces[20:], anchors=anchors, alpha=0.1)
    with serving([model], [at_threshold(guard, -1e9)]) as server:
        (choice,) = server.chat(model.name, "w5 w6")["choices"]
        assert choice["finish_reason"] == "content_filter"
        assert choice["message"] == {"role": "assistant", "content": ""}
    with serving([model], [at_threshold(guard, 1e9)]) as server:
        (choice,) = server.chat(model.name, "w5 w6")["choices"]
        assert choice["message"]["content"] == "w3 w4"


@pytest.mark.parametrize("text", [*ANSWERED.values(), *CUT.values()], ids=[*ANSWERED, *CUT])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_splitting_as_it_arrives(text: str, size: int) -> None:
    splitter = ThoughtSplitter()
    thought = answer = ""
    for start in range(0, len(text), size):
        a, b = splitter.read(text[start : start + size])
        thought, answer = thought + a, answer + b
    a, b = splitter.read("", last=True)
    thought, answer = thought + a, answer + b
    if text in CUT.values():
        assert not answer.strip()
        assert thought
    elif text == ANSWERED["no opening"]:
        assert answer.endswith("Yes.")
    else:
        assert answer.split(">")[-1].strip() in ("Yes.", "") or "<|" in text
        assert "Yes." in answer
        assert "No" not in answer
        assert "think" not in (thought + answer).lower()


@pytest.mark.parametrize(
    "text",
    ["Yes.", "a < b and [1, 2] <b>c</b>", "analysis of data", "Here is a cake.", "an", "<", ""],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_text_without_a_thought_passes(text: str, size: int) -> None:
    splitter = ThoughtSplitter()
    found = [splitter.read(text[i : i + size]) for i in range(0, len(text), size)]
    found.append(splitter.read("", last=True))
    assert "".join(answer for _, answer in found) == text
    assert not any(thought for thought, _ in found)


def test_splitting_gives_text_early() -> None:
    splitter = ThoughtSplitter(opened=True)
    for _ in range(200):
        assert splitter.read("word ") == ("word ", "")
    assert splitter.read("</think>\n\n") == ("", "")
    assert splitter.read("Yes") == ("", "Yes")
