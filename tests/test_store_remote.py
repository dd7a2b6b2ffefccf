"""The store in object stores: fsspec's own in memory, and a real S3 server on loopback."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.dataset as pads
import pytest

from demur.errors import InputError, MissingExtraError, StoreError
from demur.models.base import LanguageModel
from demur.runs import list_runs, trace_to
from demur.store import Store, Writer, writing
from demur.store.folder import folder_at, this_process
from demur.types import Trace
from interrupted import SETTINGS, some_prompts
from test_store import a_manifest, a_trace, data, same, write
from waiting import child, until

KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """An S3 server with one bucket, found by the environment as a real one is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def listening() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with child(*command, **quiet) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
            patch.setenv(name, value)
        until(listening, alive=server)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
        yield


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """The URL of a run that is not there yet."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    return f"{request.param}://bucket/{uuid.uuid4().hex[:8]}/run"


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    return [a_trace(i) for i in range(10)]


def stored(place: str) -> dict[str, bytes]:
    """Every data file's bytes, as ``test_store.data`` gives those of a folder."""
    folder = folder_at(place)
    names = [f"{part}/{name}" for part in ("parts", "traces") for name in folder.names(part)]
    return {name: folder.read(name) for name in names}


def test_the_same_files_as_on_a_disk(place: str, traces: list[Trace], tmp_path: Path) -> None:
    write(tmp_path, traces)
    store = write(place, traces)
    assert stored(place) == data(tmp_path)
    assert len(store) == 10
    assert store.ids() == [trace.prompt.id for trace in traces]
    assert all(map(same, store.traces(), traces))
    assert [t.prompt.id for t in store.traces(where={"row": 4})] == ["p4"]
    assert sorted(folder_at(place).names()) == ["manifest.json", "traces"]


@pytest.mark.parametrize("where", ["a disk", "memory", "s3"])
def test_the_files_of_one_window_are_listed_without_the_others(
    where: str, request: pytest.FixtureRequest, traces: list[Trace], tmp_path: Path
) -> None:
    if where == "s3":
        request.getfixturevalue("s3")
    run = str(tmp_path) if where == "a disk" else f"{where}://bucket/{uuid.uuid4().hex[:8]}"
    manifest = write(run, traces).manifest
    folder = folder_at(run)
    (second,) = [name for name in folder.names("traces") if name.startswith("000001-")]
    assert folder.names("traces", begins="000001-") == [second]
    assert folder.names("parts", begins="000001-") == []
    writer = Writer(folder, manifest, window=1)
    assert writer.done(1) == {*manifest.places(1)}
    assert writer.done(0) == set(), "files of another window were read"


def test_other_libraries_read_it_by_its_url(s3: None, traces: list[Trace]) -> None:
    path = f"bucket/{uuid.uuid4().hex[:8]}"
    write(f"s3://{path}", traces)
    shards = pads.dataset(f"{path}/traces", filesystem=fsspec.filesystem("s3"))
    assert shards.to_table(columns=["id"])["id"].to_pylist() == [t.prompt.id for t in traces]


def test_a_run_that_stops_anywhere_ends_with_the_same_files(
    place: str, tiny_ar: LanguageModel, tmp_path: Path
) -> None:
    prompts = some_prompts(24)
    trace_to(tmp_path / "run", tiny_ar, prompts, **SETTINGS)
    dice = random.Random(5)

    class Stop(Exception):
        pass

    def advance(done: int) -> None:
        reported.append(done)
        if dice.random() < 0.3:
            raise Stop

    while True:
        reported: list[int] = []
        try:
            store = trace_to(place, tiny_ar, prompts, progress=advance, **SETTINGS)
        except Stop:
            assert len(Store.open(place)) >= sum(reported), "a finished batch was lost"
        else:
            break
    assert stored(place) == data(tmp_path / "run")
    assert store.ids() == [prompt.id for prompt in prompts]


def test_a_batch_written_twice_is_there_once(place: str, traces: list[Trace]) -> None:
    with writing(place, a_manifest(4)) as writer:
        writer.add(0, [0, 1], traces[:2])
        writer.add(0, [1, 2], traces[1:3])
        store = Store.open(place)
        assert len(store) == 3
        assert store.ids() == ["p0", "p1", "p2"]
        assert writer.done(0) == {0, 1, 2}
        writer.add(0, [3], traces[3:4])
        writer.seal(0)
    assert all(map(same, Store.open(place).traces(), traces[:4]))
    assert len(Store.open(place)) == 4


def test_only_the_columns_asked_for_are_fetched(
    s3: None, traces: list[Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    place = f"s3://bucket/{uuid.uuid4().hex[:8]}"
    wide = [a_trace(i, text=str(random.Random(i).randbytes(20_000))) for i in range(32)]
    store = write(place, wide, batch=32, shard_rows=32)
    fetched: list[int] = []
    whole = S3FileSystem._cat_file

    async def counted(self: S3FileSystem, path: str, *args: object, **kwargs: object) -> bytes:
        content: bytes = await whole(self, path, *args, **kwargs)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(S3FileSystem, "_cat_file", counted)
    ranges: list[int] = []
    from s3fs.core import S3File

    one = S3File._fetch_range

    def ranged(self: S3File, start: int, end: int) -> bytes:
        ranges.append(end - start)
        return one(self, start, end)

    monkeypatch.setattr(S3File, "_fetch_range", ranged)
    assert len(store.ids()) == 32
    size = sum(map(len, stored(place).values()))
    assert 0 < sum(ranges) < size / 5


def test_a_damaged_object_is_named(place: str, traces: list[Trace]) -> None:
    write(place, traces)
    folder = folder_at(place)
    name = f"traces/{folder.names('traces')[1]}"
    whole = folder.read(name)
    dice = random.Random(1)
    seen: list[str] = []
    for case in range(20):
        content = bytearray(whole)
        if case % 2:
            del content[dice.randrange(len(content)) :]
        else:  # in the pages, which lie before the footer
            content[dice.randrange(100, len(content) // 3)] ^= 1 << dice.randrange(8)
        folder.write(name, bytes(content))
        try:
            assert all(map(same, Store.open(place).traces(), traces)), "damage was not seen"
        except StoreError as error:
            seen.append(str(error))
    assert len(seen) >= 15, "only a flip in what is not used may change nothing"
    assert all(f"{name} cannot be read" in text and "remove it and run" in text for text in seen)
    folder.remove([name])
    write(place, traces)
    assert folder.read(name) == whole


# ------------------------------------------------------------------ locks and refusals


def test_a_second_writer_is_told_who_holds_it(place: str) -> None:
    with writing(place, a_manifest(1)):
        with (
            pytest.raises(
                StoreError, match=rf"written by process {os.getpid()} on .*remove .*lock"
            ),
            writing(place, a_manifest(1)),
        ):
            pass
        assert ".lock" in folder_at(place).names()
    assert ".lock" not in folder_at(place).names()


def test_the_lock_of_a_process_that_died_here_is_replaced(place: str) -> None:
    with child(sys.executable, "-c", "") as done:
        done.wait()
    here = this_process().replace(str(os.getpid()), str(done.pid))
    folder_at(place).write(".lock", here.encode())
    with writing(place, a_manifest(1)):
        pass
    elsewhere = f"process {done.pid} on another-host since 2026"
    folder_at(place).write(".lock", elsewhere.encode())
    with pytest.raises(StoreError, match=elsewhere), writing(place, a_manifest(1)):
        pass
    assert folder_at(place).read(".lock").decode() == elsewhere


def test_of_two_that_begin_at_once_one_writes(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_at(place)
    from demur.store.folder import RemoteFolder

    holder = RemoteFolder._holder
    looked: list[str] = []

    def late(self: RemoteFolder) -> str:
        """The other one puts its lock right after this one has looked."""
        found = holder(self)
        if not looked:
            folder.write(".lock", b"process 1 on another-host since 2026")
        looked.append(found)
        return found

    monkeypatch.setattr(RemoteFolder, "_holder", late)
    with pytest.raises(StoreError, match="another-host"), folder.locked():
        pass
    assert looked[0] == ""
    assert folder.read(".lock").startswith(b"process 1 on another")


def test_settings_and_foreign_folders_are_refused(place: str, traces: list[Trace]) -> None:
    write(place, traces)
    with (
        pytest.raises(StoreError, match="seed: 0 -> 3"),
        writing(place, a_manifest(10, seed=3)),
    ):
        pass
    foreign = folder_at(f"{place}-other")
    foreign.write("thesis.txt", b"mine")
    with pytest.raises(StoreError, match=r"has thesis\.txt and no manifest"):
        write(str(foreign), traces)
    with pytest.raises(StoreError, match=r"No run in .*demur trace"):
        Store.open(f"{place}-nowhere")


def test_runs_below_a_url_are_listed(place: str, traces: list[Trace]) -> None:
    above = place.rpartition("/")[0]
    write(f"{above}/a/one", traces)
    write(f"{above}/two", traces[:4])
    folder_at(f"{above}/bad").write("manifest.json", b"{")
    one, bad, two = list_runs(above)
    assert (one.folder, one.written, one.count) == (f"{above}/a/one", 10, 10)
    assert "damaged" in bad.problem
    assert two.written == 4
    with pytest.raises(InputError, match="No runs at"):
        list_runs(f"{above}/nowhere")


def test_what_cannot_be_reached_is_told(
    s3: None, traces: list[Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"s3://no-bucket/x cannot be written"):
        write("s3://no-bucket/x", traces)
    with pytest.raises(InputError, match=r"cannot store runs at sftp://.*s3://"):
        Store.open("sftp://host/x")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"gs:// needs a package\. Run: pip install gcsfs"):
        Store.open("gs://bucket/run")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")
    with pytest.raises(MissingExtraError, match=r"demur\[s3\]"):
        Store.open("s3://bucket/other")


def test_a_path_made_of_a_url_is_that_url(tmp_path: Path) -> None:
    assert str(folder_at(Path("s3://bucket/run"))) == "s3://bucket/run"
    assert str(folder_at(f"file://{tmp_path}")) == str(tmp_path)
    assert str(folder_at("runs/x")) == "runs/x"
