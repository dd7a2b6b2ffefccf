"""A trace as a table row. The columns are a stable public format:

| column | type | content |
|---|---|---|
| ``row`` | int64 | index in the prompt list, from 0 |
| ``id``, ``prompt``, ``attack``, ``goal``, ``label`` | string | the prompt (``demur.types.Prompt``) |
| ``response`` | string | decoded response |
| ``response_ids`` | list<int32> | response tokens, including the end token |
| ``n_steps`` | int32 | number of steps T |
| ``committed``, ``draft`` | list<list<int32>> | ``[T, R]`` token ids, -1 where none is committed |
| ``blocks`` | list<int32> | ``[T]`` block of each step |
| ``phi_<layer>`` | list<list<float>> | ``[T, D]`` pooled states, one column per layer |
| ``finish_reason`` | string | ``stop`` or ``length`` |
| ``filled_prompt`` | string | user turn with its masked slots filled |
| ``user_template``, ``response_template`` | string | the prompt's templates as JSON, or null |
| ``turns`` | string | earlier turns as JSON, or null; only in shards where a prompt has some |
| ``thought`` | list<bool> | ``[T]`` steps that are thought, or null; only in shards that have some |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from demur.types import Fingerprint, Prompt, Template, Trace, Turn

#: Columns that only some shards have, always last and in this order.
OPTIONAL = ("turns", "thought")

_TEXT = (
    *("id", "prompt", "attack", "goal", "label", "response", "finish_reason", "filled_prompt"),
    *("user_template", "response_template"),
)


def to_table(places: Sequence[int], traces: Sequence[Trace]) -> pa.Table:
    """Convert traces of the same layers to rows; ``places``: their indices in the prompt list."""
    prompts = [trace.prompt for trace in traces]
    columns = {
        "row": pa.array(places, pa.int64()),
        "id": _text([prompt.id for prompt in prompts]),
        "prompt": _text([prompt.text for prompt in prompts]),
        "attack": _text([prompt.attack for prompt in prompts]),
        "goal": _text([prompt.goal for prompt in prompts]),
        "label": _text([prompt.label for prompt in prompts]),
        "response": _text([trace.response for trace in traces]),
        "response_ids": _lists([trace.response_ids for trace in traces]),
        "n_steps": pa.array([trace.n_steps for trace in traces], pa.int32()),
        "committed": _matrices([trace.committed for trace in traces]),
        "draft": _matrices([trace.draft for trace in traces]),
        "blocks": _lists([trace.blocks for trace in traces]),
        "finish_reason": _text([trace.finish_reason for trace in traces]),
        "filled_prompt": _text([trace.filled_prompt for trace in traces]),
        "user_template": _text([_dump(prompt.user) for prompt in prompts]),
        "response_template": _text([_dump(prompt.response) for prompt in prompts]),
    }
    for layer in traces[0].phi:
        columns[f"phi_{layer}"] = _matrices([trace.phi[layer] for trace in traces])
    if any(prompt.turns for prompt in prompts):
        columns["turns"] = _text([_dump_turns(prompt) for prompt in prompts])
    if any(trace.thought is not None for trace in traces):
        kept = [None if t.thought is None else t.thought.tolist() for t in traces]
        columns["thought"] = pa.array(kept, pa.list_(pa.bool_()))
    return pa.table(columns)


def to_traces(table: pa.Table, fingerprint: Fingerprint) -> Iterator[Trace]:
    """Convert rows back to equal traces."""
    layers = [name.removeprefix("phi_") for name in table.column_names if name.startswith("phi_")]
    for batch in table.to_batches():
        names = [*_TEXT, *({"turns"} & {*batch.schema.names})]
        for index, text in enumerate(batch.select(names).to_pylist()):
            at = {name: batch.column(name)[index] for name in batch.schema.names}
            yield Trace(
                prompt=Prompt(
                    text["prompt"],
                    **{name: text[name] for name in ("id", "goal", "attack", "label")},
                    user=_load(text["user_template"]),
                    response=_load(text["response_template"]),
                    turns=tuple(Turn(**turn) for turn in json.loads(text.get("turns") or "[]")),
                ),
                response=text["response"],
                response_ids=_vector(at["response_ids"]),
                committed=_matrix(at["committed"]),
                draft=_matrix(at["draft"]),
                phi={layer: _matrix(at[f"phi_{layer}"]) for layer in layers},
                finish_reason=text["finish_reason"],
                blocks=_vector(at["blocks"]),
                fingerprint=fingerprint,
                filled_prompt=text["filled_prompt"],
                thought=_flags(at.get("thought")),
            )


def _text(values: Sequence[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def _lists(arrays: Sequence[NDArray[Any]]) -> pa.Array:
    """``[N]`` arrays, N may differ -> list<...>."""
    return pa.ListArray.from_arrays(_offsets([len(a) for a in arrays]), np.concatenate(arrays))


def _matrices(arrays: Sequence[NDArray[Any]]) -> pa.Array:
    """``[T, N]`` arrays -> list<list<...>>."""
    inner = [line for array in arrays for line in array]
    return pa.ListArray.from_arrays(_offsets([len(a) for a in arrays]), _lists(inner))


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _vector(scalar: Any) -> NDArray[Any]:
    return np.array(scalar.values)


def _matrix(scalar: Any) -> NDArray[Any]:
    return np.array(scalar.values.flatten()).reshape(len(scalar.values), -1)


def _flags(scalar: Any) -> NDArray[np.bool_] | None:
    found = None if scalar is None else scalar.as_py()
    return None if found is None else np.array(found, dtype=bool)


def _dump(template: Template | None) -> str | None:
    return None if template is None else json.dumps(template, ensure_ascii=False)


def _dump_turns(prompt: Prompt) -> str | None:
    return json.dumps([*map(asdict, prompt.turns)], ensure_ascii=False) if prompt.turns else None


def _load(text: str | None) -> Template | None:
    return None if text is None else tuple(json.loads(text))
