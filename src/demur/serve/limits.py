"""What a server takes on at most."""

from __future__ import annotations

from dataclasses import dataclass, fields

from demur.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Each limit has an answer of its own: 413, 400, 429 or 503, never a stream cut short.

    Attributes:
        rows: answers generated at a time, per model.
        queue: answers that wait for a row, per model; more are told to come back (429).
        connections: open at a time; requests beyond are told to come back (503).
        body: bytes of a request (413).
        prompt_tokens: tokens of a prompt, the model's context permitting (400).
        messages: turns of a dialogue (400).
        choices: answers to one request, ``n`` times the number of prompts (400).
        seconds: from a request's arrival to its end; what is unfinished then ends as ``length``.
        send_seconds: for a client to send its request, and to read what is sent before its stream is
            dropped.
    """

    rows: int = 64
    queue: int = 256
    connections: int = 1024
    body: int = 1 << 20
    prompt_tokens: int = 8192
    messages: int = 256
    choices: int = 16
    seconds: float = 300.0
    send_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise InputError(
                    f"The limit {field.name} is {getattr(self, field.name)}; it must be above 0."
                )
