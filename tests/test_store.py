"""The store gives back what was put in, whoever reads it, and finds every damage."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import demur
from demur.errors import InputError, StoreError
from demur.models.base import LanguageModel
from demur.sampling import Masked
from demur.store import Store, writing
from demur.store.manifest import Manifest
from demur.store.rows import to_table, to_traces
from demur.types import Fingerprint, Prompt, Trace

MARK = Fingerprint("m", "r", {"name": "masked", "steps": 4}, "response", "be nice", "float32")


def a_trace(index: int, **prompt: Any) -> Trace:
    """A trace of random numbers; the index decides all of it."""
    dice = np.random.default_rng(index)
    steps, width = int(dice.integers(1, 6)), 7
    return Trace(
        prompt=Prompt(**{"text": f"ask {index}", "id": f"p{index}", "label": "harmless"} | prompt),
        response=f'answer {index} \n, "quoted" é 🦊',
        response_ids=dice.integers(0, 99, dice.integers(0, 8)).astype(np.int32),
        committed=dice.integers(-1, 99, (steps, width)).astype(np.int32),
        draft=dice.integers(0, 99, (steps, width)).astype(np.int32),
        phi={name: dice.normal(size=(steps, 5)).astype(np.float32) for name in ("last", "first")},
        finish_reason="stop" if index % 2 else "length",
        blocks=dice.integers(0, 3, steps).astype(np.int32),
        fingerprint=MARK,
        filled_prompt="filled" if index % 3 == 0 else "",
    )


def same(a: Trace, b: Trace) -> bool:
    """Whether two traces are equal, to the last bit and type."""
    plain = ("prompt", "response", "finish_reason", "fingerprint", "filled_prompt")
    arrays = ("response_ids", "committed", "draft", "blocks")
    pairs = [(getattr(a, n), getattr(b, n)) for n in arrays]
    pairs += [(a.phi[n], b.phi[n]) for n in {**a.phi, **b.phi}]
    return all(getattr(a, n) == getattr(b, n) for n in plain) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs
    )


def a_manifest(count: int, *, shard_rows: int = 4, **changed: Any) -> Manifest:
    made = Manifest(MARK, ("last", "first"), 0, "hash", count, shard_rows)
    return replace(made, **changed)


def write(folder: Path, traces: Sequence[Trace], *, batch: int = 3, shard_rows: int = 4) -> Store:
    """Write traces in batches, each window in a shuffled order."""
    manifest = a_manifest(len(traces), shard_rows=shard_rows)
    dice = random.Random(batch)
    with writing(folder, manifest) as writer:
        for window in range(-(-len(traces) // shard_rows)):
            places = sorted(set(manifest.places(window)) - writer.done(window))
            dice.shuffle(places)
            for start in range(0, len(places), batch):
                chosen = places[start : start + batch]
                writer.add(window, chosen, [traces[i] for i in chosen])
            writer.seal(window)
    return Store.open(folder)


def data(folder: Path) -> dict[str, bytes]:
    """Every data file's bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    return [a_trace(i) for i in range(10)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, traces: list[Trace]) -> Path:
    folder = tmp_path_factory.mktemp("store") / "run"
    write(folder, traces)
    return folder


def test_what_is_written_comes_back_equal_and_in_prompt_order(
    run: Path, traces: list[Trace]
) -> None:
    store = Store.open(run)
    assert len(store) == 10
    assert store.ids() == [t.prompt.id for t in traces]
    assert all(map(same, store.traces(), traces))
    assert store.manifest.sizes == {"last": 5, "first": 5}
    assert sorted(p.name for p in run.iterdir()) == [".lock", "manifest.json", "traces"]


def test_real_traces_come_back_equal(tiny_dlm: LanguageModel, tmp_path: Path) -> None:
    prompts = [
        Prompt("w1 w2", attack="flip", goal="w9", label="harmful"),
        Prompt("w1", user=("w1", 2, "w2"), response=("w3", 3, "w4")),
    ]
    sampler = Masked(steps=4, gen_length=8, block_length=4)
    made = list(
        demur.trace(
            tiny_dlm, prompts, sampler=sampler, record=demur.Record(layers=("last", "first", "2"))
        )
    )
    (manifest := a_manifest(2, fingerprint=made[0].fingerprint, layers=("last", "first", "2")))
    with writing(tmp_path / "run", manifest) as writer:
        writer.add(0, [1], [made[1]])
        writer.add(0, [0], [made[0]])
        writer.seal(0)
    assert all(map(same, Store.open(tmp_path / "run").traces(), made))


@settings(max_examples=40, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    st.lists(st.one_of(st.integers(0, 9), st.text(st.characters(exclude_categories=["Cs"])))),
)
def test_any_text_and_template_survive(text: str, template: list[str | int]) -> None:
    made = replace(a_trace(1, text=text, user=tuple(template), response=()), response=text)
    assert same(next(to_traces(to_table([0], [made]), MARK)), made)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_shards_are_the_same_bytes_whatever_the_batches(
    run: Path, traces: list[Trace], tmp_path: Path, batch: int
) -> None:
    write(tmp_path, traces, batch=batch)
    assert data(tmp_path) == data(run)


def test_where_filters_rows_and_columns_can_be_chosen(run: Path, traces: list[Trace]) -> None:
    store = Store.open(run)
    stopped = list(store.traces(where={"finish_reason": "stop", "label": "harmless"}))
    assert [t.prompt.id for t in stopped] == [f"p{i}" for i in (1, 3, 5, 7, 9)]
    assert all(same(t, traces[int(t.prompt.id[1:])]) for t in stopped)
    assert [t.prompt.id for t in store.traces(where={"row": 4})] == ["p4"]
    assert store.read(columns=["id", "n_steps"]).column_names == ["id", "n_steps"]
    with pytest.raises(InputError, match=r"No column nope .* It has: row, id"):
        list(store.traces(where={"nope": "x"}))
    with pytest.raises(InputError, match="Column draft has"):
        list(store.traces(where={"draft": "x"}))


# ------------------------------------------------------------------ other readers


def with_pandas(run: Path) -> list[dict[str, Any]]:
    import pandas as pd

    return pd.read_parquet(run / "traces").to_dict("records")


def with_polars(run: Path) -> list[dict[str, Any]]:
    import polars as pl

    return pl.read_parquet(run / "traces" / "*.parquet").to_dicts()


def with_duckdb(run: Path) -> list[dict[str, Any]]:
    import duckdb

    found = duckdb.sql(f"select * from '{run}/traces/*.parquet' order by row").to_arrow_table()
    return found.to_pylist()


def with_datasets(run: Path) -> list[dict[str, Any]]:
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    files = sorted(map(str, (run / "traces").glob("*.parquet")))
    cache = str(run.parent / "cache")
    return list(datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache))


def with_pyarrow(run: Path) -> list[dict[str, Any]]:
    return pads.dataset(run / "traces").to_table().to_pylist()


@pytest.mark.filterwarnings("ignore")  # other libraries' own deprecations
@pytest.mark.parametrize(
    "reader", [with_pandas, with_polars, with_duckdb, with_datasets, with_pyarrow]
)
def test_other_libraries_read_it_as_it_is(
    run: Path, traces: list[Trace], reader: Callable[[Path], list[dict[str, Any]]]
) -> None:
    rows = reader(run)
    assert [row["id"] for row in rows] == [t.prompt.id for t in traces]
    for row, trace in zip(rows, traces, strict=True):
        assert row["prompt"] == trace.prompt.text
        assert row["response"] == trace.response
        assert row["n_steps"] == trace.n_steps
        assert [list(step) for step in row["draft"]] == trace.draft.tolist()
        assert np.array([*row["phi_last"]], np.float32).tobytes() == trace.phi["last"].tobytes()


def test_columns_are_the_contract(run: Path) -> None:
    schema = pads.dataset(run / "traces").schema
    assert {field.name: str(field.type) for field in schema} == {
        "row": "int64",
        **dict.fromkeys(["id", "prompt", "attack", "goal", "label", "response"], "string"),
        "response_ids": "list<element: int32>",
        "n_steps": "int32",
        "committed": "list<element: list<element: int32>>",
        "draft": "list<element: list<element: int32>>",
        "blocks": "list<element: int32>",
        **dict.fromkeys(["finish_reason", "filled_prompt"], "string"),
        **dict.fromkeys(["user_template", "response_template"], "string"),
        "phi_last": "list<element: list<element: float>>",
        "phi_first": "list<element: list<element: float>>",
    }


# ------------------------------------------------------------------ damage, crashes, locks


@pytest.fixture
def damaged(tmp_path: Path, traces: list[Trace]) -> Path:
    """A run to damage."""
    write(tmp_path / "run", traces)
    return tmp_path / "run"


def test_every_flipped_bit_and_every_cut_is_found_named_and_redone(
    damaged: Path, traces: list[Trace]
) -> None:
    whole = data(damaged)
    dice = random.Random(1)
    name = sorted(whole)[1]
    for case in range(60):
        content = bytearray(whole[name])
        if case % 3:
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        else:
            del content[dice.randrange(len(content)) :]
        (damaged / name).write_bytes(content)
        with pytest.raises(StoreError, match=f"{name} is damaged"):
            list(Store.open(damaged).traces())
        with pytest.raises(StoreError, match=f"{name} is damaged"):
            Store.open(damaged).ids()
    write(damaged, traces, batch=2)
    assert data(damaged) == whole


def test_a_damaged_part_is_redone(tmp_path: Path, traces: list[Trace]) -> None:
    with writing(tmp_path, a_manifest(4)) as writer:
        writer.add(0, [1, 3], [traces[1], traces[3]])
        writer.add(0, [0], [traces[0]])
    part = next(p for p in (tmp_path / "parts").iterdir() if p.stat().st_size)
    part.write_bytes(part.read_bytes()[:-9])
    with writing(tmp_path, a_manifest(4)) as writer:
        left = set(range(4)) - writer.done(0)
        assert left in ({1, 2, 3}, {0, 2})
        writer.add(0, sorted(left), [traces[i] for i in sorted(left)])
        writer.seal(0)
    assert all(map(same, Store.open(tmp_path).traces(), traces[:4]))


def test_an_unfinished_run_can_be_read(tmp_path: Path, traces: list[Trace]) -> None:
    with writing(tmp_path, a_manifest(10)) as writer:
        for place in (2, 0, 3, 1):
            writer.add(0, [place], [traces[place]])
        writer.seal(0)
        writer.add(1, [7, 4], [traces[7], traces[4]])
        store = Store.open(tmp_path)
        assert len(store) == 6
        assert store.ids() == ["p0", "p1", "p2", "p3", "p4", "p7"]
        assert [t.prompt.id for t in store.traces(where={"finish_reason": "length"})] == [
            *("p0", "p2", "p4"),
        ]


def test_a_crash_between_shard_and_parts_doubles_nothing(
    tmp_path: Path, traces: list[Trace]
) -> None:
    with writing(tmp_path, a_manifest(4)) as writer:
        writer.add(0, [0, 1, 2, 3], traces[:4])
        part = next((tmp_path / "parts").iterdir())
        content = part.read_bytes()
        writer.seal(0)
    part.parent.mkdir()
    part.write_bytes(content)
    (tmp_path / "traces" / ".x.parquet.9.tmp").write_bytes(b"half")
    store = Store.open(tmp_path)
    assert len(store) == 4
    assert store.ids() == ["p0", "p1", "p2", "p3"]
    with writing(tmp_path, a_manifest(4)) as writer:
        assert writer.done(0) == {0, 1, 2, 3}
    assert len(list(tmp_path.rglob("*"))) == 4  # .lock, manifest, folder, shard


def test_a_reader_outlives_a_merge(tmp_path: Path, traces: list[Trace]) -> None:
    def reading(store: Store) -> Iterator[Trace]:
        yield from store.traces()

    with writing(tmp_path, a_manifest(8)) as writer:
        for window in (0, 1):
            places = [*range(4 * window, 4 * window + 4)]
            writer.add(window, places, [traces[i] for i in places])
        found = reading(Store.open(tmp_path))
        got = [next(found)]
        writer.seal(0)
        writer.seal(1)
        got += found
    assert all(map(same, got, traces[:8]))
    assert len(got) == 8


def test_changed_settings_are_refused_with_the_difference(run: Path) -> None:
    before = data(run)
    sampler = {"name": "masked", "steps": 8, "temperature": 1.0}
    changed = a_manifest(10, seed=3, fingerprint=replace(MARK, sampler=sampler))
    with pytest.raises(StoreError) as raised, writing(run, changed):
        pass
    message = str(raised.value)
    assert "sampler.steps: 4 -> 8" in message
    assert "sampler.temperature: (not there) -> 1.0" in message
    assert "seed: 0 -> 3" in message
    assert "another --out" in message
    assert data(run) == before


def test_the_manifest_lists_who_wrote(damaged: Path, traces: list[Trace]) -> None:
    path = damaged / "manifest.json"
    made = json.loads(path.read_bytes())
    assert made["writers"][0]["demur"] == demur.__version__
    assert {"python", "torch", "transformers", "since"} <= set(made["writers"][0])
    made["writers"][0]["torch"] = "1.0"
    path.write_text(json.dumps(made))
    (writer,) = write(damaged, traces).manifest.writers
    assert writer["torch"] == "1.0", "nothing was left to write"
    next(damaged.glob("traces/*")).unlink()
    first, second = write(damaged, traces).manifest.writers
    assert (first["torch"], second["torch"]) == ("1.0", version("torch"))
    assert Store.open(damaged).manifest.created == made["created"]


def test_settings_may_change_until_there_are_rows(tmp_path: Path, traces: list[Trace]) -> None:
    with writing(tmp_path, a_manifest(10, seed=1)):
        pass
    assert write(tmp_path, traces).manifest.seed == 0


def test_newer_damaged_and_missing_manifests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No run in .*demur trace"):
        Store.open(tmp_path)
    with pytest.raises(StoreError, match="No run in"):
        Store.open(tmp_path / "nowhere")
    with writing(tmp_path, a_manifest(1)):
        pass
    with pytest.raises(StoreError, match="has no rows yet"):
        Store.open(tmp_path).read()
    path = tmp_path / "manifest.json"
    good = json.loads(path.read_bytes())
    path.write_text(json.dumps({**good, "format": 99}))
    with pytest.raises(StoreError, match=r"has format 99.*pip install --upgrade demur"):
        Store.open(tmp_path)
    for bad in ("", "{", "[]", "{}", '{"format": "x"}', json.dumps({**good, "layers": 3}), "\xff"):
        path.write_bytes(bad.encode("latin-1"))
        with pytest.raises(StoreError, match="damaged"):
            Store.open(tmp_path)


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"has thesis\.txt and no manifest"):
        write(tmp_path, [a_trace(0)])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(StoreError, match="is a file, not a folder"):
        write(tmp_path / "thesis.txt", [a_trace(0)])


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom test_store import a_manifest\nfrom demur.store import writing\n"
        "with writing(sys.argv[1], a_manifest(1)):\n    print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreError, match=rf"written by process {holder.pid} on .* since 20"),
            writing(tmp_path, a_manifest(1)),
        ):
            pass
        holder.kill()
    with writing(tmp_path, a_manifest(1)):
        pass
