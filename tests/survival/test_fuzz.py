"""Whatever bytes a file holds, reading it gives a value or one DemurError, and runs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from demur.anchors import import_anchors
from demur.errors import DemurError
from demur.guard import Guard, StreamingGuard
from demur.prompts import read_prompts
from demur.sri import Anchors
from demur.store import Store
from demur.study.plan.spec_file import read_study
from test_store import a_trace, write

MANY = settings(max_examples=50, deadline=None, derandomize=True, database=None)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def gives_a_value_or_one_error(read: Callable[[], object]) -> None:
    """Any other exception fails the test, and so does an error without a message."""
    try:
        read()
    except DemurError as error:
        if len(str(error)) < 20:
            pytest.fail(f"says too little: {error!r}")


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """The content cut, with bytes changed, or with bytes put in."""
    place = st.integers(0, len(content) - 1)
    return st.one_of(
        place.map(lambda end: content[:end]),
        st.tuples(place, st.binary(min_size=1, max_size=8)).map(
            lambda at: content[: at[0]] + at[1] + content[at[0] + len(at[1]) :]
        ),
        st.tuples(place, st.binary(min_size=1, max_size=8)).map(
            lambda at: content[: at[0]] + at[1] + content[at[0] :]
        ),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# ------------------------------------------------------------------ prompts

ROWS = {
    "csv": b'id,prompt,label\na,"w1, w2",harmless\nb,w3,harmful\n',
    "tsv": b"id\tprompt\na\tw1\n",
    "jsonl": b'{"id": 1, "prompt": "w1"}\n{"prompt": "w2", "response_template": ["w", 3]}\n',
}


@MANY
@given(st.data(), st.sampled_from([*ROWS]))
def test_prompt_files(folder: Path, data: st.DataObject, kind: str) -> None:
    path = folder / f"p.{kind}"
    path.write_bytes(data.draw(mutated(ROWS[kind])))
    gives_a_value_or_one_error(lambda: read_prompts(str(path)))


@MANY
@given(st.lists(st.fixed_dictionaries({"prompt": PLAIN}, optional={"id": PLAIN, "goal": PLAIN})))
def test_prompts_of_any_json(folder: Path, rows: list[Any]) -> None:
    path = folder / "p.json"
    path.write_text(json.dumps(rows))
    gives_a_value_or_one_error(lambda: read_prompts(str(path)))


def test_nesting_without_end(folder: Path) -> None:
    deep = "[" * 100_000
    for name in ("deep.json", "deep.jsonl"):
        (folder / name).write_text(deep)
        gives_a_value_or_one_error(lambda name=name: read_prompts(str(folder / name)))
    (folder / "deep").mkdir()
    (folder / "deep" / "manifest.json").write_text(deep)
    gives_a_value_or_one_error(lambda: Store.open(folder / "deep"))
    (folder / "deep.yaml").write_text(deep[:3000])
    gives_a_value_or_one_error(lambda: read_study(folder / "deep.yaml"))


# ------------------------------------------------------------------ run folders


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    write(folder / "run", [a_trace(i) for i in range(4)])
    return folder / "run"


@pytest.fixture(scope="module")
def manifest(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_bytes())
    return found


FIELDS = ["fingerprint", "layers", "seed", "prompts", "count", "shard_rows", "writers", "format"]


@MANY
@given(st.data())
def test_manifests(run: Path, manifest: dict[str, Any], data: st.DataObject) -> None:
    path = run / "manifest.json"
    change = data.draw(st.dictionaries(st.sampled_from(FIELDS), PLAIN, min_size=1))
    inside = data.draw(st.dictionaries(st.sampled_from([*manifest["fingerprint"]]), PLAIN))
    mark = {**manifest["fingerprint"], **inside}
    content = json.dumps({**manifest, "fingerprint": mark, **change}).encode()
    path.write_bytes(data.draw(st.just(content) | mutated(content)))
    try:
        gives_a_value_or_one_error(lambda: (len(Store.open(run)), list(Store.open(run).traces())))
    finally:
        path.write_text(json.dumps(manifest))


def reading(run: Path) -> None:
    store = Store.open(run)
    assert store.ids() is not None
    list(store.traces())


def forged(run: Path, table: pa.Table) -> Path:
    """A run with one shard whose name is the hash of a content that is none of ours."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content = sink.getvalue().to_pybytes()
    name = f"000000-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    (run / "traces").mkdir(parents=True, exist_ok=True)
    for old in (run / "traces").iterdir():
        old.unlink()
    (run / "traces" / name).write_bytes(content)
    return run


@pytest.mark.parametrize("column", ["row", "id", "draft", "blocks"])
@pytest.mark.parametrize("change", ["missing", "null", "text", "number"])
def test_shards_with_foreign_columns(
    run: Path, manifest: dict[str, Any], tmp_path: Path, column: str, change: str
) -> None:
    table = Store.open(run).read()
    place = table.column_names.index(column)
    values = {"null": None, "text": "x", "number": 7}
    if change == "missing":
        table = table.remove_column(place)
    else:
        foreign = pa.array([values[change]] * len(table))
        table = table.set_column(place, column, foreign)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    gives_a_value_or_one_error(lambda: reading(forged(tmp_path / "run", table)))


# ------------------------------------------------------------------ tensors

ABOUT: dict[str, Any] = {
    "layer": "last",
    "alignment": "repeat_last",
    "counts": [1, 1],
    "fingerprint": None,
}
KINDS: dict[str, Callable[[Path], object]] = {
    "anchors": Anchors.load,
    "guard": Guard.load,
    "streaming_guard": StreamingGuard.load,
}


@MANY
@given(st.data(), st.sampled_from([*KINDS]))
def test_saved_tensors(folder: Path, data: st.DataObject, kind: str) -> None:
    change = data.draw(st.dictionaries(st.sampled_from([*ABOUT, "threshold", "groups"]), PLAIN))
    about = data.draw(st.just({**ABOUT, **change}) | PLAIN)
    shape = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    names = data.draw(
        st.sets(st.sampled_from(["harmless", "harmful", "mean", "spread", "middle", "calibration"]))
    )
    arrays = {name: np.zeros(shape, np.float32) for name in names | {"harmless"}}
    header = {"format": f"demur.{kind}", "about": json.dumps(about)}
    content = save(arrays, metadata=header)
    path = folder / "t.safetensors"
    path.write_bytes(data.draw(st.just(content) | mutated(content)))
    gives_a_value_or_one_error(lambda: KINDS[kind](path))


@settings(parent=MANY, max_examples=30)
@given(st.data())
def test_released_anchors(folder: Path, data: st.DataObject) -> None:
    path = folder / "centers.pt"
    torch.save([torch.ones(2, 3), torch.zeros(2, 3)], path)
    path.write_bytes(data.draw(mutated(path.read_bytes())))
    gives_a_value_or_one_error(lambda: import_anchors(path))


# ------------------------------------------------------------------ studies

STUDY = b"""title: t
models: [{name: a, model: organism-ar}]
sets:
  anchors: [{source: 'organism:anchors/harmless', n: 2}]
  test: [{source: 'organism:test/harmful', n: 2}]
"""


@MANY
@given(mutated(STUDY))
def test_study_files(folder: Path, content: bytes) -> None:
    (folder / "s.yaml").write_bytes(content)
    gives_a_value_or_one_error(lambda: read_study(folder / "s.yaml"))


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch ran']",
        "!!python/name:os.system",
        "2024-13-45",
        "!!int x",
        "!!timestamp 9",
        "&a [*a]",
        "{[1]: 2}",
        "\x07",
    ],
)
def test_values_that_yaml_gives_a_meaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(f"{STUDY.decode()}note: {value}\n")
    with pytest.raises(DemurError):
        read_study("s.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]
