"""DiffusionGemma: an encoder reads the text so far, a decoder denoises the next canvas given it.

The class is transformers' own (5.11 and later). It has no mask token: a canvas begins as uniform
noise. Settings: the checkpoint's generation config, one canvas.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.errors import InputError, ModelError
from demur.models.base import Batch, LanguageModel, Traits, cache_keyword
from demur.models.checkpoint import Checkpoint
from demur.models.tokens import end_ids, load_tokenizer
from demur.models.weights import load_native

NAME = "diffusion_gemma"
EXAMPLES = "diffusiongemma-26B-A4B-it"
TESTED = "drafts, tokens and states of its own generate, tiny weights"


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether the config is DiffusionGemma's."""
    return config.get("model_type") == "diffusion_gemma"


def load(checkpoint: Checkpoint) -> LanguageModel:
    """Load with the native class.

    Raises:
        ModelError: transformers is too old to have it.
    """
    try:
        from transformers import DiffusionGemmaForBlockDiffusion
    except ImportError as error:
        from transformers import __version__

        raise ModelError(
            f"{checkpoint.name} is a DiffusionGemma; transformers {__version__} does not have it, "
            "5.11 and later do. Run: pip install -U 'transformers>=5.11'"
        ) from error
    tokenizer = load_tokenizer(checkpoint)
    net = load_native(checkpoint, DiffusionGemmaForBlockDiffusion)
    traits = Traits(
        family=NAME,
        attention="canvas",
        end_ids=end_ids(tokenizer, net),
        sampler=checkpoint.card.get("sampler", _sampler(net)),
        pooling="response",
        shift=False,
        final_norm="decoder.norm",
    )
    name, revision = checkpoint.name, checkpoint.revision
    return LanguageModel(name, revision, net, tokenizer, traits, logits_of=logits)


def _sampler(net: Any) -> dict[str, Any]:
    """The canvas sampler with the settings of the config and the generation config."""
    said = net.generation_config
    settings = {
        "gen_length": net.config.canvas_length,
        "canvas_length": net.config.canvas_length,
        "canvas_steps": said.max_denoising_steps,
        "entropy_bound": getattr(said.sampler_config, "entropy_bound", None),
        "t_min": said.t_min,
        "t_max": said.t_max,
        "stability": said.stability_threshold,
        "confidence": said.confidence_threshold,
    }
    return {"name": "canvas"} | {k: v for k, v in settings.items() if v is not None}


def logits(net: Any, states: Tensor) -> Tensor:
    """Soft-capped logits in float32, ``[..., D] -> [..., V]``."""
    cap: float = net.final_logit_softcapping
    raw: Tensor = net.lm_head(states)
    return torch.tanh(raw.float() / cap) * cap


@final
class CanvasContext:
    """The tokens before a canvas, each read once by the encoder, and the decoder that attends to them.

    Padding is on the left; positions count from each row's first token.
    """

    def __init__(self, model: LanguageModel, batch: Batch) -> None:
        """Read the prompts.

        Raises:
            InputError: the model has no canvas.
        """
        from transformers import DynamicCache

        if model.traits.attention != "canvas":
            raise InputError(
                f"{model.name} does not denoise a canvas (its attention is "
                f"{model.traits.attention}). Use its own sampler: {model.traits.sampler['name']}."
            )
        self._model = model
        self._cache = DynamicCache(config=model.net.config.get_text_config(decoder=True))
        self._attention = batch.attention
        self._encode(batch.ids, (batch.attention.long().cumsum(1) - 1).clamp(min=0))

    def append(self, tokens: Tensor) -> None:
        """Read ``[B, C]`` tokens of a finished canvas."""
        positions = self._next(tokens.shape[1])
        self._attention = F.pad(self._attention, (0, tokens.shape[1]), value=True)
        self._encode(tokens, positions)

    def only(self, rows: Tensor) -> CanvasContext:
        """The same for some rows (``[K]`` indices)."""
        kept = copy.copy(self)
        kept._cache = copy.copy(self._cache)
        kept._cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        kept._cache.batch_select_indices(rows)
        kept._attention = self._attention[rows]
        return kept

    def read(
        self, canvas: Tensor, conditioning: Tensor | None, layers: Sequence[str]
    ) -> dict[str, Tensor]:
        """States of a canvas.

        Args:
            canvas: ``[B, C]`` tokens.
            conditioning: ``[B, C, V]`` logits of the step before, None at the first step.
            layers: as for ``LanguageModel.states``.

        Returns:
            layer -> ``[B, C, D]`` of the decoder.
        """
        decoder = self._model.net.model.decoder
        length = canvas.shape[1]
        if conditioning is not None:
            conditioning = conditioning.to(decoder.embed_tokens.weight.dtype)
        with self._model.captured(layers) as captured:
            output = decoder(
                decoder_input_ids=canvas,
                self_conditioning_logits=conditioning,
                decoder_attention_mask=F.pad(self._attention, (0, length), value=True),
                decoder_position_ids=self._next(length),
                **{cache_keyword(type(decoder).forward): self._cache},
            )
        captured["last"] = output.last_hidden_state
        return {layer: captured[layer] for layer in layers}

    def _next(self, length: int) -> Tensor:
        """``[B, length]`` positions after the tokens that were read."""
        columns = torch.arange(length, device=self._attention.device)
        return self._attention.long().sum(1, keepdim=True) + columns

    def _encode(self, ids: Tensor, positions: Tensor) -> None:
        reader = self._model.net.model.encoder.language_model
        reader(
            input_ids=ids,
            attention_mask=self._attention,
            position_ids=positions,
            **{cache_keyword(type(reader).forward): self._cache},
        )
