"""Diffusion requests, generated in groups that begin together.

Requests of the same settings and of about the same length form a group. A few groups begin as requests
come; those that arrive then gather, and begin no later than when the youngest group has finished its
first block. Groups whose samplers ask for their passes (``demur.sampling.passes``) are read in one,
whatever their settings and however far each is (docs/decisions/0009). What may leave is text of
finished blocks alone: while a row works on a block, everything in it may still change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, final

from torch import Tensor

from demur.models.base import LanguageModel
from demur.sampling import Block, Canvas, Pooling, RowNoise, Sampler
from demur.sampling.passes import Passes, Sharing, next_steps, size_class
from demur.serve.job import Job
from demur.serve.moment import Moment
from demur.types import Record, Step

#: Groups of one kind that begin as requests come: of those that share their passes, where a group
#: costs its own decisions alone, and of those that take passes of their own.
SHARED, APART = 8, 2


class Kind(NamedTuple):
    """What the rows of a group have in common: their settings, and about how long they are."""

    sampler: Sampler
    size: int


@final
class Grouped:
    """Groups of rows of the same kind.

    Args:
        model: a diffusion model.
        layers: whose states are pooled.
        pooling: how.
        rows: most rows at a time.
    """

    def __init__(
        self, model: LanguageModel, *, layers: Sequence[str], pooling: Pooling, rows: int
    ) -> None:
        self._model, self._layers, self._pooling, self._most = model, tuple(layers), pooling, rows
        self._arriving: list[Job] = []
        self._groups: list[Group] = []

    @property
    def room(self) -> int:
        """How many jobs may join now."""
        return self._most - len(self._arriving) - sum(len(group.jobs) for group in self._groups)

    def join(self, jobs: Sequence[Job]) -> None:
        """Generate these with the next group."""
        self._arriving += jobs

    def leave(self, jobs: Sequence[Job]) -> None:
        """Give up the rows of these jobs."""
        self._arriving = [job for job in self._arriving if job not in jobs]
        for group in self._groups:
            for job in jobs:
                group.jobs.pop(job, None)
        self._groups = [group for group in self._groups if group.jobs]

    def advance(self) -> list[Moment]:
        """One denoising step of each group."""
        self._begin()
        steps = next_steps(
            self._model,
            [group.steps for group in self._groups],
            [group.left for group in self._groups],
        )
        told = zip(self._groups, steps, strict=True)
        moments = [moment for group, step in told for moment in group.take(step)]
        self._groups = [group for group in self._groups if group.jobs]
        return moments

    def _begin(self) -> None:
        """Make groups of those that arrived, where they may begin."""
        alike: dict[Kind, list[Job]] = defaultdict(list)
        for job in self._arriving:
            size = size_class(len(job.prompt) + job.sampler.new_tokens)
            alike[Kind(job.sampler, size)].append(job)
        self._arriving = []
        for kind, jobs in alike.items():
            others = [group for group in self._groups if group.kind == kind]
            most = SHARED if isinstance(kind.sampler, Sharing) else APART
            if len(others) < most or others[-1].past_first_block:
                self._groups.append(self._group(kind, jobs))
            else:
                self._arriving += jobs

    def _group(self, kind: Kind, jobs: list[Job]) -> Group:
        batch = self._model.batch([job.prompt for job in jobs])
        noise = RowNoise.seeded([job.seed for job in jobs])
        steps: Any
        if isinstance(kind.sampler, Sharing):
            steps = kind.sampler.passes(
                self._model, batch, layers=self._layers, pooling=self._pooling, noise=noise
            )
        else:
            record = Record(layers=self._layers, pooling=self._pooling.name)
            steps = kind.sampler.run(self._model, batch, record, noise)
        return Group(jobs, steps, kind, end_ids=self._model.traits.end_ids)


@final
class Group:
    """Rows that began together.

    Attributes:
        jobs: job -> row, of those still generating.
        steps: their generation.
        kind: of all of them.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        steps: Passes,
        kind: Kind,
        *,
        end_ids: Sequence[int],
    ) -> None:
        self.jobs, self.steps = {job: row for row, job in enumerate(jobs)}, steps
        self.kind, self._end_ids = kind, set(end_ids)
        self._takes_back = isinstance(kind.sampler, Canvas) or (
            isinstance(kind.sampler, Block) and kind.sampler.edit_threshold is not None
        )
        self._given = dict.fromkeys(jobs, 0)
        self._block = dict.fromkeys(jobs, 0)
        self._tokens: list[list[int]] = [[] for _ in jobs]

    @property
    def left(self) -> list[int]:
        """Rows without a job any more."""
        return sorted({*range(len(self._tokens))} - {*self.jobs.values()})

    @property
    def past_first_block(self) -> bool:
        """Whether every row works on a later block."""
        return min(self._block[job] for job in self.jobs) > 0

    def take(self, step: Step | None) -> list[Moment]:
        """What the next step gives: rows that took part in it, and rows that are over.

        Args:
            step: None when the generation has come to its end.
        """
        if step is None:
            return self._over(list(self.jobs))
        running = step.running.tolist()
        moments = self._over([job for job, row in self.jobs.items() if not running[row]])
        if not self.jobs:
            return moments
        before, self._tokens = self._tokens, step.tokens.tolist()
        blocks = [0] * len(running) if step.block is None else step.block.tolist()
        settled, ended = [], []
        for job, row in self.jobs.items():
            entered = blocks[row] > self._block[job]
            self._block[job] = blocks[row]
            whole = not self._takes_back and min(self._tokens[row]) >= 0
            known = self._tokens[row] if whole else before[row] if entered else []
            new = self._settle(job, known)
            settled.append(new)
            full = self._given[job] >= job.most
            ended.append(whole or full or not self._end_ids.isdisjoint(new))
        jobs = list(self.jobs)
        return [*moments, self._moment(jobs, step, settled, ended)]

    def _over(self, jobs: list[Job]) -> list[Moment]:
        """Rows that generate nothing more give what was not given yet."""
        if not jobs:
            return []
        settled = [self._settle(job, self._tokens[self.jobs[job]]) for job in jobs]
        moment = self._moment(jobs, None, settled, [True] * len(jobs))
        for job in jobs:
            del self.jobs[job]
        return [moment]

    def _settle(self, job: Job, known: list[int]) -> list[int]:
        """Tokens before the first mask that were not given before, up to the end of the response."""
        new = []
        for token in known[self._given[job] : job.most]:
            if token < 0:
                break
            new.append(token)
            if token in self._end_ids:
                break
        self._given[job] += len(new)
        return new

    def _moment(
        self, jobs: list[Job], step: Step | None, settled: list[list[int]], ended: list[bool]
    ) -> Moment:
        rows = [self.jobs[job] for job in jobs]
        phi = None if step is None else {layer: value[rows] for layer, value in step.phi.items()}
        draft: Tensor | None = None if step is None else step.draft

        def view(place: int) -> tuple[list[int], list[int]]:
            committed = self._tokens[rows[place]]
            return committed, committed if draft is None else draft[rows[place]].tolist()

        return Moment(jobs, phi, settled, ended, view)
