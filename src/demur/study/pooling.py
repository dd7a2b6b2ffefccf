"""Cells of another pooling: the same generations, their states averaged another way.

A causal model's states are made again from the tokens in one pass over each text; other models
generate again, because their states depend on what was masked at each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from demur.adapters.hidden_states import pooled
from demur.models.base import LanguageModel
from demur.runs import run_of, trace_to
from demur.sampling.autoregressive import with_prefill
from demur.store import Store, writing
from demur.study.cells import Cell, Desk
from demur.study.tracing import Arm, sampler_of
from demur.types import Fingerprint, Record, Trace, Traces

VERSION = 1


def pooled_cell(arm: Arm, traced: Cell, *, batch_size: int) -> Cell:
    """The traces of another arm's finished cell under this arm's pooling, in a run folder ``run``."""

    def work(desk: Desk) -> Mapping[str, Any]:
        model = desk.model(arm.location, arm.options)
        traces = Traces(tuple(Store.open(desk.at(traced) / "run").traces()))
        seed = Store.open(desk.at(traced) / "run").manifest.seed
        assert arm.pooling is not None, "the graph gives these arms a pooling"
        if model.traits.attention != "causal":
            store = trace_to(
                desk.path / "run",
                model,
                [trace.prompt for trace in traces],
                sampler=sampler_of(arm, model),
                record=Record(pooling=arm.pooling, layers=arm.layers, seed=seed),
                batch_size=batch_size,
                progress=desk.advance,
            )
            return {"traces": len(store), "fingerprint": asdict(store.manifest.fingerprint)}
        mark = replace(traces.fingerprint, pooling=arm.pooling)
        run = run_of(
            mark,
            [trace.prompt for trace in traces],
            Record(layers=arm.layers, seed=seed),
            shard_rows=batch_size,
        )
        with writing(desk.path / "run", run) as writer:
            for window in run.windows():
                places = run.places(window)
                if not writer.done(window):
                    part = traces[places.start : places.stop]
                    writer.add(window, list(places), pooled_again(model, part, mark, arm.layers))
                writer.seal(window)
                desk.advance(len(places))
        return {"traces": len(traces), "fingerprint": asdict(mark)}

    return Cell(
        kind="traces",
        name=f"{arm.name}, {traced.about['set']}",
        inputs=arm.inputs | {"pooled": VERSION},
        work=work,
        needs=(traced,),
        units=traced.units,
        pace=0.001 if arm.causal else arm.pace,
        arm=arm.name,
        about={**traced.about, "arm": arm.name},
    )


@torch.inference_mode()
def pooled_again(
    model: LanguageModel, traces: Traces, mark: Fingerprint, layers: tuple[str, ...]
) -> list[Trace]:
    """Traces of a causal model with states of another pooling, from one pass over each text.

    Args:
        model: the one that wrote them.
        traces: what it wrote.
        mark: their fingerprint with the pooling wanted: ``running``, ``generated`` or ``content``.
        layers: to pool.

    Raises:
        InputError: a pooling of masked positions.
    """
    batch = with_prefill(model, model.encode([trace.prompt for trace in traces]))
    said = [trace.committed[-1][trace.committed[-1] >= 0].tolist() for trace in traces]
    longest = max(map(len, said))
    # What stands behind a text is never seen by it.
    tails = torch.tensor([row + [0] * (longest - len(row)) for row in said]).to(batch.ids.device)
    seen = torch.cat([batch.attention, torch.ones_like(tails, dtype=torch.bool)], 1)
    ids = torch.cat([batch.ids, tails], 1)
    states = model.states(ids, seen, layers=("last", *layers))
    first = batch.ids.shape[1] - 1
    found = []
    for place, (trace, row) in enumerate(zip(traces, said, strict=True)):
        again = pooled(
            {layer: states[layer][place, first : first + len(row) + 1] for layer in layers},
            row,
            prompt=trace.prompt,
            response=trace.response,
            first=-1,
            fingerprint=mark,
            end_ids=model.traits.end_ids,
        )
        found.append(replace(trace, phi=again.phi, fingerprint=mark))
    return found
