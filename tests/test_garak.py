"""garak reaches demur through the API that is served: its request, under our settings of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import demur
from served import QUESTION, Served, serving

SETTINGS = json.loads((Path(__file__).parents[1] / "scripts" / "garak.json").read_text())

#: What garak 0.17's ``openai.OpenAICompatible`` sends unless told otherwise.
DEFAULTS: dict[str, Any] = {
    "max_tokens": 150,
    "temperature": 0.7,
    "top_p": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "seed": None,
    "stop": ["#", ";"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving([demur.load("organism-ar")]) as found:
        yield found


def body(given: dict[str, Any]) -> dict[str, Any]:
    """As ``OpenAICompatible._call_model`` makes it."""
    left = {**DEFAULTS, **given}
    left = {name: value for name, value in left.items() if name in DEFAULTS}
    sent = {
        name: value
        for name, value in left.items()
        if name not in given.get("suppressed_params", ()) and value is not None
    }
    turns = [{"role": "user", "content": QUESTION}]
    return {"model": "organism-ar", "n": 1, **sent, "messages": turns}


def test_a_request_of_garak_is_answered(server: Served) -> None:
    given = SETTINGS["openai"]["OpenAICompatible"]
    answer = server.post("/v1/chat/completions", body(given))
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"]
