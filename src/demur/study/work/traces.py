"""Cells that make traces: attack the prompts if asked, generate, or pool the states another way.

Another pooling needs no other generation from a causal model: one pass over each text gives its states
again. Other models generate again, because their states depend on what was masked at each step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from demur import cluster
from demur.adapters.hidden_states import from_hidden_states
from demur.attacks import attack_from
from demur.models.base import LanguageModel
from demur.runs import run_of, trace_to
from demur.sampling import Sampler, sampler_with, spec
from demur.sampling.autoregressive import with_prefill
from demur.store import Store, writing
from demur.study.engine.cells import UNKEYED, ArmCell, Subject, keyed_by
from demur.study.engine.workspace import Workspace
from demur.study.plan.arms import Arm, token_by_token
from demur.study.plan.prompt_sets import StudySet
from demur.types import Fingerprint, Prompt, Trace, Traces

#: An attack costs about this many generations. A search scores some hundred first steps.
_ATTACKS = 4


@dataclass(frozen=True)
class AttackedPrompts:
    """The prompts of a set after its attack."""

    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class TracedRun:
    """How many traces the cell's run folder ``run`` has, and what made them."""

    traces: int
    fingerprint: Fingerprint


@dataclass(frozen=True, kw_only=True)
class AttackCell(ArmCell[AttackedPrompts]):
    """Attack the prompts of a set. The target is the arm's model under its sampler."""

    kind = "attack"

    arm: Arm = field(metadata=keyed_by(lambda arm: [arm.identity, arm.sampler]))
    chosen: StudySet
    seed: int

    @property
    def name(self) -> str:
        return f"{(self.chosen.attack or {})['name']} on {self.arm.model}"

    @property
    def units(self) -> int:
        return len(self.chosen.prompts)

    @property
    def pace(self) -> float:
        return _ATTACKS * self.arm.pace

    def run(self, workspace: Workspace) -> AttackedPrompts:
        target = target_of(self.arm, workspace.model(self.arm))
        return AttackedPrompts(tuple(attacked(self.chosen, target, seed=self.seed)))


@dataclass(frozen=True, kw_only=True)
class RunCell(ArmCell[TracedRun]):
    """A cell that holds the traces of one set under one arm in a run folder ``run``."""

    kind = "traces"

    chosen: StudySet
    batch_size: int = field(metadata=UNKEYED)

    @property
    def subject(self) -> Subject:
        return Subject(arm=self.arm.name, set=self.chosen.name)

    @property
    def units(self) -> int:
        return len(self.chosen.prompts)

    @property
    def pace(self) -> float:
        return self.arm.pace


@dataclass(frozen=True, kw_only=True)
class TraceCell(RunCell):
    """Trace a set."""

    attack: AttackCell | None
    seed: int

    def run(self, workspace: Workspace) -> TracedRun:
        arm, prompts = self.arm, self.chosen.prompts
        if self.attack is not None:
            prompts = workspace.result(self.attack).prompts
        if workspace.ray is not None:
            store = cluster.trace_to(
                workspace.path / "run",
                arm.location,
                prompts,
                address=workspace.ray.address,
                workers=workspace.ray.workers,
                options=dict(arm.options),
                sampler=arm.sampler,
                record=arm.record(self.seed),
                batch_size=self.batch_size,
                progress=workspace.advance,
            )
        else:
            store = _traced(workspace, arm, prompts, batch_size=self.batch_size, seed=self.seed)
        return TracedRun(len(store), store.manifest.fingerprint)


@dataclass(frozen=True, kw_only=True)
class PooledCell(RunCell):
    """Pool the states of the main arm's traces another way."""

    traced: TraceCell

    @property
    def pace(self) -> float:
        return 0.001 if token_by_token(self.arm.sampler) else self.arm.pace

    def run(self, workspace: Workspace) -> TracedRun:
        arm, model = self.arm, workspace.model(self.arm)
        before = Store.open(workspace.at(self.traced) / "run")
        traces, seed = Traces(tuple(before.traces())), before.manifest.seed
        prompts = [trace.prompt for trace in traces]
        assert arm.pooling is not None, "the graph gives these arms a pooling"
        if model.traits.attention != "causal":
            store = _traced(workspace, arm, prompts, batch_size=self.batch_size, seed=seed)
            return TracedRun(len(store), store.manifest.fingerprint)
        mark = replace(traces.fingerprint, pooling=arm.pooling)
        run = run_of(mark, prompts, arm.record(seed), shard_rows=self.batch_size)
        with writing(workspace.path / "run", run) as writer:
            for window in run.windows():
                places = run.places(window)
                if not writer.done(window):
                    part = traces[places.start : places.stop]
                    writer.add(window, list(places), pooled_again(model, part, mark, arm.layers))
                writer.seal(window)
                workspace.advance(len(places))
        return TracedRun(len(traces), mark)


def attacked(chosen: StudySet, target: LanguageModel, *, seed: int) -> list[Prompt]:
    """The prompts of a set after its attack on a target."""
    assert chosen.attack is not None, "the graph attacks sets that name an attack"
    return attack_from(chosen.attack)(chosen.prompts, target=target, seed=seed)


def sampler_of(arm: Arm, model: LanguageModel) -> Sampler:
    """The model's default sampler with the arm's changes, or the sampler that the arm names."""
    return sampler_with(model.traits.sampler, arm.sampler)


def target_of(arm: Arm, model: LanguageModel) -> LanguageModel:
    """The model as attacks see it: with the arm's sampler as its default."""
    traits = replace(model.traits, sampler=spec(sampler_of(arm, model)))
    return replace(model, traits=traits)


@torch.inference_mode()
def pooled_again(
    model: LanguageModel, traces: Traces, mark: Fingerprint, layers: tuple[str, ...]
) -> list[Trace]:
    """Traces of a causal model with states of another pooling, from one pass over each text.

    Args:
        model: the model that wrote them.
        traces: the traces.
        mark: their fingerprint with the new pooling: ``running``, ``generated`` or ``content``.
        layers: layers to pool.

    Raises:
        InputError: a pooling of masked positions.
    """
    batch = with_prefill(model, model.encode([trace.prompt for trace in traces]))
    written = [trace.committed[-1][trace.committed[-1] >= 0].tolist() for trace in traces]
    longest = max(map(len, written))
    # Attention is causal, so the padding after a text changes nothing before it.
    tails = torch.tensor([row + [0] * (longest - len(row)) for row in written])
    tails = tails.to(batch.ids.device)
    seen = torch.cat([batch.attention, torch.ones_like(tails, dtype=torch.bool)], 1)
    states = model.states(torch.cat([batch.ids, tails], 1), seen, layers=("last", *layers))
    first = batch.ids.shape[1] - 1
    found = []
    for place, (trace, row) in enumerate(zip(traces, written, strict=True)):
        again = from_hidden_states(
            {layer: states[layer][place, first : first + len(row) + 1] for layer in layers},
            row,
            prompt=trace.prompt,
            response=trace.response,
            first=-1,
            pooling=mark.pooling,
            source=mark,
            end_ids=model.traits.end_ids,
        )
        found.append(replace(trace, phi=again.phi, fingerprint=mark))
    return found


def _traced(
    workspace: Workspace,
    arm: Arm,
    prompts: tuple[Prompt, ...] | list[Prompt],
    *,
    batch_size: int,
    seed: int,
) -> Store:
    model = workspace.model(arm)
    return trace_to(
        workspace.path / "run",
        model,
        prompts,
        sampler=sampler_of(arm, model),
        record=arm.record(seed),
        batch_size=batch_size,
        progress=workspace.advance,
    )
