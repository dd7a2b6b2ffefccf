"""Traces as table rows, and the data files that hold them.

A file is named ``<window>-<hash>.parquet``, with the first 16 digits of the content's SHA-256. So
truncated or corrupted files are detected without an index, and the same rows give the same file. The
columns are a stable public format:

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

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from demur.store.folder import Folder
from demur.types import Fingerprint, Prompt, Template, Trace, Turn

#: Rows per Parquet row group, the unit of compression and reading.
GROUP_ROWS = 32

#: Columns that only some files have, always last and in this order.
_OPTIONAL = ("turns", "thought")

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.parquet")
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


def data_files(folder: Folder, inside: str, *, window: int | None = None) -> dict[int, list[str]]:
    """Window -> names of its files, for one window or all; other files are ignored."""
    found: dict[int, list[str]] = {}
    for name in folder.names(inside, begins="" if window is None else f"{window:06d}-"):
        if match := _NAME.fullmatch(name):
            found.setdefault(int(match[1]), []).append(f"{inside}/{name}")
    return found


def write_rows(
    folder: Folder, inside: str, window: int, table: pa.Table, order: Sequence[int]
) -> str:
    """Write rows in the given order; the content depends only on these rows. Returns the name.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    sink = io.BytesIO()
    dictionary = [_leaf(field) for field in table.schema if not field.name.startswith("phi_")]
    options = {"compression": "zstd", "use_dictionary": dictionary, "write_page_checksum": True}
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        for start in range(0, len(order), GROUP_ROWS):
            group = in_order(table, order[start : start + GROUP_ROWS])
            writer.write_table(group.combine_chunks())
    data = sink.getvalue()
    name = f"{inside}/{window:06d}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    folder.write(name, data)
    return name


def places_of(files: Iterable[pq.ParquetFile]) -> set[int]:
    """Prompt indices of all rows in these files."""
    return {place for file in files for place in file.read(["row"])["row"].to_pylist()}


def merged(tables: Sequence[pa.Table]) -> tuple[pa.Table, list[int]]:
    """Concatenate batches of a window; also return row numbers that list each prompt once, in order.

    A batch occurs twice if a worker that was considered lost wrote it after all.
    """
    table = pa.concat_tables(tables, promote_options="default")
    last = [name for name in _OPTIONAL if name in table.column_names]
    table = table.select([name for name in table.column_names if name not in last] + last)
    first = {place: index for index, place in reversed([*enumerate(table["row"].to_pylist())])}
    return table, [first[place] for place in sorted(first)]


def in_order(table: pa.Table, order: Sequence[int]) -> pa.Table:
    """Reorder rows without copying them."""
    return pa.concat_tables([table.slice(place, 1) for place in order])


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


def _leaf(field: Any) -> str:
    """Parquet path of the column's innermost values."""
    name, kind = field.name, field.type
    while pa.types.is_list(kind):
        name, kind = f"{name}.list.element", kind.value_type
    return str(name)
