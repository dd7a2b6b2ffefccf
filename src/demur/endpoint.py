"""Models that answer in text, for judges, attackers and defenses.

``Assistant`` is the protocol. ``Endpoint`` asks an OpenAI-compatible server (``POST
URL/chat/completions``) with the official ``openai`` client (extra ``judges``).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple, Protocol, final
from urllib.parse import urlsplit

from demur.errors import EndpointError, InputError, MissingExtraError
from demur.files import write_atomically
from demur.thoughts import spoken
from demur.types import digest

#: Seconds before asking again after a malformed answer; doubled each time.
PAUSE = 0.5


#: Tokens that a model which reasons may think before it answers.
ROOM = 1024


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Assistant(Protocol):
    """Answers conversations."""

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | Sequence[int] | None = None,
    ) -> list[str]:
        """The next assistant turn of each conversation, in order; may be empty.

        A temperature of 0 is greedy. ``seed``: one for all, or one per conversation.
        """


def each_seed(seed: int | Sequence[int] | None, count: int) -> Sequence[int | None]:
    """One seed per conversation."""
    return [seed] * count if seed is None or isinstance(seed, int) else seed


@dataclass(frozen=True)
class Usage:
    """Cost so far: answers from the server and from the cache; tokens, 0 if the server counts none."""

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


@final
@dataclass(eq=False)
class Endpoint:
    """A model behind an OpenAI-compatible server.

    Attributes:
        url: base address, such as ``http://localhost:8000/v1``.
        model: the model's name on the server.
        key_variable: environment variable with the API key. The key is stored nowhere and removed
            from messages; without it no key is sent.
        cache: folder for answers; only repeatable requests (temperature 0, or a seed) are cached.
        timeout: seconds per attempt.
        retries: attempts after a time-out, a lost connection, a malformed answer or the statuses
            408, 409, 429 and 5xx, with growing pauses, or as long as the server says.
        concurrency: maximum parallel requests.
        reasoning_tokens: added to ``max_tokens``, for a model that reasons first. With 0, an answer
            that was cut off while it reasoned is asked for once more with ``ROOM`` more tokens.
        usage: requests and tokens so far.

    Raises:
        InputError: not an http address, or one with a user name or password.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    cache: Path | None = None
    timeout: float = 60.0
    retries: int = 5
    concurrency: int = 8
    reasoning_tokens: int = 0
    usage: Usage = field(default=Usage(), init=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if "@" in parts.netloc:
            raise InputError(
                "The server's address contains a user name or password, which would appear in "
                f"messages. Put the API key into the variable {self.key_variable} instead."
            )
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(
                f"{self.url!r} is not a server's address. Write it like http://localhost:8000/v1."
            )

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | Sequence[int] | None = None,
    ) -> list[str]:
        """See ``Assistant.answer``; several requests run in parallel.

        Raises:
            EndpointError: a request got no usable answer, or one cut off before its first word.
                Answers to other requests are in the cache.
            MissingExtraError: the client is not installed.
        """
        settings = {"max_tokens": max_tokens + self.reasoning_tokens, "temperature": temperature}
        seeds = each_seed(seed, len(conversations))
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            waiting = []
            for turns, own in zip(conversations, seeds, strict=True):
                seeded = settings if own is None else {**settings, "seed": own}
                waiting.append(pool.submit(self._turn, client, turns, seeded))
            try:
                return [one.result() for one in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _turn(self, client: Any, turns: Sequence[Message], settings: dict[str, Any]) -> str:
        # Lone surrogates cannot be sent: they become question marks.
        texts = [turn.content.encode("utf-8", "replace").decode("utf-8") for turn in turns]
        messages = [
            {"role": turn.role, "content": text} for turn, text in zip(turns, texts, strict=True)
        ]
        request = {"model": self.model, "messages": messages, **settings}
        path = self._path(request)
        if path and (kept := _read(path)) is not None:
            self._count(cached=1)
            return kept
        reply, usage = self._ask(client, request)
        if path:
            record = {"request": request, "answer": reply}
            with self._lock:
                write_atomically(path, json.dumps(record, ensure_ascii=False).encode())
        self._count(requests=1, prompt_tokens=usage[0], answer_tokens=usage[1])
        return reply

    def _ask(self, client: Any, request: dict[str, Any]) -> tuple[str, tuple[int, int]]:
        """The text of the answer, and its prompt and answer tokens."""
        import openai

        problem = "no attempt was made"
        for number in range(self.retries + 1):
            if number:
                time.sleep(PAUSE * 2 ** (number - 1))
            try:
                completion = client.chat.completions.create(**request)
                choice, usage = completion.choices[0], completion.usage
                text, refusal = choice.message.content, choice.message.refusal
                text = (refusal or "") if text is None else text
                if not isinstance(text, str):
                    raise TypeError
                tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
                if choice.finish_reason != "length" or spoken(text):
                    return text, tokens
            except openai.APIStatusError as error:
                raise self._failed(f"status {error.status_code}: {error.message}") from None
            except openai.APIConnectionError as error:
                raise self._failed(f"{type(error).__name__}: {error.__cause__ or error}") from None
            except (openai.APIError, ValueError, AttributeError, IndexError, TypeError) as error:
                problem = f"its answer is malformed ({type(error).__name__})"
            else:  # cut off without text, or in a thought
                if not self.reasoning_tokens and request["max_tokens"] <= ROOM:
                    more = {**request, "max_tokens": request["max_tokens"] + ROOM}
                    return self._ask(client, more)
                raise EndpointError(
                    f"{self.model} at {self.url} wrote nothing within {request['max_tokens']} tokens, "
                    "as models do that reason first. Raise reasoning_tokens (--reasoning-tokens), or "
                    "use a model that does not reason."
                )
        raise self._failed(problem)

    def _failed(self, problem: str) -> EndpointError:
        key = os.environ.get(self.key_variable)
        shown = (problem.replace(key, "***") if key else problem)[:500]
        kept = "Answers so far are cached; r" if self.cache else "R"
        return EndpointError(
            f"{self.model} at {self.url} gave no usable answer. Last problem: {shown}. Check the "
            f"server, the model's name and the key in {self.key_variable}. {kept}un the same command "
            "again."
        )

    def _client(self) -> Any:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise MissingExtraError("Asking a server", "judges") from error
        return OpenAI(
            base_url=self.url,
            api_key=os.environ.get(self.key_variable) or "none",
            timeout=self.timeout,
            max_retries=self.retries,
        )

    def _path(self, request: dict[str, Any]) -> Path | None:
        if self.cache is None or (request["temperature"] > 0 and "seed" not in request):
            return None
        name = digest({"url": self.url, **request}, length=32)
        return Path(self.cache) / name[:2] / f"{name}.json"

    def _count(self, **more: int) -> None:
        with self._lock:
            now = self.usage
            self.usage = replace(now, **{k: getattr(now, k) + v for k, v in more.items()})


def _read(path: Path) -> str | None:
    """The cached answer; None if there is none or the file is damaged."""
    try:
        kept = json.loads(path.read_bytes())["answer"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if isinstance(kept, str) else None
