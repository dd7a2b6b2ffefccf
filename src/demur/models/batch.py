"""Prompts as a model reads them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from demur.errors import InputError


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
