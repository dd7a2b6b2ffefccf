"""An engine whose inside fails: everyone is told, nothing passed, and it goes on or says that it does
not."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

import demur
from demur.serve.hosted import Limits
from demur.serve.model_engine import ModelEngine
from demur.serve.scheduler import Scheduler
from served import QUESTION, serving, until

CHAT = "/v1/chat/completions"
ASKED = {"model": "organism-ar", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.mark.parametrize("method", ["leave", "join", "step", "end", "_take"])
def test_a_fault_anywhere_in_a_turn_ends_what_runs(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with serving([demur.load("organism-ar")]) as server:
        with monkeypatch.context() as patched:
            once(patched, Scheduler, method)
            answer = server.post(CHAT, {**ASKED, "n": 4})
            if method == "leave":  # before the request is taken from the queue: it is not concerned
                assert answer.status_code == 200
            else:
                assert answer.status_code == 500
                assert answer.json()["error"]["code"] == "failed"
        assert server.chat("organism-ar")["choices"][0]["finish_reason"] == "stop"
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert server.figure("rows", model="organism-ar") == 0


@pytest.mark.parametrize("method", ["_post", "_has_work"])
def test_a_thread_that_ends_is_told(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    with serving([demur.load("organism-ar")], limits=Limits(rows=1)) as server:
        with monkeypatch.context() as patched:
            once(patched, ModelEngine, method, after=2)
            # One runs, the others wait for its row.
            answer = server.post(CHAT, {**ASKED, "n": 4})
            assert answer.status_code in (500, 503)
        until(lambda: server.engines["organism-ar"].dead)
        assert server.post(CHAT, ASKED).status_code == 429
        assert httpx.get(f"{server.url}/healthz").status_code == 503
        assert httpx.get(f"{server.url}/readyz").status_code == 503


def test_engines_come_down_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second does not wait for the first."""
    order: list[str] = []
    drain = ModelEngine.drain

    async def slowly(self: ModelEngine, seconds: float) -> None:
        order.append("begin")
        await asyncio.sleep(0)
        await drain(self, seconds)
        order.append("end")

    monkeypatch.setattr(ModelEngine, "drain", slowly)
    with serving([demur.load(name) for name in ("organism-ar", "organism-dlm")]):
        pass
    assert order == ["begin", "begin", "end", "end"]


def test_a_turn_costs_an_answer_its_own_seconds() -> None:
    """Model seconds a token over an answer's life, for a sampler that settles all tokens at its end."""
    with serving([demur.load("organism-dlm")]) as server:
        found = server.chat("organism-dlm")
        tokens = found["usage"]["completion_tokens"]
        spent = server.figure("token_seconds_sum", model="organism-dlm", guard="without")
        stepped = server.figure("step_seconds_sum", model="organism-dlm", part="model")
        assert server.figure("token_seconds_count", model="organism-dlm", guard="without") == 1
        assert spent * tokens == pytest.approx(stepped, rel=0.01)
        assert server.figure("first_step_seconds_count", model="organism-dlm") == 1


def once(patched: pytest.MonkeyPatch, owner: Any, name: str, *, after: int = 1) -> None:
    """Make a method fail at its ``after``-th call."""
    real, calls = getattr(owner, name), 0

    def faulty(self: Any, *given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after:
            raise RuntimeError("a fault")
        return real(self, *given, **named)

    patched.setattr(owner, name, faulty)
