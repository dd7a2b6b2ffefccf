"""The values that all rooms use: prompts, steps, traces and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from demur.alignment import align, default_alignment
from demur.errors import FingerprintError, InputError
from demur.thoughts import first_mark

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Label = Literal["harmless", "harmful", "borderline", "unknown"]

#: Fixed text and masked slots in order: ``("Sure , here is", 20, ".")`` is a text, twenty masked
#: positions and a text.
Template = tuple[str | int, ...]


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Prompt:
    """One thing to ask a model.

    Attributes:
        text: what the user turn says (already wrapped by the attack, if there is one).
        id: stable name of the row; the content's hash when left empty.
        goal: the task behind the text, which judges look at; the text itself when left empty.
        attack: name of the wrapper that made the text, ``"none"`` for a plain prompt.
        label: what is known about the goal.
        user: a user turn with masked slots to fill (infilling attacks); replaces ``text``.
        response: how the response begins and where it is fixed (prefill and anchor attacks).
        turns: the conversation before ``text``, oldest first; a system turn at its beginning
            replaces the model's system prompt.

    Raises:
        InputError: the text is empty and there is no user turn with masked slots.
    """

    text: str
    id: str = ""
    goal: str = ""
    attack: str = "none"
    label: Label = "unknown"
    user: Template | None = None
    response: Template | None = None
    turns: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        if not self.text.strip() and self.user is None:
            raise InputError(
                f"Prompt {self.id or '(no id)'} is empty. Remove the row or fill its text."
            )
        if not self.goal:
            object.__setattr__(self, "goal", self.text)
        if not self.id:
            object.__setattr__(self, "id", digest(self.as_data()))

    @property
    def shown(self) -> str:
        """What to show of it: the user's text, or the whole conversation, each turn after its role."""
        if not self.turns:
            return self.text
        turns = [*self.turns, Turn("user", self.text)]
        return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)

    def as_data(self) -> dict[str, Any]:
        """Plain data to store or hash; ``turns`` only where there are some.

        So a prompt without earlier turns has the same hash as before demur read conversations.
        """
        data = asdict(self)
        if not self.turns:
            del data["turns"]
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Prompt:
        """The prompt of ``as_data``, also after a round trip through JSON, which has no tuples."""
        made = {k: tuple(data[k]) for k in ("user", "response") if data.get(k) is not None}
        turns = tuple(Turn(**turn) for turn in data.get("turns", ()))
        return cls(**{**data, **made, "turns": turns})


@dataclass(frozen=True)
class Step:
    """What is known after one generation step of a batch.

    Attributes:
        index: 1-based step, as in the paper (t = 1..T).
        tokens: ``[B, R]`` int64, committed response tokens, -1 where none is committed. Final for
            most samplers; the canvas sampler and a block sampler that edits take some back.
        draft: ``[B, R]`` int64, committed tokens plus the model's prediction for every masked
            position, -1 in blocks that have not begun; for autoregressive samplers the same as
            ``tokens``.
        phi: recorded layer -> ``[B, D]`` float32, pooled hidden states of this step.
        running: ``[B]`` bool, rows this step belongs to; a finished row's values only repeat.
        prompt: ``[B, P]`` int64, prompt tokens, with masked slots filled so far.
        block: ``[B]`` int64, 0-based block each row worked on; None where there are no blocks.
    """

    index: int
    tokens: Tensor
    draft: Tensor
    phi: Mapping[str, Tensor]
    running: Tensor
    prompt: Tensor
    block: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """What to record of each generation.

    Attributes:
        layers: whose states: ``last`` (after the final norm), ``first``, ``middle`` or numbers of
            decoder blocks.
        pooling: how the states of a response become one vector (``demur.sampling.pooling``); None
            takes the model's default.
        seed: random seed of temperature and random remasking.
    """

    layers: tuple[str, ...] = ("last",)
    pooling: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.layers, str):
            raise InputError(
                f"layers is the text {self.layers!r}. Pass a tuple: layers=({self.layers!r},)."
            )
        object.__setattr__(self, "layers", tuple(map(str, self.layers)))


@dataclass(frozen=True)
class Fingerprint:
    """What a trace, an anchor or a guard was made with. Values with different ones must not be mixed.

    Attributes:
        model: name or path the model was loaded by.
        revision: hash of the config and weight files' identity.
        sampler: the sampler's spec as plain data, its name included.
        pooling: name of the pooling of the states (``demur.sampling.pooling``).
        system: the system prompt.
        dtype: dtype the model ran in.
    """

    model: str
    revision: str
    sampler: Mapping[str, Any]
    pooling: str
    system: str
    dtype: str

    def __post_init__(self) -> None:
        texts = (self.model, self.revision, self.pooling, self.system, self.dtype)
        if not all(isinstance(t, str) for t in texts) or not isinstance(self.sampler, Mapping):
            raise TypeError("a fingerprint holds texts and the settings of a sampler")

    def differences(self, other: Fingerprint) -> list[str]:
        """Name each field that differs, with both values."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{k}: {mine[k]!r} against {theirs[k]!r}" for k in mine if mine[k] != theirs[k]]

    def require(self, other: Fingerprint, *, what: str, fix: str) -> None:
        """Raise FingerprintError naming the differences unless both are the same."""
        if different := self.differences(other):
            raise FingerprintError(f"{what}: {'; '.join(different)}. {fix}")


@dataclass(frozen=True)
class Trace:
    """One prompt's generation, step by step. T is the number of steps that really ran.

    Attributes:
        prompt: the prompt.
        response: decoded response, special tokens left out but the marks of thoughts. It begins with
            the mark of a thought that the prompt opened.
        response_ids: ``[R]`` final response tokens, cut after the first end token.
        committed: ``[T, R]`` int32, committed tokens after each step, -1 where none.
        draft: ``[T, R]`` int32, committed tokens plus predictions.
        phi: layer name -> ``[T, D]`` float32, pooled states.
        finish_reason: ``"stop"`` (end token or all committed) or ``"length"``.
        blocks: ``[T]`` int32, the block each step worked on.
        filled_prompt: the user turn with its slots filled, where the prompt had slots.
        fingerprint: what made it.
        thought: ``[T]`` bool, steps in which the model thinks (``demur.parts``); None where it does
            not.
    """

    prompt: Prompt
    response: str
    response_ids: NDArray[np.int32]
    committed: NDArray[np.int32]
    draft: NDArray[np.int32]
    phi: Mapping[str, NDArray[np.float32]]
    finish_reason: Literal["stop", "length"]
    blocks: NDArray[np.int32]
    fingerprint: Fingerprint
    filled_prompt: str = ""
    thought: NDArray[np.bool_] | None = None

    @property
    def n_steps(self) -> int:
        """Number of steps T that ran."""
        return len(self.blocks)

    @property
    def answer(self) -> str:
        """What the model said: the user turn from its first filled slot on, then the response.

        Without slots in the prompt that is the response alone. Where an attack masks parts of the
        user turn (DIJA, arXiv:2507.11097), the harm is in what the model writes there.
        """
        return self.answer_with(self.response)

    def answer_with(self, response: str) -> str:
        """The answer with another response, such as a draft, behind the slots as finally filled."""
        if self.thought is not None and not first_mark(response):
            # The prompt may have opened the thought, which a draft's own tokens do not show.
            response = first_mark(self.response) + response
        if self.prompt.user is None:
            return response
        filled, head = " ".join(self.filled_prompt.split()), self.prompt.user[0]
        before = " ".join(head.split()) if isinstance(head, str) else ""
        # If decoding changed the text before the first slot, the whole turn is read.
        rest = filled.partition(before)[2] if before and before in filled else filled
        return f"{rest.strip()}\n{response}".strip()

    def states(self, layer: str) -> NDArray[np.float32]:
        """``[T, D]`` pooled states of one layer.

        Raises:
            InputError: the layer was not recorded.
        """
        if layer not in self.phi:
            raise InputError(
                f"Layer {layer!r} was not recorded; there are {sorted(self.phi)}. "
                f"Trace again with --layers {layer}."
            )
        return self.phi[layer]


@dataclass(frozen=True)
class Traces(Sequence[Trace]):
    """Traces of one run, in prompt order. ``traces + traces`` joins two runs of one fingerprint."""

    items: tuple[Trace, ...] = field(repr=False)

    def __add__(self, other: Traces) -> Traces:
        return Traces(self.items + other.items) if isinstance(other, Traces) else NotImplemented

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Trace]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Trace: ...
    @overload
    def __getitem__(self, index: slice) -> Traces: ...
    def __getitem__(self, index: int | slice) -> Trace | Traces:
        return Traces(self.items[index]) if isinstance(index, slice) else self.items[index]

    @property
    def responses(self) -> list[str]:
        """Decoded responses."""
        return [trace.response for trace in self.items]

    @property
    def phi(self) -> NDArray[np.float32]:
        """``[N, T, D]`` pooled last-layer states, aligned to the longest trace's T."""
        return self.states("last")

    def states(self, layer: str, *, steps: int | None = None) -> NDArray[np.float32]:
        """``[N, T, D]`` pooled states of one layer, aligned to ``steps`` (the longest trace's T).

        The rule is the pooling's default (see ``demur.alignment``).

        Raises:
            InputError: there are no traces, or the layer was not recorded.
        """
        rule = default_alignment(self.fingerprint.pooling)
        length = steps or max(trace.n_steps for trace in self.items)
        return np.stack([align(trace.states(layer), length, rule=rule) for trace in self.items])

    @property
    def fingerprint(self) -> Fingerprint:
        """The one fingerprint of all traces.

        Raises:
            InputError: there are no traces.
            FingerprintError: the traces are of different runs.
        """
        if not self.items:
            raise InputError("No traces: the list is empty. Trace some prompts first.")
        first = self.items[0].fingerprint
        for trace in self.items[1:]:
            first.require(
                trace.fingerprint,
                what="Traces of different runs",
                fix="Keep each run's traces apart.",
            )
        return first


def digest(value: Any, *, length: int = 16) -> str:
    """Hash plain data (JSON types, tuples) into a hexadecimal name of ``length`` characters."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
