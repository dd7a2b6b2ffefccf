"""Autoregressive generation that requests join and leave between two tokens.

Yu et al., Orca: A Distributed Serving System for Transformer-Based Generative Models, OSDI 2022
(iteration-level scheduling):

    1. rows that are done or whose client has gone give up their place;
    2. rows that wait are read (prefill), the shortest prompts first and no more than a budget of tokens
       at a time; every second of these passes goes to a prompt that has waited too long, so that none
       waits for another's long prompt for more than one pass, and none for ever;
    3. every row gets one token, and with it the pooled state that was known before the token was.

Differs from the paper: prompts are read in a pass of their own, one pass a token at most, and where
many rows run a few that arrive wait up to three tokens for others to be read with. Tokens equal
those of ``demur.sampling.autoregressive`` with the row alone, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, RowNoise
from demur.sampling.autoregressive import choose
from demur.sampling.pooling import RunningMeans
from demur.serve.columns import Columns
from demur.serve.job import Job
from demur.serve.moment import Moment

#: Most prompt tokens, padding included, that one pass reads of several prompts.
PREFILL_TOKENS = 2048

#: Turns after which a prompt is read before shorter ones.
PATIENCE = 16

#: With this many rows running, and fewer arriving, prompts are read every ``GATHER`` turns only: a pass
#: that reads one prompt costs nearly as much as one that reads several.
CROWD, GATHER = 8, 4


@final
class Rolling:
    """The rows of a batch, each at its own place in its own answer.

    Args:
        model: an autoregressive model.
        layers: whose states are pooled.
        rows: most rows at a time.
    """

    def __init__(self, model: LanguageModel, *, layers: Sequence[str], rows: int) -> None:
        self._model, self._layers, self._most = model, tuple(layers), rows
        self._read = tuple(dict.fromkeys(["last", *layers]))
        self._arriving: list[tuple[int, Job]] = []
        self._jobs: list[Job] = []
        self._tokens: dict[Job, list[int]] = {}
        self._noise: dict[Job, torch.Generator] = {}
        self._drawing: dict[Job, Autoregressive] = {}
        self._places: dict[Job, int] = {}
        self._means, self._columns = RunningMeans(rows), Columns()
        self._turn, self._waited_last = 0, False

    @property
    def room(self) -> int:
        """How many jobs may join now."""
        return self._most - len(self._jobs) - len(self._arriving)

    def join(self, jobs: Sequence[Job]) -> None:
        """Read these as soon as a pass is free."""
        self._arriving += [(self._turn, job) for job in jobs]

    def leave(self, jobs: Sequence[Job]) -> None:
        """Give up the rows of these jobs."""
        self._arriving = [(turn, job) for turn, job in self._arriving if job not in jobs]
        for job in jobs:
            if job not in self._places:
                continue
            row = self._jobs.index(job)
            self._columns.remove(row)
            self._jobs[row] = self._jobs[-1]
            self._jobs.pop()
            for kept in (self._tokens, self._noise, self._drawing, self._places):
                del kept[job]

    def advance(self) -> list[Moment]:
        """Give every row a token, and read the prompts that are next."""
        self._turn += 1
        states = [self._continue()] if self._jobs else []
        if self._arriving and self._reads_now:
            states.append(self._prefill())
        if not states:
            return []
        merged = {layer: torch.cat([part[layer] for part in states]) for layer in self._read}
        new = self._choose(self._model.logits(merged["last"])).tolist()
        slots = torch.tensor([self._places[job] for job in self._jobs], device=self._model.device)
        counted = torch.ones_like(slots, dtype=torch.bool)
        means = self._means.add({k: merged[k] for k in self._layers}, slots, counted)
        jobs, ended = list(self._jobs), []
        for job, token in zip(jobs, new, strict=True):
            self._tokens[job].append(token)
            full = len(self._tokens[job]) >= job.most
            ended.append(full or token in self._model.traits.end_ids)
        phi = {layer: mean[slots] for layer, mean in means.items()}

        def view(place: int) -> tuple[list[int], list[int]]:
            said = list(self._tokens[jobs[place]])
            return said, said

        return [Moment(jobs, phi, [(token,) for token in new], ended, view)]

    def _continue(self) -> dict[str, Tensor]:
        """Read each row's last token: layer -> ``[B, D]``."""
        device = self._model.device
        last = torch.tensor([[self._tokens[job][-1]] for job in self._jobs], device=device)
        attention, positions = self._columns.places()
        states = self._model.states(
            last,
            None if attention is None else attention.to(device),
            layers=self._read,
            positions=positions.to(device),
            cache=self._columns,
        )
        self._columns.advance()
        return {layer: value[:, -1] for layer, value in states.items()}

    def _prefill(self) -> dict[str, Tensor]:
        """Read some prompts and give each a row: layer -> ``[K, D]``."""
        from transformers import DynamicCache

        jobs = self._next_prompts()
        self._arriving = [(turn, job) for turn, job in self._arriving if job not in jobs]
        batch, cache = self._model.batch([job.prompt for job in jobs]), DynamicCache()
        attention = batch.attention if batch.padded else None
        states = self._model.states(batch.ids, attention, layers=self._read, cache=cache)
        kept = [(layer.keys, layer.values) for layer in cache.layers]
        self._columns.append(kept, [len(job.prompt) for job in jobs])
        free = sorted(set(range(self._most)) - set(self._places.values()))
        for job, place in zip(jobs, free, strict=False):
            self._jobs.append(job)
            self._tokens[job], self._places[job] = [], place
            self._noise[job] = torch.Generator().manual_seed(job.seed)
            self._drawing[job] = _drawing(job)
        places = [self._places[job] for job in jobs]
        self._means.forget(torch.tensor(places, device=self._model.device))
        return {layer: value[:, -1] for layer, value in states.items()}

    @property
    def _reads_now(self) -> bool:
        crowded = len(self._jobs) >= CROWD > len(self._arriving)
        return not crowded or self._turn % GATHER == 0

    def _next_prompts(self) -> list[Job]:
        """Prompts for one pass, within the budget: the shortest, or in every second pass those that
        have waited too long, with others that are no longer than the first of them."""
        waiting = [job for _, job in self._arriving]
        turn, oldest = self._arriving[0]
        self._waited_last = self._turn - turn > PATIENCE and not self._waited_last
        if self._waited_last:
            size = len(oldest.prompt)
            fitting = [job for job in waiting if len(job.prompt) <= size]
            return fitting[: max(1, PREFILL_TOKENS // size)]
        waiting.sort(key=lambda job: len(job.prompt))
        fitting = [
            job for count, job in enumerate(waiting, 1) if count * len(job.prompt) <= PREFILL_TOKENS
        ]
        return fitting or waiting[:1]

    def _choose(self, logits: Tensor) -> Tensor:
        """``[B, V]`` logits -> ``[B]`` tokens, rows of the same settings together."""
        chosen = logits.argmax(-1)
        settings = [self._drawing[job] for job in self._jobs]
        for drawing in {each for each in settings if each.temperature}:
            rows = [row for row, own in enumerate(settings) if own == drawing]
            noise = RowNoise([self._noise[self._jobs[row]] for row in rows])
            chosen[rows] = choose(logits[rows], drawing, noise)
        return chosen


def _drawing(job: Job) -> Autoregressive:
    """The settings that a draw depends on."""
    assert isinstance(job.sampler, Autoregressive)
    return replace(job.sampler, steps=1)
