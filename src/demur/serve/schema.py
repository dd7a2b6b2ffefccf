"""Bodies of requests and responses: the supported part of OpenAI's schema.

https://platform.openai.com/docs/api-reference/chat and .../completions. Unknown fields are refused
by name, never ignored, so that clients do not rely on a field without effect. Many clients send every
field they know, so a field with its default value is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Text of a body.
BodyText = Annotated[str, Field(max_length=1 << 20)]

StopText = Annotated[str, Field(min_length=1, max_length=256)]


class RequestBody(BaseModel):
    """A request body that allows no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class MessagePart(RequestBody):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: BodyText


class ChatMessage(RequestBody):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: BodyText | list[MessagePart]

    @property
    def text(self) -> str:
        """The message's text, its parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


#: Unsupported fields, with the values that have no effect.
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
    """Whether a field has an effect. 0 is not False: ``logprobs: 0`` asks for the token's own."""
    return not any(type(value) is type(n) and value == n for n in NEUTRAL.get(name, ()))


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: bool = False


class GenerationRequest(RequestBody):
    """Fields of both kinds of request. ``user`` names the client's own user and is ignored."""

    model: Annotated[str, Field(max_length=512)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
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
    def _streams_where_it_has_options(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("the field stream_options needs stream")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(GenerationRequest):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> ChatRequest:
        if self.messages[-1].role != "user":
            raise ValueError("the last message must have the role user")
        if any(message.role == "system" for message in self.messages[1:]):
            raise ValueError("only the first message can have the role system")
        return self


class CompletionRequest(GenerationRequest):
    """``POST /v1/completions``: continues a text, without a chat template."""

    prompt: BodyText | Annotated[list[BodyText], Field(min_length=1, max_length=64)]

    @property
    def prompts(self) -> list[str]:
        """The texts to continue."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class WatchRequest(RequestBody):
    """``POST /watch``: every step of the answer to one prompt, after earlier turns if any."""

    turns: list[ChatMessage] = []
    model: Annotated[str, Field(max_length=512)]
    prompt: Annotated[str, Field(min_length=1, max_length=1 << 16)]
    guarded: bool = True


class ClassifyRequest(RequestBody):
    """Body of NeMo Guardrails' request to a jailbreak classifier."""

    input: BodyText


class GuardrailRequest(BaseModel):
    """Body of LiteLLM's request to a generic guardrail; its other fields are ignored.

    https://docs.litellm.ai/docs/adding_provider/generic_guardrail_api
    """

    texts: Annotated[list[BodyText], Field(max_length=64)] = []
    images: list[Any] | None = None
    tool_calls: list[Any] | None = None
    input_type: Literal["request", "response"]


class ErrorDetail(BaseModel):
    """An error."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorDetail


class JailbreakBody(BaseModel):
    """The response to NeMo Guardrails, which reads the first field."""

    jailbreak: bool
    reason: str | None = None


class GuardrailBody(BaseModel):
    """The response to LiteLLM."""

    action: Literal["BLOCKED", "NONE"]
    blocked_reason: str | None = None
