"""The bodies of requests and answers: OpenAI's schema, as far as it is served.

https://platform.openai.com/docs/api-reference/chat and .../completions. A field that is not here is
refused by its name, never ignored: a client that asks for something must not believe that it got it.
Many clients send every field they know; one with the value it has by default asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Text that can be encoded.
Text = Annotated[str, Field(max_length=1 << 20)]

Stop = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    """A request body without fields that we do not know."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Part(Body):
    """A piece of a message; only text can be read."""

    type: Literal["text"]
    text: Text


class Message(Body):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: Text | list[Part]

    @property
    def text(self) -> str:
        """The turn's text, its parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


#: Fields that are not served, with the values that ask for nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0, 0.0),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "presence_penalty": (None, 0, 0.0),
    "response_format": (None, {"type": "text"}),
    "store": (None, False),
    "suffix": (None, ""),
    "tool_choice": (None, "none"),
    "tools": (None,),
    "top_logprobs": (None,),
}


def _asks(name: str, value: Any) -> bool:
    """Whether a field asks for something; 0 is not False: ``logprobs: 0`` asks for a token's own."""
    return not any(type(value) is type(n) and value == n for n in NEUTRAL.get(name, ()))


class StreamOptions(Body):
    """What else a stream brings."""

    include_usage: bool = False


class Generation(Body):
    """What both ways of asking share. ``user`` names the client's own user and changes nothing."""

    model: Annotated[str, Field(max_length=512)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _leaves_out_what_asks_for_nothing(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if _asks(name, value)}

    @model_validator(mode="after")
    def _streams_where_it_has_options(self) -> Generation:
        if self.stream_options is not None and not self.stream:
            raise ValueError("only a stream has stream_options")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with a chunk of token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Generation):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> ChatRequest:
        if self.messages[-1].role != "user":
            raise ValueError("the last message must be of the user")
        if any(message.role == "system" for message in self.messages[1:]):
            raise ValueError("only the first message can be of the system")
        return self


class CompletionRequest(Generation):
    """``POST /v1/completions``: text that goes on, without a chat template."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=64)]

    @property
    def prompts(self) -> list[str]:
        """The texts to go on from."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class WatchRequest(Body):
    """``POST /watch``: one prompt, every step of its answer."""

    model: Annotated[str, Field(max_length=512)]
    prompt: Annotated[str, Field(min_length=1, max_length=1 << 16)]


class ClassifyRequest(Body):
    """NeMo Guardrails' call of a jailbreak classifier."""

    input: Text


class GuardrailRequest(BaseModel):
    """LiteLLM's call of a generic guardrail; it sends much that concerns others.

    https://docs.litellm.ai/docs/adding_provider/generic_guardrail_api
    """

    texts: Annotated[list[Text], Field(max_length=64)] = []
    images: list[Any] | None = None
    tool_calls: list[Any] | None = None
    input_type: Literal["request", "response"]


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """An error as OpenAI's clients read it."""

    error: ErrorDetail


class JailbreakBody(BaseModel):
    """The answer to NeMo Guardrails, which reads the first field."""

    jailbreak: bool
    reason: str | None = None


class GuardrailBody(BaseModel):
    """The answer to LiteLLM."""

    action: Literal["BLOCKED", "NONE"]
    blocked_reason: str | None = None
