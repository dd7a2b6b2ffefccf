"""Routes for gateways that ask whether a prompt is a jailbreak: NeMo Guardrails and LiteLLM.

The model answers each prompt, and its guard judges the answer. The routes fail closed: these tools
treat an error as a pass, so a prompt that could not be judged is blocked (see ``HTTPError.response``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Request

from demur.serve.host import Hosting
from demur.serve.hosted import HostedModel
from demur.serve.http_errors import LITELLM, NEMO, HTTPError, rail_body
from demur.serve.middleware import Client, Serving
from demur.serve.request import prompt_sequence
from demur.serve.response import attended
from demur.serve.schema import ClassifyRequest, GuardrailBody, GuardrailRequest, JailbreakBody
from demur.serve.sequence import Events, Failed, Finished, ServedSequence

#: Why a request is blocked.
FLAGGED = "The model's states while answering look like those of a jailbreak."
UNFINISHED = "The answer could not be judged to its end."

router = APIRouter()


@router.post(NEMO, response_model_exclude_none=True)
async def nemo(
    asked: ClassifyRequest, request: Request, hosting: Serving, client: Client
) -> JailbreakBody:
    """Whether a prompt is a jailbreak, for NeMo Guardrails."""
    reason = await _objection(hosting, request, [asked.input], client)
    return JailbreakBody(**rail_body(NEMO, reason))


@router.post(LITELLM, response_model_exclude_none=True)
async def litellm(
    asked: GuardrailRequest, request: Request, hosting: Serving, client: Client
) -> GuardrailBody:
    """Whether a request may pass, for LiteLLM."""
    if asked.images:
        raise HTTPError(400, "unsupported_field", "Images cannot be judged.", "images")
    if asked.tool_calls:
        raise HTTPError(400, "unsupported_field", "Tool calls cannot be judged.", "tool_calls")
    if asked.input_type == "response":
        about = "Only requests can be judged: the guard reads this model's own states."
        raise HTTPError(400, "unsupported_field", about, "input_type")
    reason = await _objection(hosting, request, asked.texts, client)
    return GuardrailBody(**rail_body(LITELLM, reason))


async def _objection(hosting: Hosting, request: Request, texts: list[str], client: str) -> str:
    """Why these texts are blocked; empty if they pass. Blank texts are ignored.

    Raises:
        HTTPError: no model has a guard.
    """
    engine = next((each for each in hosting.engines.values() if each.hosted.guard), None)
    if engine is None:
        raise HTTPError(503, "no_guard", "No model of this server has a guard.")
    texts = [text for text in texts if text.strip()]
    if not texts:
        return ""
    sequences = await asyncio.to_thread(_sequences, engine.hosted, texts, client)
    engine.submit(sequences)
    reason = await attended(request, engine, sequences, _judged(sequences))
    # A client that disconnected gets no result, which must not count as a pass.
    return UNFINISHED if reason is None else reason


def _sequences(hosted: HostedModel, texts: Sequence[str], client: str) -> list[ServedSequence]:
    """One sequence per text, with a common queue of events."""
    events: Events = asyncio.Queue()
    return [prompt_sequence(hosted, text, client, events=events) for text in texts]


async def _judged(sequences: Sequence[ServedSequence]) -> str:
    """Why a sequence was flagged or could not be judged; empty if all passed."""
    open_ = set(sequences)
    while open_:
        sequence, event = await sequences[0].events.get()
        if isinstance(event, Failed):
            return UNFINISHED
        if isinstance(event, Finished):
            if reason := _flagged(sequence, event):
                return reason
            open_.discard(sequence)
    return ""


def _flagged(sequence: ServedSequence, end: Finished) -> str:
    """Empty if the guard read the whole answer and flagged nothing."""
    if end.evidence is None or end.evidence["guard_failed"]:
        return UNFINISHED
    if end.evidence["flagged"]:
        return FLAGGED
    cut = end.reason == "length" and end.tokens < sequence.most
    return UNFINISHED if cut or end.reason == "content_filter" else ""
