"""Ask a model that answers in text: over an OpenAI-compatible server, or anything of the same shape.

``Assistant`` is what judges, attackers and defenses talk to. ``Endpoint`` is the one that asks a
server (``POST URL/chat/completions``), with the official ``openai`` client (extra ``judges``).
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
from demur.types import digest

#: Seconds before a malformed answer is asked for again; twice as many each further time.
PAUSE = 0.5


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
        """The next assistant turn of each conversation, in order; empty where nothing was said.

        Args:
            conversations: each from its first turn on.
            max_tokens: most tokens of an answer.
            temperature: 0 takes the likeliest.
            seed: of chance; one for all, or one a conversation.
        """


def each_seed(seed: int | Sequence[int] | None, count: int) -> Sequence[int | None]:
    """One seed a conversation of a seed for all, or of one for each."""
    return [seed] * count if seed is None or isinstance(seed, int) else seed


@dataclass(frozen=True)
class Usage:
    """What asking has cost so far.

    Attributes:
        requests: answers that the server gave.
        cached: answers read from the cache instead.
        prompt_tokens: tokens read by the server, as it counts them; 0 where it does not.
        answer_tokens: tokens it wrote.
    """

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


@final
@dataclass(eq=False)
class Endpoint:
    """A model behind an OpenAI-compatible server, and what asking it has cost.

    Attributes:
        url: base address, such as ``http://localhost:8000/v1``.
        model: what the server calls the model.
        key_variable: environment variable that holds the key; the key itself is kept nowhere else
            and cut out of every message. Where it is not set, none is sent.
        cache: folder of answers. Only what is asked to be repeatable (temperature 0, or a seed) is
            kept; without a folder nothing is.
        timeout: seconds one try may take.
        retries: further tries after a time-out, a lost connection, a malformed answer or the
            statuses 408, 409, 429 and 5xx, with a growing pause (the server's own where it says).
        concurrency: requests under way at once.
        reasoning_tokens: added to the most tokens of every answer, for a model that reasons first.
        usage: requests and tokens so far.

    Raises:
        InputError: the address is none, or carries a user name or password.
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
                "The endpoint's address carries a user name or password, which would end up in "
                f"messages. Put the key into the variable {self.key_variable} instead."
            )
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(
                f"{self.url!r} is no server's address. Write one such as http://localhost:8000/v1."
            )

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | Sequence[int] | None = None,
    ) -> list[str]:
        """Ask for the next turn of each conversation, several at once; answers in order.

        Raises:
            EndpointError: a request got no usable answer, or one cut off before its first word; those
                that did are in the cache.
            MissingExtraError: the client is not installed.
        """
        settings = {"max_tokens": max_tokens + self.reasoning_tokens, "temperature": temperature}
        seeds = each_seed(seed, len(conversations))
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            waiting = [
                pool.submit(
                    self._turn, client, turns, settings | ({} if s is None else {"seed": s})
                )
                for turns, s in zip(conversations, seeds, strict=True)
            ]
            try:
                return [one.result() for one in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _turn(self, client: Any, turns: Sequence[Message], settings: dict[str, Any]) -> str:
        request = {
            "model": self.model,
            "messages": [{"role": turn.role, "content": _clean(turn.content)} for turn in turns],
            **settings,
        }
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
        import openai

        problem = "no try was made"
        for number in range(self.retries + 1):
            if number:
                time.sleep(PAUSE * 2 ** (number - 1))
            try:
                return _content(client.chat.completions.create(**request))
            except _CutOffError:
                raise EndpointError(
                    f"{self.model} at {self.url} wrote nothing within {request['max_tokens']} tokens, "
                    "as models that reason first do. Raise reasoning_tokens (--reasoning-tokens), or "
                    "ask a model that does not reason."
                ) from None
            except openai.APIStatusError as error:
                raise self._failed(f"status {error.status_code}: {error.message}") from None
            except openai.APIConnectionError as error:
                raise self._failed(f"{type(error).__name__}: {error.__cause__ or error}") from None
            except (openai.APIError, ValueError, AttributeError, IndexError, TypeError) as error:
                problem = f"its answer is malformed ({type(error).__name__})"
        raise self._failed(problem)

    def _failed(self, problem: str) -> EndpointError:
        key = os.environ.get(self.key_variable)
        shown = (problem.replace(key, "***") if key else problem)[:500]
        kept = "Answers so far are cached; r" if self.cache else "R"
        return EndpointError(
            f"{self.model} at {self.url} gave no answer after {self.retries + 1} tries where more "
            f"tries help. The last one: {shown}. Check the server, the model's name and the key in "
            f"{self.key_variable}. {kept}un the same command again."
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


class _CutOffError(Exception):
    """An answer that ended, for its length, before it said anything."""


def _content(completion: Any) -> tuple[str, tuple[int, int]]:
    """The text of a completion, and tokens read and written."""
    choice = completion.choices[0]
    message = choice.message
    text = message.content if message.content is not None else (message.refusal or "")
    if not isinstance(text, str):
        raise TypeError
    if not text and choice.finish_reason == "length":
        raise _CutOffError
    usage = completion.usage
    return text, (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)


def _clean(text: str) -> str:
    """Text that can be sent: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _read(path: Path) -> str | None:
    """The cached answer; None where there is none or the file is damaged."""
    try:
        kept = json.loads(path.read_bytes())["answer"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if isinstance(kept, str) else None
