"""What a rail asks about is blocked where it cannot be judged: rails take an error for a pass."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import demur
from demur.serve.hosted import Limits
from demur.serve.http_errors import LITELLM, NEMO
from served import QUESTION, Served, a_guard, at_threshold, serving, without_end

KEY = "a-key-that-is-long-enough"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """One whose guard flags nothing."""
    model = demur.load("organism-ar")
    limits = Limits(body=1 << 16)
    with serving([model], [at_threshold(a_guard(model), 1e9)], limits=limits) as found:
        yield found


def litellm(server: Served, **fields: Any) -> dict[str, Any]:
    answer = server.post(LITELLM, {"input_type": "request", **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def nemo(server: Served, content: bytes) -> dict[str, Any]:
    answer = httpx.post(
        f"{server.url}{NEMO}", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_what_is_judged_passes(server: Served) -> None:
    assert server.post(NEMO, {"input": QUESTION}).json() == {"jailbreak": False}
    assert litellm(server, texts=[QUESTION] * 40) == {"action": "NONE"}
    assert litellm(server, texts=[" ", ""], tool_calls=[], images=[]) == {"action": "NONE"}


@pytest.mark.parametrize(
    ("fields", "about"),
    [
        ({"texts": [], "tool_calls": [{"function": {"arguments": "{}"}}]}, "Tool calls"),
        ({"texts": [QUESTION], "images": ["x"]}, "Images"),
        ({"texts": [QUESTION], "input_type": "response"}, "Only requests"),
        ({"texts": [QUESTION, "puzzle " * 600]}, "too long"),
        ({"texts": [QUESTION] * 65}, "texts"),
        ({"texts": "all"}, "texts"),
        ({"texts": ["x" * (1 << 17)]}, "too large"),
    ],
)
def test_litellm_is_told_to_block(server: Served, fields: dict[str, Any], about: str) -> None:
    found = litellm(server, **fields)
    assert found["action"] == "BLOCKED"
    assert about in found["blocked_reason"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"input": "' + b"puzzle " * 600 + b'"}',
        b'{"input": "' + b"x" * (1 << 17) + b'"}',
        b'{"input": "\\ud800"}',
        b'{"prompt": "x"}',
        b"{",
    ],
)
def test_nemo_is_told_to_block(server: Served, content: bytes) -> None:
    found = nemo(server, content)
    assert found["jailbreak"] is True
    assert found["reason"]


def test_a_full_queue_blocks() -> None:
    model = without_end(demur.load("organism-ar"))
    guard = at_threshold(a_guard(demur.load("organism-ar")), 1e9)
    with serving([model], [guard], limits=Limits(rows=1, queue=1)) as server:
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda _: server.post(NEMO, {"input": QUESTION}).json(), range(8))
            )
        busy = [each for each in found if "requests are waiting" in each.get("reason", "")]
        assert busy
        assert all(each["jailbreak"] for each in busy)


def test_the_first_guard_judges_and_none_blocks() -> None:
    model, other = demur.load("organism-ar"), demur.load("organism-dlm")
    with serving([other, model], [at_threshold(a_guard(model), 1e9)]) as server:
        assert server.post(NEMO, {"input": QUESTION}).json() == {"jailbreak": False}
    with serving([other]) as server:
        found = server.post(NEMO, {"input": QUESTION}).json()
        assert found["jailbreak"] is True
        assert "has a guard" in found["reason"]


def test_a_wrong_key_stays_an_error() -> None:
    with serving([demur.load("organism-ar")], keys=[KEY]) as server:
        assert server.post(NEMO, {"input": QUESTION}).status_code == 401
