"""The live page: every model's answer to one prompt, side by side and step by step, with the signal.

It shows drafts and tokens before the guard has passed them. It is for the operator, not for users.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from demur.serve.http_errors import HTTPError
from demur.serve.middleware import Client, Serving
from demur.serve.model_engine import ModelEngine
from demur.serve.request import prompt_sequence
from demur.serve.response import DONE, EventStream, event
from demur.serve.schema import WatchRequest
from demur.serve.sequence import Failed, Finished, ServedSequence, StepTaken, TextReleased
from demur.viz.replay import REFUSAL_WORDS, plain_word

#: Files of the page: package and media type.
_FILES = {
    "live.js": ("demur.serve", "text/javascript"),
    "live.css": ("demur.serve", "text/css"),
    "replay.js": ("demur.viz", "text/javascript"),
    "replay.css": ("demur.viz", "text/css"),
}

#: Allow only the page's own files, and nothing inline.
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
        raise HTTPError(404, "not_found", "Not Found.")
    package, media_type = _FILES[name]
    return Response(_read(package, name), media_type=media_type)


@router.post("/watch")
async def watch(asked: WatchRequest, hosting: Serving, client: Client) -> Response:
    """Every step of an answer, drafts included."""
    engine = hosting.engine(asked.model)
    sequence = await asyncio.to_thread(
        prompt_sequence, engine.hosted, asked.prompt, client, watched=True
    )
    engine.submit([sequence])
    return EventStream(_steps(engine, sequence), engine, [sequence])


async def _steps(engine: ModelEngine, sequence: ServedSequence) -> AsyncIterator[bytes]:
    """The steps as ``replay.js`` reads them, then how the sequence ended."""
    yield event({"total": min(sequence.most, engine.hosted.sampler.steps)})
    texts: dict[int, str] = {-1: ""}
    while True:
        _, found = await sequence.events.get()
        if isinstance(found, StepTaken):
            for token in set(found.draft) - texts.keys():
                texts[token] = engine.hosted.model.decode([token], special=True)
            cells = _cells(found, texts, ends=engine.hosted.model.traits.end_ids)
            yield event({"cells": cells, "sigma": found.sigma, "flagged": found.flagged})
        elif isinstance(found, TextReleased):
            yield event({"said": found.text})
        elif isinstance(found, Finished):
            yield event({"reason": found.reason, "evidence": found.evidence}) + DONE
            return
        elif isinstance(found, Failed):
            yield event({"reason": "failed", "evidence": None}) + DONE
            return


def _cells(seen: StepTaken, texts: Mapping[int, str], *, ends: Collection[int]) -> list[list[str]]:
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
