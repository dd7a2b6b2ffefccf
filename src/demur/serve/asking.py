"""From a request's body to the answers that it asks for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from demur.errors import InputError
from demur.sampling import Autoregressive, Sampler
from demur.sampling.noise import row_seed
from demur.serve.engine import Engine
from demur.serve.job import Event, Job
from demur.serve.limits import Limits
from demur.serve.refusals import Refusal
from demur.serve.wire import ChatRequest, CompletionRequest, Generation

#: Settings of a sampler that a request can change and a draw depends on.
DRAWN = ("temperature", "top_p")

#: For requests that the guard's false-positive rate does not cover, where they are not served.
UNCALIBRATED = Refusal(
    400,
    "uncalibrated",
    "The guard was not calibrated on such requests. Send one user turn, without another system prompt, "
    "temperature or top_p.",
)


async def chat_jobs(engine: Engine, asked: ChatRequest, limits: Limits, client: str) -> list[Job]:
    """The ``n`` answers to a dialogue.

    Raises:
        Refusal: it is too long, or asks for what the model's sampler does not have.
    """
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        about = "Give max_tokens or max_completion_tokens, not both."
        raise Refusal(400, "invalid_field", about, "max_tokens")
    if len(asked.messages) > limits.messages:
        raise Refusal(400, "too_many_messages", "Too many messages.", "messages")
    turns = [{"role": message.role, "content": message.text} for message in asked.messages]
    prompt = await asyncio.to_thread(_dialogue, engine, turns)
    plain = [turn["role"] for turn in turns] in (["user"], ["system", "user"])
    system = turns[0]["content"] if turns[0]["role"] == "system" else engine.model.system
    usual = plain and system == engine.model.system
    most = asked.max_completion_tokens or asked.max_tokens
    return _jobs(engine, asked, [prompt], limits, client, most=most, usual=usual, param="messages")


async def text_jobs(
    engine: Engine, asked: CompletionRequest, limits: Limits, client: str
) -> list[Job]:
    """The ``n`` answers to each of some texts; arguments and errors as for ``chat_jobs``."""
    prompts = [await asyncio.to_thread(_beginning, engine, text) for text in asked.prompts]
    return _jobs(
        engine, asked, prompts, limits, client, most=asked.max_tokens, usual=False, param="prompt"
    )


def prompt_job(engine: Engine, text: str, limits: Limits, client: str, **about: Any) -> Job:
    """One answer to one user turn, with the settings that the guard was calibrated on.

    Raises:
        Refusal: the text is too long.
    """
    prompt = _dialogue(engine, [{"role": "user", "content": text}])
    room = _room(engine, prompt, limits, param="prompt")
    most = min(room, engine.sampler.new_tokens)
    return Job(
        prompt=prompt,
        sampler=_sampler(engine, None, None, room),
        seed=row_seed(0, "0"),
        most=most,
        events=asyncio.Queue(),
        client=client,
        whole=_whole(engine, most),
        **about,
    )


def _dialogue(engine: Engine, turns: Sequence[dict[str, str]]) -> list[int]:
    try:
        return engine.model.chat.dialogue_ids(turns)
    except InputError as error:
        about = "The model's chat template refuses these messages."
        raise Refusal(400, "invalid_field", about, "messages") from error


def _beginning(engine: Engine, text: str) -> list[int]:
    """Ids of a bare text, behind the token that the tokenizer begins every text with, if any."""
    first: list[int] = engine.model.tokenizer("")["input_ids"][:1]
    return [*first, *engine.model.chat.plain_ids(text)]


def _jobs(
    engine: Engine,
    asked: Generation,
    prompts: Sequence[list[int]],
    limits: Limits,
    client: str,
    *,
    most: int | None,
    usual: bool,
    param: str,
) -> list[Job]:
    choices = (asked.n or 1) * len(prompts)
    if choices > limits.choices:
        raise Refusal(400, "too_many_choices", "Too many answers are asked for.", "n")
    events: asyncio.Queue[tuple[Job, Event]] = asyncio.Queue()
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    jobs = list[Job]()
    for index in range(choices):
        prompt = prompts[index // (asked.n or 1)]
        room = _room(engine, prompt, limits, param=param)
        sampler = _sampler(engine, asked.temperature, asked.top_p, room)
        calibrated = usual and _drawn_alike(sampler, engine.sampler)
        if engine.guard and not calibrated and engine.uncalibrated == "refuse":
            raise UNCALIBRATED
        longest = min(room, most or engine.sampler.new_tokens)
        jobs.append(
            Job(
                prompt=prompt,
                sampler=sampler,
                seed=row_seed(seed, str(index)),
                most=longest,
                events=events,
                stop=asked.stops,
                client=client,
                index=index,
                calibrated=calibrated,
                whole=_whole(engine, longest) and not asked.stops,
            )
        )
    return jobs


def _room(engine: Engine, prompt: list[int], limits: Limits, *, param: str) -> int:
    """Tokens that an answer can have. With a guard that blocks, no more than it can judge."""
    if not prompt:
        raise Refusal(400, "invalid_field", "The prompt is empty.", param)
    room = engine.model.context_length - len(prompt)
    fixed = 1 if isinstance(engine.sampler, Autoregressive) else engine.sampler.new_tokens
    if len(prompt) > limits.prompt_tokens or room < fixed:
        raise Refusal(400, "context_length_exceeded", "The prompt is too long.", param)
    if not isinstance(engine.sampler, Autoregressive):
        return fixed
    return min(room, engine.guard.steps) if engine.guard and engine.mode != "audit" else room


def _sampler(engine: Engine, temperature: float | None, top_p: float | None, room: int) -> Sampler:
    asked: dict[str, Any] = dict(zip(DRAWN, (temperature, top_p), strict=True))
    known = {field.name for field in fields(engine.sampler)}  # type: ignore[arg-type]
    changed = {name: value for name, value in asked.items() if value is not None}
    if unknown := sorted(set(changed) - known):
        about = f"Unsupported field: {unknown[0]}; this model's sampler has none."
        raise Refusal(400, "unsupported_field", about, unknown[0])
    if isinstance(engine.sampler, Autoregressive):
        changed["steps"] = room
    sampler: Sampler = replace(engine.sampler, **changed)  # type: ignore[type-var]
    return sampler


def _whole(engine: Engine, most: int) -> bool:
    """Whether an answer of ``most`` tokens can end where the calibration's ended.

    With several blocks it cannot: the masked sampler goes on after an end token, the server does not.
    """
    steps, sampler = engine.guard.steps if engine.guard else most, engine.sampler
    if isinstance(sampler, Autoregressive):
        return most >= min(steps, sampler.new_tokens)
    return most >= sampler.new_tokens and getattr(sampler, "blocks", 1) == 1


def _drawn_alike(one: Sampler, other: Sampler) -> bool:
    """Whether two settings differ in nothing that a draw depends on."""
    return all(getattr(one, name, None) == getattr(other, name, None) for name in DRAWN)
