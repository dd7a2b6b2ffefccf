"""The server in a process of its own: with its guard and without, one stream and many."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM

import demur
from benchmarks.guarding import STEPS, random_guard
from benchmarks.models import CONFIGS
from demur.generation import fingerprint
from demur.guard import CalibratedGroup, StreamingGuard, fit_streaming_guard
from demur.organism import world
from demur.sampling import Autoregressive
from demur.types import Record, Traces

MODEL = "organism-ar"
MANY = 32
ROUNDS, LARGE_ROUNDS = 5, 3

#: Tokens of an answer of the model of 500M parameters, which takes most of the time.
LARGE_TOKENS = 12

#: Long prompts that a short one meets; each has a row, and no pass reads more than five of them.
LONG, LONG_TOKENS = 48, 400


def a_guard() -> StreamingGuard:
    """One that reads every step and flags none, so that both servers say the same."""
    model = demur.load(MODEL)

    def traced(split: str, kind: str, n: int) -> Traces:
        return demur.trace(model, world.prompts(split, kind, n=n), batch_size=n)

    known = Traces((*traced("anchors", "harmless", 24), *traced("anchors", "harmful", 24)))
    anchors = demur.fit_anchors(known, ["cannot" in t.response for t in known])
    benign = traced("guard", "harmless", 40), traced("calibration", "harmless", 40)
    fitted = fit_streaming_guard(*benign, anchors=anchors, alpha=0.05)
    return replace(fitted, groups={"all": CalibratedGroup(1e9, fitted.groups["all"].calibration)})


def a_large_model(folder: Path) -> tuple[str, Path]:
    """A checkpoint of random weights, 500M parameters, with the built-in tokenizer, in
    ``folder / "model"``: its name, and a guard of it that reads every step and flags none."""
    tokenizer = demur.load(MODEL).tokenizer
    shape = {**CONFIGS["llama-500m"], "vocab_size": len(tokenizer)}
    net = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape))
    net.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    model = demur.load(str(folder / "model"))
    mark = fingerprint(model, Autoregressive(steps=STEPS), Record(pooling="running"))
    guard = replace(random_guard(shape["hidden_size"]), fingerprint=mark)
    return model.name, guard.save(folder / "large.safetensors")


@contextmanager
def server(*arguments: str, model: str = MODEL) -> Iterator[tuple[str, int]]:
    """``demur serve`` on a free port; its address and process."""
    code = "from demur.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--model", model, "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "startup complete" not in said:
            said += (line := process.stderr.readline())
            assert line, said
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield next(word for word in said.split() if word.startswith("http://")), process.pid
        finally:
            process.terminate()


async def asked(
    url: str, prompt: str, **fields: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream that was asked for."""
    host, port = url.removeprefix("http://").split(":")
    turns = [{"role": "user", "content": prompt}]
    body = json.dumps({"model": MODEL, "messages": turns, "stream": True, **fields})
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return reader, writer


async def first_token(url: str, prompt: str, *, behind: int) -> float:
    """Milliseconds to the first token of a prompt that comes after ``behind`` long ones."""
    long = "puzzle " * LONG_TOKENS
    others = [await asked(url, long, max_tokens=8) for _ in range(behind)]
    # The first of them is answered: all are known, and most wait to be read.
    for reader, _ in others[:1]:
        await reader.readuntil(b"data: ")
    begun = perf_counter()
    own = await asked(url, prompt, max_tokens=8)
    for _ in range(2):  # who speaks, and the first word
        await own[0].readuntil(b"data: ")
    seconds = perf_counter() - begun
    for reader, writer in [*others, own]:
        await reader.read(-1)
        writer.close()
    return 1000 * seconds


async def streamed(
    url: str, prompts: Sequence[str], *, clients: int, **fields: Any
) -> tuple[float, list[str]]:
    """Tokens a second of clients that each ask one prompt after another, and the texts.

    Plain sockets, read to their end and parsed afterwards: client and server share the cores.
    """

    async def client(prompts: Sequence[str]) -> list[bytes]:
        return [await one(prompt) for prompt in prompts]

    async def one(prompt: str) -> bytes:
        reader, writer = await asked(url, prompt, stream_options={"include_usage": True}, **fields)
        found = await reader.read(-1)
        writer.close()
        return found

    begun = perf_counter()
    shares = [prompts[first::clients] for first in range(clients)]
    answers = [each for found in await asyncio.gather(*map(client, shares)) for each in found]
    seconds = perf_counter() - begun
    streams = [re.findall(rb"^data: (\{.*\})$", answer, re.MULTILINE) for answer in answers]
    chunks = [[json.loads(chunk) for chunk in stream] for stream in streams]
    tokens = sum(stream[-1]["usage"]["completion_tokens"] for stream in chunks)
    deltas = [[c["choices"][0]["delta"] for c in stream if c["choices"]] for stream in chunks]
    texts = ["".join(delta.get("content", "") for delta in stream) for stream in deltas]
    return tokens / seconds, texts


def cpu_seconds(pid: int) -> float:
    """What a process has used so far; other processes on the machine do not enter into it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure() -> dict[str, float]:
    """Ratios of serving; see each name."""
    return small() | large()


def large() -> dict[str, float]:
    """What the guard costs a model of 500M parameters."""
    prompts = [p.text for p in world.prompts("test", "harmless", n=MANY)]
    rates: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        called, guard = a_large_model(Path(folder))
        where = str(Path(folder) / "model")
        found = {
            "": servers.enter_context(server(model=where))[0],
            "guarded ": servers.enter_context(server("--guard", str(guard), model=where))[0],
        }
        fields = {"model": called, "max_tokens": LARGE_TOKENS, "temperature": 0.0}
        texts = {}
        for turn in range(LARGE_ROUNDS + 1):
            for kind, url in sorted(found.items(), reverse=turn % 2 == 1):
                for name, given, clients in (("many", prompts, MANY), ("one", prompts[:4], 1)):
                    asking = streamed(url, given, clients=clients, **fields)
                    rate, texts[kind, name] = asyncio.run(asking)
                    if turn:
                        rates[f"{kind}{name}"].append(rate)
        assert texts["", "many"] == texts["guarded ", "many"], "the guard changed what is said"
    typical = {name: median(values) for name, values in rates.items()}
    return {
        f"server: throughput with guard over without, 500M, {name}": (
            typical[f"guarded {kind}"] / typical[kind]
        )
        for kind, name in (("one", "one stream"), ("many", "32 streams"))
    }


def small() -> dict[str, float]:
    """Ratios of serving the built-in model of one million parameters."""
    prompts = [p.text for p in world.prompts("test", "harmless", n=3 * MANY)]
    rates: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        guard = a_guard().save(Path(folder) / "guard.safetensors")
        found = {
            "": servers.enter_context(server()),
            "guarded ": servers.enter_context(server("--guard", str(guard))),
        }
        texts = {}
        for turn in range(ROUNDS + 1):
            # In turns, each going first as often, so that noise hits all alike.
            for kind, (url, pid) in sorted(found.items(), reverse=turn % 2 == 1):
                for name, given, clients in (("many", prompts, MANY), ("one", prompts[:12], 1)):
                    before = cpu_seconds(pid)
                    rate, texts[kind, name] = asyncio.run(streamed(url, given, clients=clients))
                    spent = cpu_seconds(pid) - before
                    if turn:
                        rates[f"{kind}{name}"].append(rate)
                        rates[f"{kind}{name} cpu"].append(spent)
            for name, behind in (("first alone", 0), ("first behind", LONG)):
                waited = asyncio.run(first_token(found[""][0], prompts[turn], behind=behind))
                rates[name].append(waited)
        assert texts["", "many"] == texts["guarded ", "many"], "the guard changed what is said"
    typical = {name: median(values) for name, values in rates.items()}
    return {
        "server: tokens a second of 32 streams over one": typical["many"] / typical["one"],
        "server: the same with a guard": typical["guarded many"] / typical["guarded one"],
        "server: throughput of 32 streams with guard over without": (
            typical["guarded many"] / typical["many"]
        ),
        "server: CPU time of 32 streams without guard over with": (
            sum(rates["many cpu"]) / sum(rates["guarded many cpu"])
        ),
        "server: CPU time of one stream without guard over with": (
            sum(rates["one cpu"]) / sum(rates["guarded one cpu"])
        ),
        "server: milliseconds to the first token, alone": typical["first alone"],
        f"server: milliseconds to the first token behind {LONG} prompts of {LONG_TOKENS}": (
            typical["first behind"]
        ),
        "server: milliseconds a token, one stream": 1000 / typical["one"],
        "server: milliseconds a token, 32 streams": 1000 / typical["many"],
    }


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:<60} {value:10.3f}")
