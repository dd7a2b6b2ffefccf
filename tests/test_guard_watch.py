"""Watching a stream: rows join and leave, it stops in time, and nothing unread leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import demur
import guarded
from demur.errors import CalibrationError, SignalError
from demur.guard import StreamingGuard, Watched, fit_streaming_guard
from demur.models.base import LanguageModel
from demur.organism import world
from demur.sampling import Masked
from demur.types import Prompt, Traces

PROMPTS = [
    *world.prompts("test", "harmless", n=3),
    *world.prompts("test", "harmful", attack="prefix_injection", n=3),
]


@pytest.fixture(scope="module")
def traces() -> Traces:
    return demur.trace(guarded.model(), PROMPTS, sampler=guarded.SAMPLER)


def watched(guard: StreamingGuard, prompts: list[Prompt]) -> list[Watched]:
    """Steps of a batch that the guard watched."""
    return list(guard.watch(demur.steps(guarded.model(), prompts, sampler=guarded.SAMPLER)))


def test_streaming_and_finished_scores_agree(traces: Traces) -> None:
    steps = watched(guarded.guard(), PROMPTS)
    statistics = guarded.guard().statistics(traces)
    flagged_at = guarded.guard().detect(traces)
    for step in steps:
        # Nothing is read of a row once it is flagged.
        last = np.where(flagged_at, np.minimum(flagged_at, step.index), step.index)
        expected = statistics[np.arange(len(traces)), last - 1]
        np.testing.assert_allclose(
            [r.statistic for r in step.readings], expected, rtol=1e-4, atol=1e-5
        )
    assert [r.flagged_at for r in steps[-1].readings] == flagged_at.tolist()
    sigma = demur.signal(guarded.anchors().states(traces), guarded.anchors())
    np.testing.assert_allclose([r.sigma for r in steps[0].readings], sigma[:, 0], atol=1e-5)


def test_stream_stops_before_the_suspicious_token_leaves(traces: Traces) -> None:
    guard = guarded.guard()
    bad = [t.prompt for t, at in zip(traces, guard.detect(traces), strict=True) if at]
    assert bad
    steps = watched(guard, bad)
    assert len(steps) == guard.detect(Traces(tuple(t for t in traces if t.prompt in bad))).max()
    for row in range(len(bad)):
        first = next(step for step in steps if step.readings[row].flagged)
        assert steps[-1].released[row] == first.index - 1 < (first.tokens[row] >= 0).sum()


def test_rows_that_pass_are_released_token_by_token(traces: Traces) -> None:
    guard = guarded.guard()
    good = [t.prompt for t, at in zip(traces, guard.detect(traces), strict=True) if not at]
    assert good
    for step in watched(guard, good):
        np.testing.assert_array_equal(step.released, (step.tokens >= 0).sum(1))


def test_rows_join_and_leave(traces: Traces) -> None:
    """Each row's readings are those of the row alone, whatever its neighbours do."""
    guard = guarded.guard()
    watcher, statistics = guard.watcher(2), guard.statistics(traces)
    row, used = [0, 3], [0, 0]
    for turn in range(40):
        places = [0, 1] if turn % 3 else [turn % 2]
        phi = np.stack([traces[row[p]].phi["last"][used[p]] for p in places])
        readings = watcher.observe({"last": torch.from_numpy(phi)}, places)
        for place, got in zip(places, readings, strict=True):
            used[place] += 1
            expected = statistics[row[place], used[place] - 1]
            np.testing.assert_allclose(got.statistic, expected, rtol=1e-4, atol=1e-5)
            if used[place] == 12:
                row[place], used[place] = row[place] + 1, 0
                watcher.reset([place])
    assert [reading.step for reading in watcher.readings] == used


def test_broken_states_are_flagged_and_foreign_ones_refused() -> None:
    watcher = guarded.guard().watcher(4)
    sound = np.stack([guarded.anchors().harmless[0]] * 4)
    phi = sound.copy()
    phi[1, 5], phi[2, 5] = np.nan, np.inf
    phi[3] = 1e30  # its square is beyond float32
    for states in (phi, sound):
        readings = watcher.observe({"last": states}, range(4))
        assert [reading.flagged_at for reading in readings] == [0, 1, 1, 1]
    with pytest.raises(SignalError, match="reads layer 'last'"):
        watcher.observe({"middle": phi}, range(4))
    with pytest.raises(SignalError, match=r"reads \[4, 128\]"):
        watcher.observe({"last": phi[:, :5]}, range(4))
    with pytest.raises(CalibrationError, match="group 'plain'"):
        watcher.reset([0], groups=["plain"])


def test_steps_beyond_the_guards_are_counted_and_not_scored() -> None:
    watcher, generator = guarded.guard().watcher(1), np.random.default_rng(0)
    for _ in range(24):
        (before,) = watcher.observe({"last": generator.normal(size=(1, 128))}, [0])
    (after,) = watcher.observe({"last": np.full((1, 128), np.nan)}, [0])
    assert after.step == 25
    assert after.statistic == before.statistic


@pytest.mark.parametrize("block_length", [4, 12])
def test_diffusion_releases_whole_blocks(make_dlm, block_length: int) -> None:  # type: ignore[no-untyped-def]
    """What was released never changes, comes by blocks, and in the end only the last is missing."""
    model: LanguageModel = make_dlm(shift=True)
    sampler = Masked(steps=12, gen_length=12, block_length=block_length)
    labels = ["harmless", "harmful"] * 12
    prompts = [
        Prompt(f"w{i} w{i + 1}", label=label)  # type: ignore[arg-type]
        for i, label in enumerate(labels)
    ]
    traces = demur.trace(model, prompts, sampler=sampler, batch_size=24)
    anchors = demur.fit_anchors(traces, [label == "harmful" for label in labels], allow_few=True)
    guard = fit_streaming_guard(traces, traces, anchors=anchors, alpha=0.05)
    generation = demur.steps(model, prompts[:4], sampler=sampler)
    seen = list(guard.watch(generation))
    final = generation.traces()
    for step in seen:
        both = zip(step.released, step.readings, strict=True)
        passed = {count for count, reading in both if not reading.flagged}
        assert passed == {(step.index - 1) // block_length * block_length}
        for row, count in enumerate(step.released):
            assert step.tokens[row, :count].tolist() == final[row].committed[-1][:count].tolist()
