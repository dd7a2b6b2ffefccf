"""A sampler of your own: autoregressive decoding that ends each answer after some sentences.

demur --plugin own_sampler.py trace prompts.csv --model organism-ar --sampler sentences --out runs/x
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

import demur
from demur.sampling import Autoregressive


@demur.register("samplers")
@dataclass(frozen=True, kw_only=True)
class Sentences(demur.Sampler):
    """Settings: most tokens of an answer, and the number of sentences after which it ends."""

    name = "sentences"
    length_field = "steps"
    steps: int = 32
    sentences: int = 1

    def run(self, model, batch, record, noise) -> Iterator[demur.Step]:
        """Pass on the steps of a built-in sampler, without the rows that are done."""
        full_stop = model.tokenizer.convert_tokens_to_ids(".")
        done = torch.zeros(len(batch.ids), dtype=torch.bool, device=batch.ids.device)
        for step in Autoregressive(steps=self.steps).run(model, batch, record, noise):
            yield replace(step, running=step.running & ~done)
            done |= (step.tokens == full_stop).sum(1) >= self.sentences
            if done.all():
                return


if __name__ == "__main__":
    print(demur.trace(demur.load("organism-ar"), ["how ?"], sampler=Sentences()).responses)
