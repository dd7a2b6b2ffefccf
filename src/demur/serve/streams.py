"""Events on their way to a client: as a stream or collected, and given up when the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from demur.serve.bodies import DONE, Form, event
from demur.serve.engine import BusyError, Engine
from demur.serve.job import Event, Failed, Finished, Job, Said
from demur.serve.refusals import BUSY, FAILED, LATE, Refusal

T = TypeVar("T")


def submit(engine: Engine, jobs: Sequence[Job]) -> None:
    """Queue the jobs.

    Raises:
        Refusal: no place for them (429).
    """
    try:
        engine.submit(jobs)
    except BusyError as error:
        raise BUSY from error


async def begun(jobs: Sequence[Job]) -> bool:
    """Wait until one of the jobs has a row, so that a refusal still has a status of its own. True.

    Raises:
        Refusal: the jobs waited too long.
    """
    _, first = await jobs[0].events.get()
    if isinstance(first, Failed):
        raise _cause(first)
    return True


async def collected(jobs: Sequence[Job], form: Form) -> dict[str, Any]:
    """The whole answer.

    Raises:
        Refusal: the model failed or the jobs waited too long.
    """
    texts, ends = dict.fromkeys(jobs, ""), dict[Job, Finished]()
    while len(ends) < len(jobs):
        job, said = await jobs[0].events.get()
        if isinstance(said, Failed):
            raise _cause(said)
        if isinstance(said, Said):
            texts[job] += said.text
        elif isinstance(said, Finished):
            ends[job] = said
    return form.whole(jobs, texts, ends)


async def chunks(jobs: Sequence[Job], form: Form) -> AsyncIterator[bytes]:
    """The answer as server-sent events; what is ready together goes out together."""
    ends = dict[Job, Finished]()
    yield b"".join(map(form.opening, jobs))
    while len(ends) < len(jobs):
        ready = await _ready(jobs[0].events)
        if failed := next((said for _, said in ready if isinstance(said, Failed)), None):
            yield event(_cause(failed).body) + DONE
            return
        texts = {job: "" for job, _ in ready}
        for job, said in ready:
            if isinstance(said, Said):
                texts[job] += said.text
            elif isinstance(said, Finished):
                ends[job] = said
        parts = [form.said(job, text) for job, text in texts.items() if text]
        parts += [form.closing(job, ends[job]) for job in texts if job in ends]
        if parts:
            yield b"".join(parts)
    yield (form.counts(jobs, ends) if form.with_usage else b"") + DONE


async def _ready(events: asyncio.Queue[tuple[Job, Event]]) -> list[tuple[Job, Event]]:
    """The next event, and all that came with it."""
    found = [await events.get()]
    while not events.empty():
        found.append(events.get_nowait())
    return found


def _cause(failed: Failed) -> Refusal:
    return LATE if failed.cause == "time" else FAILED


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T | None:
    """The result of ``work``, or None where the client went away before; the work is cancelled."""
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
    """A stream of server-sent events. When the client goes away or stops reading, its jobs end.

    Args:
        parts: what is sent.
        engine: whose jobs they are.
        jobs: cancelled when the stream is over; those that finished are not concerned.
        send_seconds: for the client to take what is sent.
        headers: besides those of every stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        *,
        engine: Engine,
        jobs: Sequence[Job],
        send_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._parts, self._engine, self._jobs = parts, engine, jobs
        self._seconds = send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until all is said or nobody listens."""
        try:
            await unless_gone(receive, self._send(send))
        finally:
            self._engine.cancel(self._jobs)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for part in self._parts:
            async with asyncio.timeout(self._seconds):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
