"""Many streams at once: none lost, mixed or cut short, and no memory kept."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

import demur
from demur.organism import world
from demur.serve.hosted import Limits
from served import a_guard, serving, started

STREAMS = 200

#: A row of a diffusion pass fills a core by itself.
DIFFUSION_STREAMS = 40


def bodies(model: str = "organism-ar", streams: int = STREAMS) -> list[dict[str, Any]]:
    """Greedy and drawn, short and long, of both kinds of prompts."""
    kinds = [world.prompts("test", kind, n=50) for kind in ("harmless", "harmful")]
    prompts = [prompt.text for pair in zip(*kinds, strict=True) for prompt in pair]
    return [
        {
            "model": model,
            "messages": [{"role": "user", "content": prompts[place % len(prompts)]}],
            "temperature": (0.0, 0.9)[place // 2 % 2],
            "seed": place,
            "max_tokens": (64, 20, 7)[place % 3],
        }
        for place in range(streams)
    ]


async def together(url: str, asked: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Text and finish reason of each stream, all at once."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def one(body: dict[str, Any]) -> tuple[str, str]:
            text, reason, parts = "", "", []
            request = {**body, "stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=request) as answer:
                assert answer.status_code == 200
                parts = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line]
            assert parts[-1] == "[DONE]"
            for part in map(json.loads, parts[:-1]):
                choice = part["choices"][0]
                text += choice["delta"].get("content", "")
                assert not reason, "something follows the finish chunk"
                reason = choice["finish_reason"] or ""
            return text, reason

        return list(await asyncio.gather(*map(one, asked)))


def resident(pid: int) -> float:
    """Memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.parametrize("guarded", [False, True], ids=["alone", "guarded"])
@pytest.mark.parametrize(
    ("name", "streams"),
    [("organism-ar", STREAMS), ("organism-dlm", DIFFUSION_STREAMS)],
    ids=["autoregressive", "diffusion"],
)
def test_many_streams_equal_single_ones(name: str, streams: int, guarded: bool) -> None:
    """With a guard that flags some of them, wherever each was flagged by itself."""
    asked, model = bodies(name, streams), demur.load(name)
    guards = [a_guard(model)] if guarded else []
    with serving([model], guards, limits=Limits(rows=64, queue=STREAMS)) as server:
        found = asyncio.run(together(server.url, asked))
        for place in range(0, streams, 5):  # of each kind: the kinds repeat after 12
            assert asyncio.run(together(server.url, [asked[place]])) == [found[place]]
        reasons = {reason for _, reason in found}
        assert reasons == {"stop", "length", *(["content_filter"] if guarded else [])}
        if not guarded:
            greedy = range(0, streams, 12)
            texts = [asked[place]["messages"][0]["content"] for place in greedy]
            for place, trace in zip(greedy, demur.trace(model, texts), strict=True):
                assert found[place] == (trace.response, trace.finish_reason)
        assert server.figure("waiting", model=name) == 0
        assert server.figure("rows", model=name) == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    asked = bodies()[::2]
    guard = a_guard(demur.load("organism-ar")).save(tmp_path / "guard.safetensors")
    # Buffers go back to the system when they are freed, so that what is left is what is kept.
    arguments = ("--model", "organism-ar", "--guard", str(guard), "--port", "0")
    with started(*arguments, MALLOC_MMAP_THRESHOLD_="262144") as (process, url):
        sizes, texts = [], []
        for _ in range(6):
            texts.append(asyncio.run(together(url, asked)))
            sizes.append(resident(process.pid))
        assert texts == [texts[0]] * 6
        # A batch in flight holds buffers of 40 MiB, so the floor of later rounds is what counts.
        assert min(sizes[3:]) - sizes[1] < 20, sizes
