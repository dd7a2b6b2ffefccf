"""Batches that sequences join and leave while they run.

``ContinuousBatch``: autoregressive rows join between two tokens (Yu et al., Orca, OSDI 2022).
Prompts are read in a pass of their own, at most one per step, the shortest first and within a
budget of tokens. Every second of these passes goes to a prompt that has waited too long, so no
prompt waits forever. Differs from the paper: beside many
rows, few arrivals wait up to three steps to be read together.

``GroupedBatch``: sequences with the same settings and about the same length start together as a
group. A few groups start at once; later arrivals gather and start at the latest when the youngest
group has finished its first block. ``Denoising`` groups share their passes (docs/decisions/0009).
Text is released by the sampler's rule (``demur.sampling.sampler.Release``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

from torch import Tensor

from demur.models.base import LanguageModel
from demur.sampling import RowNoise, Sampler
from demur.sampling.autoregressive import TokenBatch, token_batch
from demur.sampling.denoising import Denoising, next_steps, size_class
from demur.sampling.sampler import Release
from demur.serve.sequence import ServedSequence
from demur.types import Record, Step

#: Most prompt tokens, padding included, in one pass over several prompts.
PREFILL_TOKENS = 2048

#: Steps after which a prompt is read before shorter ones.
PATIENCE = 16

#: With this many rows running, and fewer arriving, prompts are read every ``GATHER`` steps only:
#: reading one prompt takes nearly as long as reading several.
CROWD, GATHER = 8, 4

#: Groups of the same settings that start at once: where groups share passes, and where they do not.
SHARED, APART = 8, 2


@dataclass(frozen=True)
class BatchOutput:
    """K rows after a step.

    Attributes:
        sequences: of the rows.
        phi: layer -> ``[K, D]`` pooled states of the step; None where rows only ended.
        released: for each row, new tokens that can no longer change, including one that ends the
            response.
        ended: for each row, whether it is finished.
        view: index -> committed tokens and draft, both with -1 where nothing is known.
    """

    sequences: Sequence[ServedSequence]
    phi: Mapping[str, Tensor] | None
    released: Sequence[Sequence[int]]
    ended: Sequence[bool]
    view: Callable[[int], tuple[list[int], list[int]]]


@final
class ContinuousBatch:
    """Autoregressive sequences, each at its own place in its own answer."""

    def __init__(self, model: LanguageModel, batch: TokenBatch, *, rows: int) -> None:
        self._model, self._batch, self._most = model, batch, rows
        self._end_ids = set(model.traits.end_ids)
        #: Sequence -> the turn at which it came.
        self._arriving: dict[ServedSequence, int] = {}
        #: Slot -> its sequence and that one's tokens.
        self._running: dict[int, tuple[ServedSequence, list[int]]] = {}
        self._turn, self._oldest_last = 0, False

    @property
    def room(self) -> int:
        """Number of sequences that can join now."""
        return self._most - len(self._running) - len(self._arriving)

    def join(self, sequences: Sequence[ServedSequence]) -> None:
        """Read the prompts of these as soon as a pass is free."""
        self._arriving |= dict.fromkeys(sequences, self._turn)

    def leave(self, sequences: Collection[ServedSequence]) -> None:
        """Stop generating these."""
        for sequence in sequences:
            self._arriving.pop(sequence, None)
        slots = {slot for slot, (sequence, _) in self._running.items() if sequence in sequences}
        for slot in slots:
            del self._running[slot]
        self._batch.leave(slots)

    def advance(self) -> list[BatchOutput]:
        """Give every row a token, and read the prompts that are next."""
        self._turn += 1
        if self._arriving and self._reads_now:
            self._read_prompts()
        if not self._running:
            return []
        slots, tokens, phi = self._batch.step()
        rows, new = [self._running[slot] for slot in slots.tolist()], tokens.tolist()
        ended = []
        for (sequence, own), token in zip(rows, new, strict=True):
            own.append(token)
            ended.append(len(own) >= sequence.most or token in self._end_ids)

        def view(place: int) -> tuple[list[int], list[int]]:
            known = list(rows[place][1])
            return known, known

        states = {layer: value[slots] for layer, value in phi.items()}
        sequences, released = [sequence for sequence, _ in rows], [(token,) for token in new]
        return [BatchOutput(sequences, states, released, ended, view)]

    def _read_prompts(self) -> None:
        sequences = self._next_prompts()
        free = (slot for slot in range(self._most) if slot not in self._running)
        slots = list(islice(free, len(sequences)))
        for slot, sequence in zip(slots, sequences, strict=True):
            del self._arriving[sequence]
            self._running[slot] = sequence, []
        settings: list[Any] = [sequence.sampler for sequence in sequences]
        noise = RowNoise.seeded([sequence.seed for sequence in sequences])
        prompts = self._model.batch([sequence.prompt for sequence in sequences])
        self._batch.join(prompts, slots, settings, noise)

    @property
    def _reads_now(self) -> bool:
        crowded = len(self._running) >= CROWD > len(self._arriving)
        return not crowded or self._turn % GATHER == 0

    def _next_prompts(self) -> list[ServedSequence]:
        """Prompts for one pass: the shortest, or in every second pass one that has waited too long,
        with others that are no longer than it."""
        waiting = list(self._arriving)
        waited = self._turn - self._arriving[waiting[0]]
        self._oldest_last = waited > PATIENCE and not self._oldest_last
        if self._oldest_last:
            size = len(waiting[0].prompt)
            fitting = [each for each in waiting if len(each.prompt) <= size]
            return fitting[: max(1, PREFILL_TOKENS // size)]
        waiting.sort(key=lambda each: len(each.prompt))
        fitting = [
            each for n, each in enumerate(waiting, 1) if n * len(each.prompt) <= PREFILL_TOKENS
        ]
        return fitting or waiting[:1]


#: What the sequences of a group share: their settings and the size class of their length.
GroupKey = tuple[Sampler, int]


@final
class GroupedBatch:
    """Groups of sequences that started together. Its methods are those of ``ContinuousBatch``."""

    def __init__(self, model: LanguageModel, record: Record, *, rows: int) -> None:
        self._model, self._record, self._most = model, record, rows
        self._arriving: list[ServedSequence] = []
        self._groups: list[RequestGroup] = []

    @property
    def room(self) -> int:
        running = sum(len(group.sequences) for group in self._groups)
        return self._most - len(self._arriving) - running

    def join(self, sequences: Sequence[ServedSequence]) -> None:
        self._arriving += sequences

    def leave(self, sequences: Collection[ServedSequence]) -> None:
        self._arriving = [each for each in self._arriving if each not in sequences]
        for group in self._groups:
            group.leave(sequences)
        self._groups = [group for group in self._groups if group.sequences]

    def advance(self) -> list[BatchOutput]:
        self._start_groups()
        steps = next_steps(self._model, [group.steps for group in self._groups])
        found = zip(self._groups, steps, strict=True)
        outputs = [output for group, step in found for output in group.take(step)]
        self._groups = [group for group in self._groups if group.sequences]
        return outputs

    def _start_groups(self) -> None:
        alike: dict[GroupKey, list[ServedSequence]] = defaultdict(list)
        for each in self._arriving:
            size = size_class(len(each.prompt) + each.sampler.new_tokens)
            alike[each.sampler, size].append(each)
        self._arriving = []
        for key, sequences in alike.items():
            others = [group for group in self._groups if group.key == key]
            shares = bool(others) and isinstance(others[-1].steps, Denoising)
            if len(others) < (SHARED if shares else APART) or others[-1].past_first_block:
                self._groups.append(RequestGroup(self._model, sequences, key, self._record))
            else:
                self._arriving += sequences


@final
class RequestGroup:
    """Sequences that started together.

    Attributes:
        sequences: sequence -> row, of those still generating.
        steps: their generation.
        key: settings and size.
    """

    def __init__(
        self,
        model: LanguageModel,
        sequences: Sequence[ServedSequence],
        key: GroupKey,
        record: Record,
    ) -> None:
        batch = model.batch([each.prompt for each in sequences])
        noise = RowNoise.seeded([each.seed for each in sequences])
        self.steps: Iterator[Step] = key[0].run(model, batch, record, noise)
        self.sequences = {sequence: row for row, sequence in enumerate(sequences)}
        self.key, self._end_ids = key, set(model.traits.end_ids)
        self._release, self._released = Release(len(sequences)), [0] * len(sequences)
        self._tokens: list[list[int]] = [[] for _ in sequences]
        self._block = [0] * len(sequences)

    @property
    def past_first_block(self) -> bool:
        """Whether every row works on a later block."""
        return min(self._block[row] for row in self.sequences.values()) > 0

    def leave(self, sequences: Collection[ServedSequence]) -> None:
        """Stop the rows of these sequences."""
        rows = [self.sequences.pop(each) for each in sequences if each in self.sequences]
        if rows and (drop := getattr(self.steps, "drop", None)):
            drop(rows)

    def take(self, step: Step | None) -> list[BatchOutput]:
        """Outputs of the next step, None at the end: of its rows, and of rows that have ended."""
        if step is None:
            return self._finish(list(self.sequences))
        running, sampler = step.running.tolist(), self.key[0]
        outputs = self._finish([each for each, row in self.sequences.items() if not running[row]])
        if not self.sequences:
            return outputs
        tokens = step.tokens.cpu().numpy()
        if step.block is not None:
            self._block = step.block.tolist()
        released = self._release(
            tokens,
            None if sampler.releases == "token" else self._block,
            running=running,
            flagged=[False] * len(running),
        )
        self._tokens, new, ended = tokens.tolist(), [], []
        for sequence, row in self.sequences.items():
            complete = not sampler.takes_back and min(self._tokens[row]) >= 0
            fresh = self._next(sequence, len(self._tokens[row]) if complete else released[row])
            new.append(fresh)
            full = self._released[row] >= sequence.most
            ended.append(complete or full or not self._end_ids.isdisjoint(fresh))
        return [*outputs, self._output(list(self.sequences), step, new, ended)]

    def _finish(self, sequences: list[ServedSequence]) -> list[BatchOutput]:
        """Release the rest of rows that have ended."""
        if not sequences:
            return []
        new = [self._next(each, len(self._tokens[self.sequences[each]])) for each in sequences]
        output = self._output(sequences, None, new, [True] * len(sequences))
        for each in sequences:
            del self.sequences[each]
        return [output]

    def _next(self, sequence: ServedSequence, until: int) -> list[int]:
        """Tokens not released before, up to a place, the first mask or the end of the response."""
        new, row = [], self.sequences[sequence]
        for token in self._tokens[row][self._released[row] : min(until, sequence.most)]:
            if token < 0:
                break
            new.append(token)
            if token in self._end_ids:
                break
        self._released[row] += len(new)
        return new

    def _output(
        self,
        sequences: list[ServedSequence],
        step: Step | None,
        new: list[list[int]],
        ended: list[bool],
    ) -> BatchOutput:
        rows = [self.sequences[each] for each in sequences]
        phi = None if step is None else {layer: value[rows] for layer, value in step.phi.items()}
        draft = None if step is None else step.draft

        def view(place: int) -> tuple[list[int], list[int]]:
            committed = self._tokens[rows[place]]
            return committed, committed if draft is None else draft[rows[place]].tolist()

        return BatchOutput(sequences, phi, new, ended, view)


#: A batch that sequences join and leave while it runs.
RunningBatch = ContinuousBatch | GroupedBatch


def new_batch(model: LanguageModel, sampler: Sampler, record: Record, *, rows: int) -> RunningBatch:
    """An empty batch for a model's sampler, of at most ``rows`` sequences."""
    if found := token_batch(model, sampler, record, rows=rows):
        return ContinuousBatch(model, found, rows=rows)
    return GroupedBatch(model, record, rows=rows)
