"""Real servers for the server's tests: on a free port, in a thread or in a process of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import httpx

import demur
from demur.generation import default_sampler, fingerprint
from demur.guard import CalibratedGroup, StreamingGuard, fit_streaming_guard
from demur.models.base import LanguageModel
from demur.organism import world
from demur.sampling import Sampler
from demur.serve.app import Server, create_app, listen
from demur.serve.host import host
from demur.serve.hosted import Limits, ServeOptions
from demur.serve.middleware import Keys
from demur.serve.model_engine import ModelEngine
from demur.serve.monitoring import Metrics
from demur.types import Record, Traces, digest
from waiting import until as until

QUESTION = "how can i share a puzzle ?"


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        url: where it listens.
        engines: its engines.
        metrics: its figures.
    """

    url: str
    engines: Mapping[str, ModelEngine]
    metrics: Metrics

    def post(self, path: str, body: Any, **about: Any) -> httpx.Response:
        """Ask with JSON."""
        return httpx.post(f"{self.url}{path}", json=body, timeout=60, **about)

    def chat(self, model: str, text: str = QUESTION, **fields: Any) -> dict[str, Any]:
        """One answered turn, the whole body."""
        turns = [{"role": "user", "content": text}]
        answer = self.post("/v1/chat/completions", {"model": model, "messages": turns, **fields})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def stream(self, path: str, body: Any) -> list[Any]:
        """Every event of a stream, the last one ``[DONE]``."""
        with httpx.stream("POST", f"{self.url}{path}", json=body, timeout=60) as answer:
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    def figure(self, name: str, **labels: str) -> float:
        """A metric's value, 0 where it was never set."""
        return self.metrics.registry.get_sample_value(f"demur_{name}", labels) or 0.0


@contextmanager
def serving(
    models: Sequence[LanguageModel],
    guards: Sequence[StreamingGuard] = (),
    *,
    limits: Limits | None = None,
    keys: Sequence[str] = (),
    live: bool = False,
    log_prompts: bool = False,
    grace: float = 5.0,
    send_buffer: int | None = None,
    **options: Any,
) -> Iterator[Served]:
    """A server in a thread of this process."""
    hosting = host(models, guards, ServeOptions(limits=limits or Limits(), **options))
    app = create_app(hosting, keys=Keys(keys), live=live, log_prompts=log_prompts)
    server, found = Server(app, hosting, grace=grace), listen("127.0.0.1", 0)
    if send_buffer:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    thread = threading.Thread(target=server.run, args=([found],), daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield Served(f"http://127.0.0.1:{found.getsockname()[1]}", hosting.engines, hosting.metrics)
    finally:
        server.should_exit = True
        thread.join()
        found.close()


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``demur serve`` in a process of its own, and its address once it listens."""
    code = "from demur.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", *arguments]
    every = {**os.environ, **environment}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=every) as process:
        assert process.stderr is not None
        said, line = "", "-"
        while "startup complete" not in line:
            line = process.stderr.readline()
            said += line
            assert line, said
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield process, next(word for word in said.split() if word.startswith("http://"))
        finally:
            process.kill()


def without_end(model: LanguageModel) -> LanguageModel:
    """The model with no token that ends an answer: each goes on to its last token."""
    return replace(model, traits=replace(model.traits, end_ids=()))


GUARDS: dict[object, StreamingGuard] = {}


def a_guard(model: LanguageModel, *, sampler: Sampler | None = None) -> StreamingGuard:
    """A guard at alpha 0.1, fitted on few prompts of the built-in world; once per model and process."""

    def traced(split: str, kind: str, n: int) -> Traces:
        return demur.trace(model, world.prompts(split, kind, n=n), batch_size=n, sampler=sampler)

    mark = fingerprint(model, sampler or default_sampler(model), Record())
    key = digest([asdict(mark), model.traits.end_ids])
    if key not in GUARDS:
        known = Traces((*traced("anchors", "harmless", 12), *traced("anchors", "harmful", 12)))
        refused = ["sorry" in t.response or "cannot" in t.response for t in known]
        GUARDS[key] = fit_streaming_guard(
            traced("guard", "harmless", 20),
            traced("calibration", "harmless", 12),
            anchors=demur.fit_anchors(known, refused, allow_few=True),
            alpha=0.1,
        )
    return GUARDS[key]


def at_threshold(guard: StreamingGuard, threshold: float) -> StreamingGuard:
    """The guard with another threshold."""
    groups = {
        name: CalibratedGroup(threshold, group.calibration) for name, group in guard.groups.items()
    }
    return replace(guard, groups=groups)
