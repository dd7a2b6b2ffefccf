"""The model that every family returns: prompts in, states and logits out.

A family file says how its checkpoints become a native transformers model and declares its
``Traits``; the rest is shared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from demur.errors import InputError, ModelError
from demur.models.tokens import Chat
from demur.types import Prompt

#: The paper's system prompt (arXiv:2602.02600, section 3.1, anchors).
SYSTEM_PROMPT = "You are a helpful assistant"


@dataclass(frozen=True)
class Traits:
    """What a family declares about how its models generate.

    Attributes:
        family: name in the table of families.
        attention: the positions that a position may look at: those before it (``causal``), all
            (``bidirectional``), all up to the end of its own block (``block``), or all before a canvas
            and the whole canvas (``canvas``); ``encoder`` is all, for classes that need no mask for
            that and keep no cache.
        end_ids: tokens that end a response.
        mask_id: the mask token; None for autoregressive models.
        shift: whether the state at position j - 1 predicts token j, as in causal models and Dream.
        sampler: default sampler spec as plain data (arXiv:2602.02600, sections 3 and 6, unless the
            model's card says otherwise).
        pooling: default pooling of the states.
        template: arguments of the chat template.
        final_norm: module of ``LanguageModel.body`` whose output is the ``last`` states; None if that
            depends on the checkpoint's native class.
    """

    family: str
    attention: Literal["causal", "bidirectional", "encoder", "block", "canvas"]
    end_ids: tuple[int, ...]
    sampler: Mapping[str, Any]
    pooling: str
    mask_id: int | None = None
    shift: bool = True
    template: Mapping[str, Any] = field(default_factory=dict)
    final_norm: str | None = "norm"


@dataclass(frozen=True)
class Batch:
    """Encoded prompts, padded on the left.

    Attributes:
        ids: ``[B, P]`` int64 prompt tokens, with the mask id in masked slots.
        attention: ``[B, P]`` bool, False on padding.
        responses: one response template a row, -1 in masked slots; empty if the response is free.
    """

    ids: Tensor
    attention: Tensor
    responses: tuple[tuple[int, ...], ...]

    @property
    def padded(self) -> bool:
        """Whether any row has padding."""
        return not bool(self.attention.all())

    def fixed(self, gen_length: int) -> Tensor:
        """``[B, gen_length]`` fixed response tokens, -1 where free.

        Raises:
            InputError: a response template is longer.
        """
        found = self.ids.new_full((len(self.ids), gen_length), -1)
        for row, template in enumerate(self.responses):
            if len(template) > gen_length:
                raise InputError(
                    f"A response template of {len(template)} tokens does not fit gen_length "
                    f"{gen_length}. Raise gen_length."
                )
            found[row, : len(template)] = found.new_tensor(template)
        return found


@final
@dataclass(frozen=True)
class LanguageModel:
    """A loaded model: a transformers network, its tokenizer and its family's traits.

    Attributes:
        name: of the checkpoint, with the adapter's name appended.
        revision: identity of the weights, of the adapter and of the chat template's arguments.
        net: the transformers network.
        tokenizer: its tokenizer.
        traits: declared by the family.
        system: the system prompt; empty for none.
        logits_of: network and states -> logits, if the head is more than ``native_logits`` knows.
        template: arguments of the chat template, besides the family's.
        notes: findings at load that may change results.
    """

    name: str
    revision: str
    net: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    traits: Traits
    system: str = SYSTEM_PROMPT
    logits_of: Callable[[Any, Tensor], Tensor] | None = field(default=None, repr=False)
    template: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Device of the input embedding."""
        device: torch.device = self.net.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> str:
        """Dtype of the weights, such as ``float32``, and the bits of quantized ones."""
        dtype = str(self.net.get_input_embeddings().weight.dtype).removeprefix("torch.")
        fewer = [bits for bits in (4, 8) if getattr(self.net, f"is_loaded_in_{bits}bit", False)]
        return f"{dtype}, {fewer[0]} bits" if fewer else dtype

    @property
    def vocabulary(self) -> int:
        """Rows of the input embedding."""
        return int(self.net.get_input_embeddings().weight.shape[0])

    @cached_property
    def context_length(self) -> int:
        """Most positions, prompt and response together, whose numbers do not depend on the batch.

        LongRoPE changes its frequencies once the longest row of a batch passes the original length, and
        a row's numbers would then depend on its neighbours. So that length is the limit.
        """
        config = self.net.config.get_text_config()
        length = int(getattr(config, "max_position_embeddings", 0) or 2**31)
        return min(length, self.switching_length or length)

    @property
    def switching_length(self) -> int | None:
        """Tokens after which LongRoPE changes its frequencies; None without LongRoPE."""
        config = self.net.config.get_text_config()
        rope = (
            getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        )
        kinds = [rope, *(each for each in rope.values() if isinstance(each, Mapping))]
        for each in kinds:
            if each.get("rope_type", each.get("type")) in ("longrope", "su"):
                own = each.get("original_max_position_embeddings")
                length = own or getattr(config, "original_max_position_embeddings", None)
                return int(length) if length else None
        return None

    @cached_property
    def recurrent(self) -> Literal["", "some", "all"]:
        """Which layers carry a state from token to token, beside or instead of attention."""
        from transformers import DynamicCache

        layers = getattr(DynamicCache(config=self.net.config), "layers", [])
        if not any(hasattr(layer, "recurrent_states") for layer in layers):
            return ""
        return "some" if any(hasattr(layer, "update") for layer in layers) else "all"

    @property
    def body(self) -> Any:
        """The language network without its head, also of a multimodal model."""
        body = self.net.base_model
        body = self.net.model if body is self.net else body
        return getattr(body, "language_model", body)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder blocks."""
        body = getattr(self.body, "decoder", self.body)
        for name in ("layers", "h", "blocks"):
            if isinstance(found := getattr(body, name, None), nn.ModuleList):
                return found
        raise ModelError(f"{self.name}: the layers of {type(self.net).__name__} were not found.")

    # ------------------------------------------------------------------ text in, text out

    def encode(self, prompts: Sequence[Prompt]) -> Batch:
        """Render the chat template around each prompt and pad on the left.

        No token is added beyond the template's own. Text of control tokens inside a prompt is read as
        plain text.

        Raises:
            InputError: a prompt is longer than the model's context, or needs a mask token that the
                model does not have.
        """
        rows = [self.chat.ids(prompt, mask_id=self.traits.mask_id) for prompt in prompts]
        responses = tuple(tuple(self.chat.template_ids(p.response or ())) for p in prompts)
        return replace(self.batch(rows), responses=responses)

    def batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Pad rows of token ids on the left; their responses are free."""
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self._padding, dtype=torch.long)
        attention = torch.zeros((len(rows), longest), dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, longest - len(row) :] = torch.tensor(row)
            attention[index, longest - len(row) :] = True
        return Batch(ids.to(self.device), attention.to(self.device), tuple(() for _ in rows))

    @property
    def _padding(self) -> int:
        """A token that the embedding has; the tokenizer's pad token if it can be."""
        candidates: tuple[int | None, ...]
        candidates = (self.tokenizer.pad_token_id, *self.traits.end_ids, 0)
        return next(i for i in candidates if i is not None and 0 <= i < self.vocabulary)

    def check_fits(self, prompt: Prompt, *, new_tokens: int) -> int:
        """Number of tokens before the first generated one.

        Raises:
            InputError: prompt and response together exceed the model's context.
        """
        length = len(self.chat.ids(prompt, mask_id=self.traits.mask_id))
        if self.traits.attention == "causal":
            # The beginning of a response is read like a prompt here; elsewhere it is in new_tokens.
            fixed = self.chat.template_ids(prompt.response or ())
            length += max((i + 1 for i, token in enumerate(fixed) if token >= 0), default=0)
        if length + new_tokens > self.context_length:
            reason = ""
            if self.context_length == self.switching_length:
                reason = (
                    " Past that length its LongRoPE changes the frequencies of a whole batch, and the "
                    "answer would depend on the other prompts in it."
                )
            raise InputError(
                f"Prompt {prompt.id} has {length:,} tokens; with {new_tokens} to generate that is "
                f"more than {self.name} can read ({self.context_length:,}).{reason} Shorten or remove "
                "it."
            )
        return length

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of token ids, without special tokens unless asked for; marks of thoughts always stay."""
        return self.chat.text([int(i) for i in ids], special=special)

    @cached_property
    def chat(self) -> Chat:
        """Puts prompts into the model's chat template."""
        options = {**self.traits.template, **self.template}
        masks = () if self.traits.mask_id is None else (self.traits.mask_id,)
        controls = (*self.traits.end_ids, *masks)
        return Chat(self.name, self.tokenizer, self.system, options, controls)

    # ------------------------------------------------------------------ tensors in, tensors out

    def states(
        self,
        ids: Tensor,
        attention: Tensor | None,
        *,
        layers: Sequence[str] = ("last",),
        positions: Tensor | None = None,
        cache: Any = None,
    ) -> dict[str, Tensor]:
        """Hidden states of the layers asked for; no logits.

        Args:
            ids: ``[B, S]`` tokens.
            attention: ``[B, K]`` bool over cached and new positions, None if nothing is padded; or
                ``[B, 1, S, K]`` bool, the attention itself (the only form for block models).
            layers: ``last`` (after the final norm), ``first``, ``middle`` or a block's number.
            positions: ``[B, S]`` position ids; counted from the first real token if None.
            cache: a transformers cache to read and extend.

        Returns:
            layer -> ``[B, S, D]`` in the model's dtype.
        """
        if positions is None and attention is not None and attention.ndim == 2:
            positions = (attention.long().cumsum(1) - 1).clamp(min=0)
        if self.recurrent == "all":
            # No layer attends to cached columns, so the mask covers the new ones only.
            attention = None if attention is None else attention[:, -ids.shape[1] :]
        elif positions is None and attention is None and cache is not None:
            # Some native classes (Bamba) count from 0 even with a cache.
            begun = cache.get_seq_length()
            new = torch.arange(begun, begun + ids.shape[1], device=ids.device)[None]
            positions = new if begun else None
        caching = {cache_keyword(type(self.body).forward): cache, "use_cache": cache is not None}
        with self.captured(layers) as captured:
            output = self.body(
                input_ids=ids,
                attention_mask=self._mask(ids, attention),
                position_ids=positions,
                **({} if self.traits.attention == "encoder" else caching),
            )
        captured["last"] = output.last_hidden_state
        return {layer: captured[layer].to(ids.device) for layer in layers}

    @contextmanager
    def captured(self, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Keep the output of the decoder blocks behind these layers while the network runs."""
        found: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for layer in layers:
                if layer != "last":
                    block = self.layers[self.block_index(layer)]
                    handle = block.register_forward_hook(_keep(found, layer))
                    hooks.callback(handle.remove)
            yield found

    def logits(self, states: Tensor) -> Tensor:
        """Logits of final-norm states, ``[..., D] -> [..., V]``."""
        logits = (self.logits_of or native_logits)(self.net, states)
        return logits.to(states.device)

    def block_index(self, layer: str) -> int:
        """0-based decoder block behind a layer name.

        Raises:
            InputError: no such layer.
        """
        count = len(self.layers)
        named = {"first": 1, "middle": max(1, count // 2)}
        number = named.get(layer) or (int(layer) if layer.isdecimal() else 0)
        if not 1 <= number <= count:
            raise InputError(
                f"Unknown layer {layer!r}. {self.name} has last, first, middle or 1 to {count}."
            )
        return number - 1

    def _mask(self, ids: Tensor, attention: Tensor | None) -> Tensor | None:
        if self.traits.attention in ("causal", "encoder"):
            return None if attention is None else attention.long()
        if attention is not None and attention.ndim == 4:
            return self._open(attention)
        if self.traits.attention != "bidirectional":
            raise InputError(
                f"{self.name} is a {self.traits.attention} diffusion model. Use --sampler "
                f"{self.traits.attention}."
            )
        batch, length = ids.shape
        keys = attention if attention is not None else ids.new_ones(ids.shape, dtype=torch.bool)
        return self._open(keys[:, None, None, :].expand(batch, 1, length, keys.shape[1]))

    def _open(self, mask: Tensor) -> Tensor:
        """A bool mask ``[B, 1, S, K]`` in the form that the attention implementation takes.

        Raises:
            ModelError: it does not support the mask.
        """
        kind = self.net.config._attn_implementation
        if kind == "sdpa":
            return mask
        if kind != "eager":
            raise ModelError(
                f"{self.name} needs attention to both sides, which the implementation {kind!r} does "
                "not support here. Load it with attention='sdpa'."
            )
        dtype = self.net.get_input_embeddings().weight.dtype
        closed = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return closed.masked_fill(~mask, torch.finfo(dtype).min)


@lru_cache
def cache_keyword(forward: Callable[..., Any]) -> str:
    """Name of a network's cache argument: ``past_key_values`` before transformers 5.24."""
    asked = inspect.signature(forward).parameters
    return "cache" if "cache" in asked else "past_key_values"


def native_logits(net: Any, states: Tensor) -> Tensor:
    """Output embedding and the logit scaling that some native classes add to it."""
    config = net.config.get_text_config()
    logits: Tensor = net.get_output_embeddings()(states)
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    return logits


def _keep(captured: dict[str, Tensor], layer: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        captured[layer] = output[0] if isinstance(output, tuple) else output

    return hook
