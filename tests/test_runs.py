"""A run loses nothing and doubles nothing, whatever happens to it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
from conftest import not_here, save_llama, save_tokenizer
from demur.errors import InputError, ModelError, StoreError
from demur.models.base import LanguageModel
from demur.runs import trace_to
from demur.sampling import Autoregressive
from demur.store import Store
from demur.types import Prompt, Record
from interrupted import SETTINGS, shards, some_prompts

TESTS = Path(__file__).parent
PROMPTS = some_prompts(40)


def program(*arguments: object) -> Any:
    """Run ``interrupted.py`` and give back what it printed."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "interrupted.py"), *map(str, arguments)],
        cwd=TESTS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> LanguageModel:
    return demur.load(checkpoint)


@pytest.fixture(scope="module")
def whole(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing interrupted, and the seconds it took."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    start = time.perf_counter()
    trace_to(folder, model, PROMPTS, **SETTINGS)
    return folder, time.perf_counter() - start


def test_a_run_holds_what_tracing_gives(whole: tuple[Path, float], model: LanguageModel) -> None:
    store = Store.open(whole[0])
    assert store.ids() == [p.id for p in PROMPTS]
    for stored, traced in zip(store.traces(), demur.trace(model, PROMPTS), strict=True):
        assert stored.prompt == traced.prompt
        assert stored.response == traced.response
        assert np.array_equal(stored.committed, traced.committed)
        assert np.allclose(stored.phi["last"], traced.phi["last"], atol=1e-5)
        assert stored.fingerprint == traced.fingerprint


def test_finished_rows_are_never_computed_again(
    whole: tuple[Path, float], model: LanguageModel
) -> None:
    before = shards(whole[0])
    passes: list[int] = []
    hook = model.net.register_forward_pre_hook(lambda *_: passes.append(1))
    counted: list[int] = []
    core = model.net.base_model.register_forward_pre_hook(lambda *_: passes.append(1))
    trace_to(whole[0], model, PROMPTS, progress=counted.append, **{**SETTINGS, "batch_size": 7})
    hook.remove()
    core.remove()
    assert passes == []
    assert sum(counted) == len(PROMPTS)
    assert shards(whole[0]) == before


# ------------------------------------------------------------------ killed and measured


def test_kill_at_random_moments(
    whole: tuple[Path, float], checkpoint: Path, tmp_path: Path
) -> None:
    starts = program("kill", tmp_path / "run", checkpoint, len(PROMPTS), 0.4 * whole[1])
    assert starts[-1]["code"] == 0
    assert sum(start["code"] == -signal.SIGKILL for start in starts) >= 2
    for start in starts:
        assert start["there"] >= start["reported"], "a finished batch was lost"
    assert shards(tmp_path / "run") == shards(whole[0])


def test_kill_at_every_file_operation(tmp_path: Path) -> None:
    killed = program("everywhere", tmp_path)
    assert len(killed) > 20
    assert {"open", "os.rename", "os.remove", "os.mkdir"} <= set(killed)


def test_memory_grows_with_the_window_only(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "wide"
    vocabulary = len(save_tokenizer(folder))
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=2048,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=8,
        max_position_embeddings=128,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    peaks = program("memory", tmp_path / "run", folder, 256)
    states = 208 * 32 * 2048 * 4 * 2 / 1024  # KiB that the last 208 traces hold
    assert states > 100_000
    assert peaks[-1] - peaks[2] < 0.7 * states


def test_interrupting_drops_only_the_batch_in_flight(
    whole: tuple[Path, float], model: LanguageModel, tmp_path: Path
) -> None:
    reported: list[int] = []

    def advance(done: int) -> None:
        reported.append(done)
        if len(reported) == 3:  # a moment later the next batch is in flight
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trace_to(tmp_path, model, PROMPTS, progress=advance, **SETTINGS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 12 <= sum(reported) <= len(Store.open(tmp_path)) < len(PROMPTS)
    trace_to(tmp_path, model, PROMPTS, **SETTINGS)
    assert shards(tmp_path) == shards(whole[0])


def test_a_damaged_shard_is_redone_to_the_same_bytes(
    model: LanguageModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = PROMPTS[:20]
    trace_to(tmp_path, model, prompts, **SETTINGS)
    before = shards(tmp_path)
    name = min(before)
    (tmp_path / name).write_bytes(before[name][:-1])
    counted: list[int] = []
    trace_to(tmp_path, model, prompts, progress=counted.append, **SETTINGS)
    assert shards(tmp_path) == before
    assert f"{name} is damaged" in caplog.text
    assert counted == [4, 4, 4, 4, 4]  # four batches again, then the other window as it was


# ------------------------------------------------------------------ full, read-only, too large


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own in memory; call it with mount options to make or change it."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        remount = "remount," if os.path.ismount(place) else ""
        command = ["mount", "-t", "tmpfs", "-o", remount + options, "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            not_here(f"mounting is not permitted: {error}")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_loses_nothing(
    whole: tuple[Path, float], model: LanguageModel, small_disk: Callable[[str], Path]
) -> None:
    folder = small_disk("size=160k") / "run"
    with pytest.raises(StoreError, match=r"The disk is full: .* Free some space"):
        trace_to(folder, model, PROMPTS, **SETTINGS)
    assert 0 < len(list(Store.open(folder).traces())) < len(PROMPTS)
    small_disk("size=8m")
    trace_to(folder, model, PROMPTS, **SETTINGS)
    assert shards(folder) == shards(whole[0])


def test_a_read_only_disk_is_named(
    whole: tuple[Path, float], model: LanguageModel, small_disk: Callable[[str], Path]
) -> None:
    place = small_disk("size=8m")
    trace_to(place / "run", model, PROMPTS[:4], **SETTINGS)
    small_disk("ro")
    for folder in ("run", "new"):
        with pytest.raises(StoreError, match=rf"{folder} cannot be written: Read-only.*--out"):
            trace_to(place / folder, model, PROMPTS[:4], **SETTINGS)
    assert len(Store.open(place / "run")) == 4


def test_a_write_that_fails_loses_nothing(
    whole: tuple[Path, float], model: LanguageModel, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(map(len, shards(whole[0]).values()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limits[1]))
    try:
        with pytest.raises(StoreError, match="was not written: File too large"):
            trace_to(tmp_path, model, PROMPTS, **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(Store.open(tmp_path)) >= SETTINGS["shard_rows"]
    trace_to(tmp_path, model, PROMPTS, **SETTINGS)
    assert shards(tmp_path) == shards(whole[0])


# ------------------------------------------------------------------ refused and failed


def test_a_changed_setting_is_refused(whole: tuple[Path, float], model: LanguageModel) -> None:
    changes: list[tuple[str, Callable[[], object]]] = [
        ("seed: 0 -> 1", lambda: run(record=Record(seed=1))),
        ("layers: last -> last, first", lambda: run(record=Record(layers=("last", "first")))),
        ("pooling: running -> generated", lambda: run(record=Record(pooling="generated"))),
        ("sampler.steps: 32 -> 9", lambda: run(sampler=Autoregressive(steps=9))),
        ("count: 40 -> 39", lambda: run(PROMPTS[:39])),
        ("prompts: ", lambda: run([replace(PROMPTS[0], text="w9"), *PROMPTS[1:]])),
        (
            "system: You are a helpful assistant -> no",
            lambda: run(model=replace(model, system="no")),
        ),
    ]

    def run(prompts: list[Prompt] = PROMPTS, model: LanguageModel = model, **changed: Any) -> None:
        trace_to(whole[0], model, prompts, **SETTINGS, **changed)

    before = shards(whole[0])
    for difference, start in changes:
        with pytest.raises(StoreError) as raised:
            start()
        assert difference in str(raised.value)
    assert shards(whole[0]) == before


def test_wrong_prompts_are_refused_before_anything_is_written(
    model: LanguageModel, tmp_path: Path
) -> None:
    for prompts, message in (
        ([], "the list is empty"),
        (["w1", "w2", "w1"], "2 prompts have the id"),
        (["w1 \ud800"], "half a surrogate pair"),
    ):
        with pytest.raises(InputError, match=message):
            trace_to(tmp_path / "run", model, prompts)
    with pytest.raises(InputError, match="shard_rows is 0"):
        trace_to(tmp_path / "run", model, ["w1"], shard_rows=0)
    assert not (tmp_path / "run").exists()


def test_a_failing_batch_names_its_prompts_and_keeps_the_rest(
    model: LanguageModel, tmp_path: Path
) -> None:
    bad = [*PROMPTS[:8], Prompt("w1", id="slots", user=("w1 w2 w3 w4 w5 w6 w7 w8 w9 w1 w2", 2))]
    with pytest.raises(InputError, match=r"Prompt slots has masked slots"):
        trace_to(tmp_path / "slots", model, bad, batch_size=4)

    def fail(module: torch.nn.Module, inputs: Any, options: Any) -> None:
        if options["input_ids"].shape[1] > 15:
            raise RuntimeError("not enough memory: you tried to allocate 9 bytes")

    hook = model.net.base_model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(ModelError, match=r"Tracing prompts p7, p8 failed: not enough memory"):
            trace_to(tmp_path / "memory", model, PROMPTS[:9], batch_size=7)
    finally:
        hook.remove()
    assert Store.open(tmp_path / "memory").ids() == [f"p{i}" for i in range(7)]
    assert len(trace_to(tmp_path / "memory", model, PROMPTS[:9], batch_size=7)) == 9


def test_a_prompt_too_long_is_named(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Prompt long has 4"):
        trace_to(tmp_path, model, [Prompt("w1 " * 400, id="long")])
