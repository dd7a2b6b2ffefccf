"""What every model family offers: a prompt in, states and logits out.

A family file says how its checkpoints become a native transformers model and declares its
``Traits``; everything else here is shared by all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor, nn

from demur.errors import InputError, ModelError
from demur.models.batch import Batch
from demur.models.chat import Chat
from demur.models.traits import Traits
from demur.types import Prompt

#: The paper's system prompt (section 3.1, anchors).
SYSTEM_PROMPT = "You are a helpful assistant"


@final
@dataclass(frozen=True)
class LanguageModel:
    """A loaded model: a transformers network, its tokenizer and its family's traits."""

    name: str
    revision: str
    net: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    traits: Traits
    system: str = SYSTEM_PROMPT
    logits_of: Callable[[Any, Tensor], Tensor] | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        device: torch.device = self.net.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> str:
        """Dtype of the weights, such as ``float32``, and the bits of those that have fewer."""
        dtype = str(self.net.get_input_embeddings().weight.dtype).removeprefix("torch.")
        fewer = [bits for bits in (4, 8) if getattr(self.net, f"is_loaded_in_{bits}bit", False)]
        return f"{dtype}, {fewer[0]} bits" if fewer else dtype

    @property
    def context_length(self) -> int:
        """Most positions, prompt and response together, that the model was made for."""
        config = self.net.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or 2**31)

    @property
    def body(self) -> Any:
        """The language network without its head, out of what may hold other modalities too."""
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

        No token is added beyond the template's own, and special-token text inside a prompt is read
        as plain text, never as control.

        Raises:
            InputError: a prompt is longer than the model's context, or needs a mask token that the
                model does not have.
        """
        rows = [self.chat.ids(prompt, mask_id=self.traits.mask_id) for prompt in prompts]
        responses = tuple(tuple(self.chat.template_ids(p.response or ())) for p in prompts)
        return replace(self.batch(rows), responses=responses)

    def batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Prompts that are token ids already, padded on the left, their responses free."""
        longest = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        fill = pad if pad is not None else (self.traits.end_ids or (0,))[0]
        ids = torch.full((len(rows), longest), fill, dtype=torch.long)
        attention = torch.zeros((len(rows), longest), dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, longest - len(row) :] = torch.tensor(row)
            attention[index, longest - len(row) :] = True
        return Batch(ids.to(self.device), attention.to(self.device), tuple(() for _ in rows))

    def check_fits(self, prompt: Prompt, *, new_tokens: int) -> int:
        """Number of tokens before the first that is generated.

        Raises:
            InputError: prompt and response together exceed the model's context.
        """
        length = len(self.chat.ids(prompt, mask_id=self.traits.mask_id))
        if self.traits.attention == "causal":
            # What a response begins with is read like a prompt; elsewhere it is part of new_tokens.
            fixed = self.chat.template_ids(prompt.response or ())
            length += max((i + 1 for i, token in enumerate(fixed) if token >= 0), default=0)
        if length + new_tokens > self.context_length:
            raise InputError(
                f"Prompt {prompt.id} has {length:,} tokens; with {new_tokens} to generate that is "
                f"more than {self.name} can read ({self.context_length:,}). Shorten or remove it."
            )
        return length

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of token ids, special tokens left out unless asked for."""
        text: str = self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=not special)
        return text

    @property
    def chat(self) -> Chat:
        """What puts a prompt into the model's chat template."""
        return Chat(self.name, self.tokenizer, self.system, self.traits.template)

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
            attention: ``[B, K]`` bool over cached and new positions, None when nothing is padded; or
                ``[B, 1, S, K]`` bool, the attention itself (block models take no other).
            layers: ``last`` (after the final norm), ``first``, ``middle`` or a block's number.
            positions: ``[B, S]`` position ids; counted from the first real token when None.
            cache: a transformers cache to read and extend.

        Returns:
            layer -> ``[B, S, D]`` in the model's dtype.
        """
        if positions is None and attention is not None and attention.ndim == 2:
            positions = (attention.long().cumsum(1) - 1).clamp(min=0)
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
        """Keep what the decoder blocks behind these layers give while the network runs."""
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
        """A bool mask ``[B, 1, S, K]`` as the attention implementation takes it.

        Raises:
            ModelError: one that takes no mask of its own shape.
        """
        kind = self.net.config._attn_implementation
        if kind == "sdpa":
            return mask
        if kind != "eager":
            raise ModelError(
                f"{self.name} looks to both sides, which the attention implementation {kind!r} "
                "cannot be told. Load it with attention='sdpa'."
            )
        dtype = self.net.get_input_embeddings().weight.dtype
        closed = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return closed.masked_fill(~mask, torch.finfo(dtype).min)


@lru_cache
def cache_keyword(forward: Callable[..., Any]) -> str:
    """What a network's ``forward`` calls its cache: ``past_key_values`` until transformers 5.24."""
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
