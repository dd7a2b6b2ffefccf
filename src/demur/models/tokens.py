"""A checkpoint's tokenizer, and the tokens that mean something to a sampler."""

from __future__ import annotations

from typing import Any

from demur.errors import ModelError
from demur.models.checkpoint import Checkpoint
from demur.models.faults import sentence
from demur.models.weights import quiet


def load_tokenizer(checkpoint: Checkpoint, *, native: str = "AutoTokenizer") -> Any:
    """Load the tokenizer, padded on the left.

    Args:
        checkpoint: where it is.
        native: the transformers class to load it with, for families whose config or tokenizer names
            remote code.

    Raises:
        ModelError: none there, or it has no chat template.
    """
    import transformers

    try:
        with quiet():
            tokenizer = getattr(transformers, native).from_pretrained(
                checkpoint.location,
                revision=checkpoint.hub_revision,
                trust_remote_code=False,
                padding_side="left",
            )
    except Exception as error:
        raise ModelError(
            f"Could not load the tokenizer of {checkpoint.name}: {sentence(error)} "
            "Check that its tokenizer files are in the folder."
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {checkpoint.name} has no chat template. Use the instruction-tuned "
            "checkpoint or put a chat_template.jinja beside it."
        )
    return tokenizer


def end_ids(tokenizer: Any, net: Any, *turn_ends: str | None) -> tuple[int, ...]:
    """Tokens that end a response: the generation config's, the tokenizer's and ends of a turn.

    ``turn_ends`` are token texts; those that the tokenizer does not know are left out.
    """
    ids: list[int] = []
    for source in (getattr(net, "generation_config", None), tokenizer):
        found = getattr(source, "eos_token_id", None)
        ids += found if isinstance(found, list | tuple) else [] if found is None else [found]
    turns = [tokenizer.convert_tokens_to_ids(text) for text in turn_ends if text]
    ids += [i for i in turns if i not in (None, tokenizer.unk_token_id)]
    return tuple(dict.fromkeys(int(i) for i in ids))


def mask_id(checkpoint: Checkpoint, tokenizer: Any, *, released: str) -> int:
    """The mask token that the config, else the tokenizer, names.

    Args:
        checkpoint: whose config may say ``mask_token_id``.
        tokenizer: its tokenizer.
        released: what the family's released checkpoints have, for the message.

    Raises:
        ModelError: neither does.
    """
    found = checkpoint.config.get("mask_token_id")
    if found is None:
        found = tokenizer.mask_token_id
    if not isinstance(found, int):
        raise ModelError(
            f"{checkpoint.name} is a masked diffusion model without a mask token: its config has "
            f"mask_token_id {checkpoint.config.get('mask_token_id')!r} and its tokenizer none. Add "
            f"mask_token_id to config.json ({released} in the released ones)."
        )
    return found
