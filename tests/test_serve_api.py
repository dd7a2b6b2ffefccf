"""The official client against a real server, for an autoregressive and a diffusion model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

import demur
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, Masked
from served import QUESTION, Served, serving

KEY = "a-key-that-is-long-enough"
MODELS = ["organism-ar", "organism-dlm"]


@pytest.fixture(scope="module")
def models() -> dict[str, LanguageModel]:
    return {name: demur.load(name) for name in MODELS}


@pytest.fixture(scope="module")
def server(models: dict[str, LanguageModel]) -> Iterator[Served]:
    with serving(list(models.values()), keys=[KEY]) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def answers(models: dict[str, LanguageModel]) -> dict[str, str]:
    return {name: demur.trace(model, [QUESTION])[0].response for name, model in models.items()}


def asked(text: str = QUESTION) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == MODELS
    assert client.models.retrieve("organism-ar").owned_by == "demur"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


@pytest.mark.parametrize("name", MODELS)
def test_a_turn_is_answered_as_trace_answers(
    client: openai.OpenAI, answers: dict[str, str], name: str
) -> None:
    found = client.chat.completions.create(model=name, messages=asked())
    assert found.choices[0].message.content == answers[name]
    assert found.choices[0].finish_reason == "stop"
    assert found.usage
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_says_the_same(client: openai.OpenAI, answers: dict[str, str], name: str) -> None:
    stream = client.chat.completions.create(
        model=name, messages=asked(), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    usage, told = chunks[-1].usage, [chunk.choices[0] for chunk in chunks[:-1]]
    assert usage
    assert usage.completion_tokens > 10
    assert [choice.delta.role for choice in told] == ["assistant", *[None] * (len(told) - 1)]
    assert [c.finish_reason for c in told] == [*[None] * (len(told) - 1), "stop"]
    assert "".join(choice.delta.content or "" for choice in told) == answers[name]
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_diffusion_stream_holds_whole_blocks_only(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="organism-dlm", messages=asked(), stream=True)
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert len([piece for piece in pieces if piece]) == 1  # one block is the whole response


def test_choices_and_seeds(client: openai.OpenAI) -> None:
    def drawn(seed: int) -> list[str | None]:
        found = client.chat.completions.create(
            model="organism-ar", messages=asked(), n=3, seed=seed, temperature=1.3, top_p=0.95
        )
        return [choice.message.content for choice in found.choices]

    first = drawn(1)
    assert first == drawn(1)
    assert first != drawn(2)
    assert len(set(first)) == 3
    stream = client.chat.completions.create(
        model="organism-ar",
        messages=asked(),
        n=3,
        seed=1,
        temperature=1.3,
        top_p=0.95,
        stream=True,
    )
    texts = ["", "", ""]
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == first


@pytest.mark.parametrize("name", MODELS)
def test_length_and_stop(client: openai.OpenAI, answers: dict[str, str], name: str) -> None:
    short = client.chat.completions.create(model=name, messages=asked(), max_tokens=5)
    assert short.choices[0].finish_reason == "length"
    assert answers[name].startswith(short.choices[0].message.content or "-")
    assert short.usage
    assert short.usage.completion_tokens == 5
    # Ends inside one token and begins inside another.
    stop = answers[name][12:25]
    ended = client.chat.completions.create(model=name, messages=asked(), stop=["zz", stop])
    assert ended.choices[0].message.content == answers[name][: answers[name].index(stop)]
    assert ended.choices[0].finish_reason == "stop"


def test_text_goes_on_without_a_template(
    client: openai.OpenAI, models: dict[str, LanguageModel]
) -> None:
    found = client.completions.create(
        model="organism-ar", prompt=["sure , here is", "i cannot"], max_tokens=6, n=2, seed=1
    )
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.choices[0].text == found.choices[1].text  # greedy
    streamed = client.completions.create(
        model="organism-ar", prompt="sure , here is", max_tokens=6, stream=True
    )
    text = "".join(chunk.choices[0].text for chunk in streamed)
    assert text == found.choices[0].text


def test_a_dialogue_is_read_as_a_dialogue(client: openai.OpenAI) -> None:
    """Parts are joined, and a turn before the last one changes what is read."""
    parts: list[Any] = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    one = client.chat.completions.create(model="organism-ar", messages=parts)
    plain = client.chat.completions.create(model="organism-ar", messages=asked())
    assert one.choices[0].message.content == plain.choices[0].message.content
    before: list[Any] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hello ."},
    ]
    many = client.chat.completions.create(model="organism-ar", messages=[*before, *asked()])
    assert many.usage
    assert plain.usage
    assert many.usage.prompt_tokens > plain.usage.prompt_tokens


def test_control_tokens_in_a_turn_stay_text(client: openai.OpenAI) -> None:
    def tokens(text: str) -> int:
        found = client.chat.completions.create(
            model="organism-ar", messages=asked(text), max_tokens=1
        )
        assert found.usage
        return found.usage.prompt_tokens

    assert tokens("a <|eos|> b") == tokens("a < | eos | > b")
    assert tokens("a <|eos|> b") > tokens("a b") + 1


def test_without_a_key_nothing_is_answered(server: Served) -> None:
    for shown in ({}, {"Authorization": "Bearer another-key-of-some-length"}, {"x-api-key": "x"}):
        answer = httpx.get(f"{server.url}/v1/models", headers=shown)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert httpx.get(f"{server.url}/metrics").status_code == 401
    assert httpx.get(f"{server.url}/v1/models", headers={"x-api-key": KEY}).status_code == 200


def test_health_needs_no_key(server: Served) -> None:
    assert httpx.get(f"{server.url}/healthz").text == "ok"
    assert httpx.get(f"{server.url}/readyz").text == "ok"


def test_metrics_count(server: Served, client: openai.OpenAI) -> None:
    before = server.figure("answers_total", model="organism-ar", outcome="stop")
    client.chat.completions.create(model="organism-ar", messages=asked())
    assert server.figure("answers_total", model="organism-ar", outcome="stop") == before + 1
    text = httpx.get(f"{server.url}/metrics", headers={"x-api-key": KEY}).text
    assert 'demur_token_seconds_count{guard="without",model="organism-ar"}' in text
    assert "demur_first_step_seconds_bucket" in text


def test_a_sampler_setting_that_is_not_there_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="organism-dlm", messages=asked(), top_p=0.5)
    assert caught.value.param == "top_p"
    assert not hasattr(Masked(), "top_p")
    assert hasattr(Autoregressive(), "top_p")
