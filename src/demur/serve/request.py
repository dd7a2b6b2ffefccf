"""Turn a request's body into sequences to generate."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from demur.errors import InputError
from demur.sampling.choice import row_seed
from demur.serve.hosted import DRAWN, HostedModel
from demur.serve.http_errors import HTTPError
from demur.serve.schema import ChatRequest, CompletionRequest, GenerationRequest
from demur.serve.sequence import Events, ServedSequence


async def chat_sequences(
    hosted: HostedModel, asked: ChatRequest, client: str
) -> list[ServedSequence]:
    """The ``n`` sequences of a chat request.

    Raises:
        HTTPError: it is too long, or asks for a setting that the model's sampler does not have.
    """
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        about = "Give max_tokens or max_completion_tokens, not both."
        raise HTTPError(400, "invalid_field", about, "max_tokens")
    if len(asked.messages) > hosted.options.limits.messages:
        raise HTTPError(400, "too_many_messages", "Too many messages.", "messages")
    turns = [{"role": message.role, "content": message.text} for message in asked.messages]
    prompt = await asyncio.to_thread(_chat_ids, hosted, turns)
    plain = [turn["role"] for turn in turns] in (["user"], ["system", "user"])
    system = turns[0]["content"] if turns[0]["role"] == "system" else hosted.model.system
    usual = plain and system == hosted.model.system
    most = asked.max_completion_tokens or asked.max_tokens
    return _sequences(hosted, asked, [prompt], client, most=most, usual=usual, param="messages")


async def text_sequences(
    hosted: HostedModel, asked: CompletionRequest, client: str
) -> list[ServedSequence]:
    """The ``n`` sequences of each prompt of a completion request; as for ``chat_sequences``."""
    chat, most = hosted.model.chat, asked.max_tokens
    # The token with which the tokenizer starts every text, if any.
    first: list[int] = hosted.model.tokenizer("")["input_ids"][:1]
    prompts = [[*first, *await asyncio.to_thread(chat.plain_ids, text)] for text in asked.prompts]
    return _sequences(hosted, asked, prompts, client, most=most, usual=False, param="prompt")


def prompt_sequence(
    hosted: HostedModel,
    text: str,
    client: str,
    turns: Sequence[dict[str, str]] = (),
    **about: Any,
) -> ServedSequence:
    """A sequence that answers one user turn, with the settings that the guard was calibrated on.

    Earlier ``turns`` make it a conversation, which the guard was not calibrated on.

    Raises:
        HTTPError: the text is too long, or the model's template refuses the turns.
    """
    prompt = _chat_ids(hosted, [*turns, {"role": "user", "content": text}])
    about |= {"seed": row_seed(0, "0"), "client": client, "calibrated": not turns}
    return _sequence(hosted, prompt, {}, None, "prompt", **about)


def _chat_ids(hosted: HostedModel, turns: Sequence[dict[str, str]]) -> list[int]:
    try:
        return hosted.model.chat.dialogue_ids(turns)
    except InputError as error:
        about = "The model's chat template refuses these messages."
        raise HTTPError(400, "invalid_field", about, "messages") from error


def _sequences(
    hosted: HostedModel,
    asked: GenerationRequest,
    prompts: Sequence[list[int]],
    client: str,
    *,
    most: int | None,
    usual: bool,
    param: str,
) -> list[ServedSequence]:
    each = asked.n or 1
    choices = each * len(prompts)
    if choices > hosted.options.limits.choices:
        raise HTTPError(400, "too_many_choices", "The request asks for too many answers.", "n")
    settings = _settings(hosted, asked)
    default = {name: getattr(hosted.sampler, name) for name in settings}
    calibrated = usual and settings == default
    if hosted.guard and not calibrated and hosted.options.uncalibrated == "refuse":
        about = (
            "The guard was not calibrated on such requests. Send one user turn, without another "
            "system prompt, temperature or top_p."
        )
        raise HTTPError(400, "uncalibrated", about)
    events: Events = asyncio.Queue()
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    return [
        _sequence(
            hosted,
            prompts[index // each],
            settings,
            most,
            param,
            seed=row_seed(seed, str(index)),
            client=client,
            events=events,
            stop=asked.stops,
            index=index,
            calibrated=calibrated,
            splits=param == "messages" and hosted.model.chat.thinks,
        )
        for index in range(choices)
    ]


def _sequence(
    hosted: HostedModel,
    prompt: list[int],
    settings: Mapping[str, Any],
    most: int | None,
    param: str,
    **about: Any,
) -> ServedSequence:
    room = _room(hosted, prompt, param=param)
    most = min(room, most or hosted.sampler.new_tokens)
    return ServedSequence(
        prompt=prompt,
        sampler=hosted.sampler_for(settings, room=room),
        most=most,
        whole=_natural_end(hosted, most) and not (about.get("stop") or about.get("audited")),
        **about,
    )


def _settings(hosted: HostedModel, asked: GenerationRequest) -> dict[str, Any]:
    """Sampler settings that the request changes."""
    changed = {name: getattr(asked, name) for name in DRAWN if getattr(asked, name) is not None}
    known = {field.name for field in fields(hosted.sampler)}  # type: ignore[arg-type]
    if unknown := sorted(set(changed) - known):
        about = f"Unsupported field: {unknown[0]}; this model's sampler has none."
        raise HTTPError(400, "unsupported_field", about, unknown[0])
    return changed


def _room(hosted: HostedModel, prompt: list[int], *, param: str) -> int:
    """Most tokens of an answer; at most as many as a blocking guard reads."""
    if not prompt:
        raise HTTPError(400, "invalid_field", "The prompt is empty.", param)
    room = hosted.model.context_length - len(prompt)
    least = 1 if hosted.any_length else hosted.sampler.new_tokens
    if len(prompt) > hosted.options.limits.prompt_tokens or room < least:
        raise HTTPError(400, "context_length_exceeded", "The prompt is too long.", param)
    if not hosted.any_length:
        return least
    return min(room, hosted.guard.steps) if hosted.guard and hosted.blocks else room


def _natural_end(hosted: HostedModel, most: int) -> bool:
    """Whether an answer of ``most`` tokens can end where the calibration's answers ended.

    With several blocks it cannot: the masked sampler continues after an end token, the server stops.
    """
    sampler = hosted.sampler
    if hosted.any_length:
        steps = hosted.guard.steps if hosted.guard else most
        return most >= min(steps, sampler.new_tokens)
    return most >= sampler.new_tokens and getattr(sampler, "blocks", 1) == 1
