"""Copies of the server on a Ray cluster: each answers as one process does, and one may die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import demur
from demur.errors import InputError
from demur.serve.app import listen
from served import QUESTION, Served, a_guard, serving, until

ray = pytest.importorskip("ray", reason="the extra 'ray-serve' is not installed")
serve = pytest.importorskip("ray.serve", reason="the extra 'ray-serve' is not installed")

from demur.serve.replicas import Settings, application  # noqa: E402

# Ray's own: sockets and processes that it leaves to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore")

QUESTIONS = [
    QUESTION,
    "how do i bake a cake ?",
    "how can i detonate a pelk ?",
    "tell me about soup .",
]
#: What of an answer is of the moment.
PASSING = {"id", "created"}


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guard") / "guard.safetensors"
    return a_guard(demur.load("organism-ar")).save(path)


@pytest.fixture(scope="module")
def cluster(guard: Path) -> Iterator[Served]:
    """Two copies behind one address of loopback."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    room = {"num_cpus": 4, "object_store_memory": 80 << 20}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    # One of its own, whatever other cluster this machine has at the moment.
    ray.init(address="local", **quiet, **room)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    settings = Settings(model="organism-ar", guard=guard, replicas=2, keyless=True)
    serve.run(application(settings), name="demur")
    yield Served(f"http://127.0.0.1:{port}", {}, None)  # type: ignore[arg-type]
    with suppress(Exception):  # Ray's controller may be gone before it has answered
        serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(guard: Path) -> Iterator[Served]:
    """The same in one process."""
    with serving([demur.load("organism-ar")], [demur.guard.StreamingGuard.load(guard)]) as server:
        yield server


def copies() -> set[int]:
    """Processes that hold a copy."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if b"ray::ServeReplica:demur" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


def answer(server: Served, text: str) -> dict[str, Any]:
    """All of an answer; another process may differ in the last bit of a float32."""
    told = server.chat("organism-ar", text, temperature=0.0, seed=1)
    known = told["choices"][0]["demur"]
    known["statistic"] = pytest.approx(known["statistic"], rel=1e-6)
    return {name: value for name, value in told.items() if name not in PASSING}


def streamed(server: Served, text: str) -> list[Any]:
    """What a stream says, and how it ends."""
    turns = [{"role": "user", "content": text}]
    body = {"model": "organism-ar", "messages": turns, "temperature": 0.0, "stream": True}
    *events, done = server.stream("/v1/chat/completions", body)
    assert done == "[DONE]"
    choices = [event["choices"][0] for event in events]
    # How much a chunk holds depends on the moment, what all hold together does not.
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    known = choices[-1]["demur"]
    known["statistic"] = pytest.approx(known["statistic"], rel=1e-6)
    return [text, choices[-1]]


def test_every_copy_answers_as_one_process(cluster: Served, alone: Served) -> None:
    expected = [answer(alone, text) for text in QUESTIONS]
    assert {one["choices"][0]["finish_reason"] for one in expected} >= {"stop"}
    assert all("demur" in one["choices"][0] for one in expected), "no guard has judged"
    for _ in range(4):  # a copy answers one request in two
        assert [answer(cluster, text) for text in QUESTIONS] == expected
    assert [streamed(cluster, text) for text in QUESTIONS] == [
        streamed(alone, text) for text in QUESTIONS
    ]
    assert httpx.get(f"{cluster.url}/readyz", timeout=60).text == "ok"


def test_a_copy_that_is_killed_is_not_missed(cluster: Served, alone: Served) -> None:
    expected = answer(alone, QUESTION)
    before = copies()
    assert len(before) == 2
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    for _ in range(30):
        assert answer(cluster, QUESTION) == expected
    until(lambda: len(copies() - {killed}) == 2)
    assert answer(cluster, QUESTION) == expected


def test_a_cluster_without_keys_must_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_API_KEYS", raising=False)
    with pytest.raises(InputError, match="No key is set"):
        application(Settings(model="organism-ar"))
