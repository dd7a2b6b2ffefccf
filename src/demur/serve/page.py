"""The live page: one prompt, every model side by side, step by step, with what the guard sees.

It shows drafts and tokens that no guard has passed. It is for the operator, not for users.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from demur.serve.asking import prompt_job
from demur.serve.bodies import DONE, event
from demur.serve.engine import Engine
from demur.serve.job import Failed, Finished, Job, Said, Seen
from demur.serve.refusals import Refusal
from demur.serve.service import Client, Serving
from demur.serve.streams import EventStream, submit
from demur.serve.wire import WatchRequest
from demur.viz.replay import REFUSAL_WORDS, plain_word

#: Files of the page: where each lies and what it is.
_FILES = {
    "live.js": ("demur.serve", "text/javascript"),
    "live.css": ("demur.serve", "text/css"),
    "replay.js": ("demur.viz", "text/javascript"),
    "replay.css": ("demur.viz", "text/css"),
}

#: Nothing but the page's own files, and nothing inline.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse)
async def live() -> Response:
    """The page."""
    headers = {"Content-Security-Policy": _POLICY}
    return HTMLResponse(_read("demur.serve", "live.html"), headers=headers)


@router.get("/page/{name}")
async def file(name: str) -> Response:
    """A file of the page."""
    if name not in _FILES:
        raise Refusal(404, "not_found", "Not Found.")
    package, media_type = _FILES[name]
    return Response(_read(package, name), media_type=media_type)


@router.post("/watch")
async def watch(asked: WatchRequest, service: Serving, client: Client) -> Response:
    """Every step of an answer, drafts included."""
    engine = service.engine(asked.model)
    job = await asyncio.to_thread(
        prompt_job, engine, asked.prompt, service.limits, client, watched=True
    )
    submit(engine, [job])
    seconds = service.limits.send_seconds
    return EventStream(_steps(engine, job), engine=engine, jobs=[job], send_seconds=seconds)


async def _steps(engine: Engine, job: Job) -> AsyncIterator[bytes]:
    """The steps in the form that ``replay.js`` takes, and how it ended."""
    yield event({"total": min(job.most, engine.sampler.steps)})
    texts: dict[int, str] = {-1: ""}
    while True:
        _, said = await job.events.get()
        if isinstance(said, Seen):
            for token in set(said.draft) - texts.keys():
                texts[token] = engine.model.decode([token], special=True)
            cells = _cells(said, texts, ends=engine.model.traits.end_ids)
            yield event({"cells": cells, "sigma": said.sigma, "flagged": said.flagged})
        elif isinstance(said, Said):
            yield event({"said": said.text})
        elif isinstance(said, Finished):
            yield event({"reason": said.reason, "evidence": said.evidence}) + DONE
            return
        elif isinstance(said, Failed):
            yield event({"reason": "failed", "evidence": None}) + DONE
            return


def _cells(seen: Seen, texts: Mapping[int, str], *, ends: Collection[int]) -> list[list[str]]:
    """Text, state and mark of each position."""
    return [
        [
            texts[token],
            "c" if committed >= 0 else "d" if token >= 0 else "m",
            "e" if token in ends else "r" if plain_word(texts[token]) in REFUSAL_WORDS else "",
        ]
        for committed, token in zip(seen.tokens, seen.draft, strict=True)
    ]


@cache
def _read(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
