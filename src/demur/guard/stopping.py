"""A guard inside ``transformers`` ``generate``: a stopping criterion and the hook that feeds it.

A ``StoppingCriteria`` gets no hidden states, so a forward hook keeps the state of the last position,
which produced the newest token. The criterion averages these states as the pooling ``running`` does
and asks the guard. ``generate`` appends a token before it calls the criterion, so the output contains
the token of a flagged step: drop it (``released`` counts the others). A streamer has already received
it; to hold tokens back use ``StreamingGuard.watch``.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria

from demur.errors import FingerprintError, InputError
from demur.guard.streaming import StreamingGuard
from demur.guard.watch import GuardReading
from demur.models.base import LanguageModel, Traits
from demur.models.checkpoint import find
from demur.sampling import known_samplers
from demur.sampling.pooling import RunningMeans

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def stopping(guard: StreamingGuard, model: LanguageModel | PreTrainedModel) -> Stopping:
    """Make the criterion for one call of ``generate``.

    The hook is removed with the criterion: pass it as
    ``generate(..., stopping_criteria=[demur.stopping(guard, model)])`` and keep no reference.
    The guard's false-positive rate holds for prompts in the chat template and with the system prompt
    that it was fitted with, decoded in the same way; ``generate`` does not say whether they are.

    Args:
        guard: fitted on autoregressive generations with the pooling ``running``.
        model: whose ``generate`` will be called, from ``demur.load`` or ``from_pretrained``.

    Raises:
        FingerprintError: a guard of another model, dtype, sampler or pooling.
    """
    known = model if isinstance(model, LanguageModel) else _described(model)
    mark = guard.fingerprint
    asked = {
        "model": (mark.model, known.name),
        "revision": (mark.revision, known.revision),
        "dtype": (mark.dtype, known.dtype),
        "pooling": (mark.pooling, "running"),
    }
    wrong = [f"{k}: {a!r} against {b!r}" for k, (a, b) in asked.items() if a != b]
    sampler = str(mark.sampler.get("name"))
    if sampler not in known_samplers() or known_samplers()[sampler].releases != "token":
        wrong.append(f"sampler: {sampler!r} does not generate token by token")
    if wrong:
        raise FingerprintError(
            f"This guard does not fit generate of this model: {'; '.join(wrong)}. Fit one: "
            "demur guard fit RUN --streaming --anchors FILE --out FILE."
        )
    return Stopping(guard, known)


@final
class Stopping(StoppingCriteria):  # type: ignore[misc, unused-ignore]
    """Ends the rows that the guard flags. Made by ``stopping``."""

    def __init__(self, guard: StreamingGuard, model: LanguageModel) -> None:
        self._guard = guard
        self._layer = guard.detector.layer
        pad = getattr(model.net.generation_config, "pad_token_id", None)
        self._end_ids = [*model.traits.end_ids, *([] if pad is None else [pad])]
        self._newest: list[Tensor] = []
        self._watcher = guard.watcher(0)
        self._seen: Tensor | None = None
        weakref.finalize(self, _listen(model, self._layer, self._newest).remove)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Read the newest step: ``[B, L]`` tokens so far -> ``[B]`` bool, the rows to end.

        Raises:
            InputError: beam search, assisted decoding, or a second call of ``generate``.
        """
        if not self._newest or len(self._newest[0]) != len(input_ids):
            raise InputError(_ONE_BY_ONE.format(f"{len(input_ids)} rows came without their states"))
        if self._seen is None:
            self._watcher = self._guard.watcher(len(input_ids))
            self._means = RunningMeans(len(input_ids))
            self._alive = torch.ones_like(input_ids[:, 0], dtype=torch.bool)
        elif not torch.equal(input_ids[:, :-1], self._seen):
            raise InputError(_ONE_BY_ONE.format("the rows differ from those of the step before"))
        self._seen = input_ids
        states, rows = self._newest.pop(), self._alive.nonzero()[:, 0]
        if len(rows):
            counted = torch.ones_like(rows, dtype=torch.bool)
            phi = self._means.add({self._layer: states[rows.to(states.device)]}, rows, counted)
            own = {layer: value[rows] for layer, value in phi.items()}
            self._watcher.observe(own, rows.tolist())
        ended = torch.isin(input_ids[:, -1], input_ids.new_tensor(self._end_ids))
        flagged = torch.tensor([r.flagged for r in self.readings], device=input_ids.device)
        self._alive &= ~ended & ~flagged
        return flagged

    @property
    def readings(self) -> list[GuardReading]:
        """What is known of every row."""
        return self._watcher.readings

    @property
    def released(self) -> list[int]:
        """Number of new tokens of every row that passed; the token of a flagged step did not."""
        return [reading.step - reading.flagged for reading in self.readings]


_ONE_BY_ONE = (
    "A guard follows rows token by token, but {}. Use neither beams nor an assistant, and a new "
    "demur.stopping(guard, model) for each call of generate."
)


def _listen(model: LanguageModel, layer: str, newest: list[Tensor]) -> Any:
    """Keep the last position's states ``[B, D]`` of each forward pass. Returns the hook's handle."""

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        states = output.last_hidden_state if layer == "last" else output
        newest[:] = [(states[0] if isinstance(states, tuple) else states)[:, -1].detach()]

    place = model.body if layer == "last" else model.layers[model.block_index(layer)]
    return place.register_forward_hook(keep)


def _described(net: PreTrainedModel) -> LanguageModel:
    """A network that transformers loaded, with what its checkpoint says."""
    checkpoint = find(net.name_or_path)
    end = net.generation_config.eos_token_id
    traits = Traits(
        family="causal",
        attention="causal",
        end_ids=tuple(end) if isinstance(end, list) else (end,) if end is not None else (),
        sampler={},
        pooling="running",
    )
    return LanguageModel(checkpoint.name, checkpoint.revision, net, None, traits)
