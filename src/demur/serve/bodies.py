"""Answers in OpenAI's form, whole or in chunks, with the guard's evidence beside each choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Literal, final

from demur.serve.job import Finished, Job

#: The end of a stream.
DONE = b"data: [DONE]\n\n"


def event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event that holds JSON."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


@final
@dataclass(frozen=True)
class Form:
    """How one request is answered.

    Attributes:
        kind: a dialogue's turn or a text that goes on.
        identity: the request's id.
        model: who answers.
        with_usage: whether a stream's chunks carry ``usage``.
    """

    kind: Literal["chat", "text"]
    identity: str
    model: str
    with_usage: bool = False

    def whole(
        self, jobs: Sequence[Job], texts: Mapping[Job, str], ends: Mapping[Job, Finished]
    ) -> dict[str, Any]:
        """All choices at once; a filtered one has no text."""
        choices = []
        for job in jobs:
            text = "" if ends[job].reason == "content_filter" else texts[job]
            said: dict[str, Any] = {"text": text}
            if self.kind == "chat":
                said = {"message": {"role": "assistant", "content": text}}
            choices.append({"index": job.index, **said, **_ending(ends[job])})
        object_ = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._head(object_), "choices": choices, "usage": usage(jobs, ends)}

    def opening(self, job: Job) -> bytes:
        """The chunk that says who speaks; a text needs none."""
        if self.kind == "text":
            return b""
        return self._chunk(job, {"delta": {"role": "assistant", "content": ""}})

    def said(self, job: Job, text: str) -> bytes:
        """A chunk of text."""
        return self._chunk(
            job, {"delta": {"content": text}} if self.kind == "chat" else {"text": text}
        )

    def closing(self, job: Job, end: Finished) -> bytes:
        """The one chunk that has a finish reason, and the evidence."""
        empty: dict[str, Any] = {"delta": {}} if self.kind == "chat" else {"text": ""}
        return self._chunk(job, {**empty, **_ending(end)})

    def counts(self, jobs: Sequence[Job], ends: Mapping[Job, Finished]) -> bytes:
        """The last chunk, of token counts alone."""
        return event({**self._head(self._chunked), "choices": [], "usage": usage(jobs, ends)})

    @property
    def _chunked(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _head(self, object_: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        about = {"id": f"{prefix}-{self.identity}", "object": object_}
        return {**about, "created": int(time()), "model": self.model}

    def _chunk(self, job: Job, about: Mapping[str, Any]) -> bytes:
        choice = {"index": job.index, "finish_reason": None, "logprobs": None, **about}
        chunk = {**self._head(self._chunked), "choices": [choice]}
        return event({**chunk, "usage": None} if self.with_usage else chunk)


def usage(jobs: Sequence[Job], ends: Mapping[Job, Finished]) -> dict[str, int]:
    """Token counts; tokens that were withheld are counted, and a prompt once however many answers."""
    prompts = {id(job.prompt): len(job.prompt) for job in jobs}
    read, said = sum(prompts.values()), sum(ends[job].tokens for job in jobs)
    return {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


def _ending(end: Finished) -> dict[str, Any]:
    about: dict[str, Any] = {"finish_reason": end.reason, "logprobs": None}
    if end.evidence is not None:
        filtered, seen = end.reason == "content_filter", bool(end.evidence["flagged"])
        about["content_filter_results"] = {"jailbreak": {"filtered": filtered, "detected": seen}}
        about["demur"] = dict(end.evidence)
    return about
