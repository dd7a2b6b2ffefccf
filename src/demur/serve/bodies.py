"""Answers in OpenAI's form, whole or in chunks, with the guard's evidence beside each choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Literal, final

from demur.serve.job import Finished, Job

#: The end of a stream.
DONE = b"data: [DONE]\n\n"

#: Stands for a chunk's text until it is known; no model has this name.
_TEXT = "\0text"


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
        created: when, in seconds since 1970; the same in every chunk.
    """

    kind: Literal["chat", "text"]
    identity: str
    model: str
    with_usage: bool = False
    created: int = field(default_factory=lambda: int(time()))
    _around: dict[int, tuple[bytes, bytes]] = field(default_factory=dict, init=False, repr=False)

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
        """A chunk of text. All of an answer's chunks are alike but for it."""
        if job.index not in self._around:
            said: dict[str, Any] = {"text": _TEXT}
            whole = self._chunk(job, {"delta": {"content": _TEXT}} if self.kind == "chat" else said)
            before, _, after = whole.partition(json.dumps(_TEXT).encode())
            self._around[job.index] = before, after
        before, after = self._around[job.index]
        return before + json.dumps(text).encode() + after

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
        return {**about, "created": self.created, "model": self.model}

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
