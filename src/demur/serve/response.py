"""Responses in OpenAI's form, whole or as server-sent events, with the guard's evidence beside each
choice.

A client that disconnects or stops reading cancels its sequences.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import time
from typing import Any, Literal, TypeVar, final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from demur.serve.http_errors import FAILED, LATE, HTTPError
from demur.serve.model_engine import ModelEngine
from demur.serve.schema import GenerationRequest
from demur.serve.sequence import Failed, Finished, ServedSequence, TextReleased

T = TypeVar("T")

#: How each sequence ended.
Ends = Mapping[ServedSequence, Finished]

#: The end of a stream.
DONE = b"data: [DONE]\n\n"

#: Placeholder for a chunk's text.
_TEXT = "\0text"


def event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event that holds JSON."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


@final
@dataclass(frozen=True)
class ResponseFormat:
    """The form of one request's response.

    Attributes:
        kind: chat completion or text completion.
        identity: the request's id.
        model: the model's name.
        sequences: one per choice.
        with_usage: whether a stream has ``usage``.
        created: Unix time in seconds, the same in every chunk.
    """

    kind: Literal["chat", "text"]
    identity: str
    model: str
    sequences: Sequence[ServedSequence]
    with_usage: bool = False
    created: int = field(default_factory=lambda: int(time()))
    _around: dict[int, tuple[bytes, bytes]] = field(default_factory=dict, init=False, repr=False)

    def whole(self, texts: Mapping[ServedSequence, TextReleased], ends: Ends) -> dict[str, Any]:
        """The body with all choices; a filtered one has no text.

        What a model thinks stands in ``reasoning_content``, as with other servers of such models.
        """
        choices = []
        for sequence in self.sequences:
            filtered = ends[sequence].reason == "content_filter"
            found = TextReleased("") if filtered else texts[sequence]
            chat: dict[str, Any] = {"message": {"role": "assistant", "content": found.text}}
            chat["message"] |= {"reasoning_content": found.thought} if found.thought else {}
            said = chat if self.kind == "chat" else {"text": found.text}
            choices.append({"index": sequence.index, **said, **_ending(ends[sequence])})
        return {**self._head(""), "choices": choices, "usage": self._usage(ends)}

    def opening(self, sequence: ServedSequence) -> bytes:
        """The chunk with the role; text completions have none."""
        if self.kind == "text":
            return b""
        return self._chunk(sequence, {"delta": {"role": "assistant", "content": ""}})

    def text(self, sequence: ServedSequence, text: str) -> bytes:
        """A chunk of text. Everything around the text is encoded once per sequence."""
        if sequence.index not in self._around:
            chat: dict[str, Any] = {"delta": {"content": _TEXT}}
            whole = self._chunk(sequence, chat if self.kind == "chat" else {"text": _TEXT})
            before, _, after = whole.partition(json.dumps(_TEXT).encode())
            self._around[sequence.index] = before, after
        before, after = self._around[sequence.index]
        return before + json.dumps(text).encode() + after

    def thought(self, sequence: ServedSequence, text: str) -> bytes:
        """A chunk of what the model thinks."""
        return self._chunk(sequence, {"delta": {"reasoning_content": text}})

    def closing(self, sequence: ServedSequence, end: Finished) -> bytes:
        """The only chunk with a finish reason, and with the evidence."""
        empty: dict[str, Any] = {"delta": {}} if self.kind == "chat" else {"text": ""}
        return self._chunk(sequence, {**empty, **_ending(end)})

    def counts(self, ends: Ends) -> bytes:
        """The last chunk, with token counts only; empty if the client did not ask for them."""
        if not self.with_usage:
            return b""
        return event({**self._head(".chunk"), "choices": [], "usage": self._usage(ends)})

    def _head(self, part: Literal["", ".chunk"]) -> dict[str, Any]:
        prefix, object_ = "cmpl", "text_completion"
        if self.kind == "chat":
            prefix, object_ = "chatcmpl", f"chat.completion{part}"
        about = {"id": f"{prefix}-{self.identity}", "object": object_}
        return {**about, "created": self.created, "model": self.model}

    def _chunk(self, sequence: ServedSequence, about: Mapping[str, Any]) -> bytes:
        choice = {"index": sequence.index, "finish_reason": None, "logprobs": None, **about}
        chunk = {**self._head(".chunk"), "choices": [choice]}
        return event({**chunk, "usage": None} if self.with_usage else chunk)

    def _usage(self, ends: Ends) -> dict[str, int]:
        """Token counts, including withheld tokens; a prompt counts once for all its sequences."""
        prompts = {id(each.prompt): len(each.prompt) for each in self.sequences}
        read, said = sum(prompts.values()), sum(end.tokens for end in ends.values())
        return {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


def _ending(end: Finished) -> dict[str, Any]:
    about: dict[str, Any] = {"finish_reason": end.reason, "logprobs": None}
    if end.evidence is not None:
        filtered, seen = end.reason == "content_filter", bool(end.evidence["flagged"])
        about["content_filter_results"] = {"jailbreak": {"filtered": filtered, "detected": seen}}
        about["demur"] = dict(end.evidence)
    return about


async def respond(
    kind: Literal["chat", "text"],
    request: Request,
    engine: ModelEngine,
    asked: GenerationRequest,
    sequences: list[ServedSequence],
) -> Response:
    """Generate, and respond with one body, or with a stream once the first sequence has a row."""
    identity = request.state.request_id
    shape = ResponseFormat(kind, identity, asked.model, sequences, asked.with_usage)
    headers = {}
    if engine.hosted.guard:  # whether its false-positive rate holds for the request
        calibrated = all(sequence.calibrated for sequence in sequences)
        headers["x-demur-calibrated"] = str(calibrated).lower()
    engine.submit(sequences)
    if asked.stream:
        await attended(request, engine, sequences, begun(shape), going_on=True)
        return EventStream(chunks(shape), engine, sequences, headers)
    body = await attended(request, engine, sequences, collected(shape))
    return Response() if body is None else JSONResponse(body, headers=headers)


async def attended(
    request: Request,
    engine: ModelEngine,
    sequences: list[ServedSequence],
    work: Awaitable[T],
    *,
    going_on: bool = False,
) -> T | None:
    """The result of ``work``, None if the client disconnected; then, or after an error, cancel the
    sequences.

    Args:
        going_on: let the sequences continue after the work.
    """
    result = None
    try:
        result = await unless_gone(request.receive, work)
    finally:
        if result is None or not going_on:
            engine.cancel(sequences)
    return result


async def begun(shape: ResponseFormat) -> bool:
    """Wait until one of the sequences has a row, so that errors until then have a status. Returns True.

    Raises:
        HTTPError: the sequences waited too long.
    """
    _, first = await shape.sequences[0].events.get()
    if isinstance(first, Failed):
        raise _cause(first)
    return True


async def collected(shape: ResponseFormat) -> dict[str, Any]:
    """The whole body.

    Raises:
        HTTPError: the model failed or the sequences waited too long.
    """
    texts = dict.fromkeys(shape.sequences, TextReleased(""))
    ends = dict[ServedSequence, Finished]()
    while len(ends) < len(texts):
        sequence, said = await shape.sequences[0].events.get()
        if isinstance(said, Failed):
            raise _cause(said)
        if isinstance(said, TextReleased):
            before = texts[sequence]
            texts[sequence] = TextReleased(before.text + said.text, before.thought + said.thought)
        elif isinstance(said, Finished):
            ends[sequence] = said
    return shape.whole(texts, ends)


async def chunks(shape: ResponseFormat) -> AsyncIterator[bytes]:
    """The response as server-sent events; events that are ready together are sent together."""
    events, ends = shape.sequences[0].events, dict[ServedSequence, Finished]()
    yield b"".join(map(shape.opening, shape.sequences))
    while len(ends) < len(shape.sequences):
        ready = [await events.get()]
        while not events.empty():
            ready.append(events.get_nowait())
        if failed := next((said for _, said in ready if isinstance(said, Failed)), None):
            yield event(_cause(failed).body) + DONE
            return
        texts = {sequence: "" for sequence, _ in ready}
        thoughts = dict(texts)
        for sequence, said in ready:
            if isinstance(said, TextReleased):
                texts[sequence] += said.text
                thoughts[sequence] += said.thought
            elif isinstance(said, Finished):
                ends[sequence] = said
        parts = [shape.thought(sequence, text) for sequence, text in thoughts.items() if text]
        parts += [shape.text(sequence, text) for sequence, text in texts.items() if text]
        parts += [shape.closing(sequence, ends[sequence]) for sequence in texts if sequence in ends]
        if parts:
            yield b"".join(parts)
    yield shape.counts(ends) + DONE


def _cause(failed: Failed) -> HTTPError:
    return HTTPError(*(LATE if failed.cause == "time" else FAILED))


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T | None:
    """The result of ``work``; None, and the work cancelled, if the client disconnects first."""
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, listening):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@final
class EventStream(Response):
    """A stream of server-sent events. Cancels its sequences when the client disconnects or stops
    reading.

    Args:
        parts: the events; the client must read each within ``Limits.send_seconds``.
        engine: engine of the sequences.
        sequences: cancelled when the stream ends; finished ones are not affected.
        headers: additional headers.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        engine: ModelEngine,
        sequences: Sequence[ServedSequence],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._parts, self._engine, self._sequences = parts, engine, sequences
        self._seconds = engine.hosted.options.limits.send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client disconnects."""
        try:
            await unless_gone(receive, self._send(send))
        finally:
            self._engine.cancel(self._sequences)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for part in self._parts:
            async with asyncio.timeout(self._seconds):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
