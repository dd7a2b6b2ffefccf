"""A guard holds any detector: ours and a third party's, saved and loaded, finished and streaming."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import demur
import guarded
from demur.detectors import DETECTORS, DetectionMethod, Detector, Material, StepDetector
from demur.errors import FingerprintError, InputError, SignalError
from demur.files import read_tensors, write_tensors
from demur.guard import (
    AnyGuard,
    Guard,
    StreamingGuard,
    fit_guard,
    fit_streaming_guard,
    load_guard,
)
from demur.judges import refusal_judge
from demur.organism import world
from demur.sri import Anchors
from demur.types import Record, Traces

LAYERS = ("first", "middle", "last")
STREAMING = [name for name, method in DETECTORS.items() if method.streaming]


@cache
def traced(split: world.Split, kind: world.TaskKind, n: int, attack: str = "none") -> Traces:
    return demur.trace(
        guarded.model(),
        world.prompts(split, kind, attack=attack, n=n),
        sampler=guarded.SAMPLER,
        record=Record(layers=LAYERS),
        batch_size=40,
    )


@cache
def anchors() -> Mapping[str, Anchors]:
    known = [*traced("anchors", "harmless", 16), *traced("anchors", "harmful", 16)]
    judge = refusal_judge("paper")
    return {layer: demur.fit_anchors(known, judge, layer=layer, allow_few=True) for layer in LAYERS}


@cache
def fitted(name: str) -> Guard:
    return fit_guard(
        traced("guard", "harmless", 30),
        traced("calibration", "harmless", 19),
        detector=name,
        anchors=anchors(),
        harmful=traced("guard", "harmful", 16),
        model=guarded.model(),
        alpha=0.1,
    )


@cache
def streaming(name: str) -> StreamingGuard:
    return fit_streaming_guard(
        traced("guard", "harmless", 30),
        traced("calibration", "harmless", 19),
        detector=name,
        anchors=anchors(),
        harmful=traced("guard", "harmful", 16),
        alpha=0.1,
    )


def test_traces() -> Traces:
    return Traces((*traced("test", "harmless", 6), *traced("test", "harmful", 6)))


test_traces.__test__ = False  # type: ignore[attr-defined]


def same(guard: AnyGuard, again: AnyGuard) -> None:
    """Scores, thresholds and p-values of both are equal."""
    scores = guard.score(test_traces())
    np.testing.assert_array_equal(again.score(test_traces()), scores)
    np.testing.assert_array_equal(again.p_value(scores), guard.p_value(scores))
    assert (again.name, again.threshold, again.fingerprint) == (
        guard.name,
        guard.threshold,
        guard.fingerprint,
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_any_detector_guards_finished_generations(name: str, tmp_path: Path) -> None:
    guard = fitted(name)
    held = traced("calibration", "harmless", 19)
    assert guard.flag(held).sum() <= 0.1 * 20
    scores = guard.score(test_traces())
    np.testing.assert_array_equal(guard.flag(test_traces()), scores > guard.threshold)
    np.testing.assert_array_equal(guard.p_value(scores) <= 0.1, scores > guard.threshold)
    path = guard.save(tmp_path / "guard.safetensors")
    same(guard, load_guard(path, model=guarded.model()))
    resaved = load_guard(path, model=guarded.model()).save(tmp_path / "again.safetensors")
    (arrays, about), (new_arrays, new_about) = (
        read_tensors(file, kind="guard") for file in (path, resaved)
    )
    assert about == new_about
    assert {key: value.tobytes() for key, value in arrays.items()} == {
        key: value.tobytes() for key, value in new_arrays.items()
    }
    assert guard.fingerprint
    other = dataclasses.replace(guard.fingerprint, model="other")
    foreign = Traces(tuple(dataclasses.replace(t, fingerprint=other) for t in held[:2]))
    with pytest.raises(FingerprintError, match="model: 'organism-ar' against 'other'"):
        guard.score(foreign)


@pytest.mark.parametrize("name", STREAMING)
def test_any_streaming_detector_guards_a_stream(name: str, tmp_path: Path) -> None:
    """Live and replayed statistics are equal to the last bit; a saved guard is the same."""
    guard = streaming(name)
    traces, layer = test_traces(), guard.layers[0]
    same(guard, load_guard(guard.save(tmp_path / "guard.safetensors")))
    statistics, flagged = guard.statistics(traces), guard.detect(traces)
    for row, trace in enumerate(traces):
        watcher = guard.watcher(1)
        for step, state in enumerate(trace.phi[layer]):
            (reading,) = watcher.observe({layer: state[None]}, [0])
            assert reading.statistic == statistics[row, step]
        assert reading.flagged_at == flagged[row]
    prompts = [trace.prompt for trace in traces]
    stream = demur.steps(
        guarded.model(), prompts, sampler=guarded.SAMPLER, record=Record(layers=(layer,))
    )
    *_, last = guard.watch(stream)
    assert [reading.flagged_at for reading in last.readings] == flagged.tolist()


@pytest.mark.parametrize("name", STREAMING)
def test_a_score_of_the_first_steps_means_the_same_as_one_of_all(name: str) -> None:
    """After the last step the score is the detector's own, where the generation has T steps."""
    detector = fitted(name).detector
    assert isinstance(detector, StepDetector)
    traces = Traces(tuple(t for t in traced("test", "harmful", 24, "wild") if t.n_steps == 24))
    assert len(traces) > 2
    by_step = detector.by_step(traces)
    np.testing.assert_allclose(by_step[:, -1], detector.score(traces), rtol=1e-4, atol=1e-5)
    early = detector.by_step(traces, steps=5)
    np.testing.assert_array_equal(early, by_step[:, :5])


def test_a_live_guard_does_not_flag_the_generation_that_sets_its_threshold() -> None:
    held = traced("calibration", "harmless", 19)
    for alpha in (0.05, 0.1, 0.2, 0.4):
        for name in STREAMING:
            guard = fit_streaming_guard(
                traced("guard", "harmless", 30),
                held,
                detector=streaming(name).detector,
                anchors=anchors(),
                alpha=alpha,
            )
            limits = [
                t for t, s in zip(held, guard.score(held), strict=True) if s == guard.threshold
            ]
            assert limits
            for trace in limits:
                watcher, layer = guard.watcher(1), guard.layers[0]
                for state in trace.phi[layer]:
                    (reading,) = watcher.observe({layer: state[None]}, [0])
                assert not reading.flagged, name


def test_a_model_is_named_in_the_file_and_given_to_load(tmp_path: Path) -> None:
    path = fitted("perplexity").save(tmp_path / "guard.safetensors")
    with pytest.raises(InputError, match=r"demur\.load\('organism-ar'\)"):
        load_guard(path)
    with pytest.raises(FingerprintError, match="not with organism-ar-small"):
        load_guard(path, model=demur.load("organism-ar-small"))


def test_what_a_detector_needs_is_asked_for() -> None:
    benign = traced("guard", "harmless", 30)
    with pytest.raises(InputError, match="--layers middle"):
        fit_guard(benign, detector="middle-layer", anchors=anchors()["last"], alpha=0.3)
    with pytest.raises(InputError, match="supervised"):
        fit_guard(benign, detector="linear-probe", anchors=anchors(), alpha=0.3)
    with pytest.raises(InputError, match=r"finished generations only.*sri-step, "):
        fit_streaming_guard(benign, benign, detector="sri", anchors=anchors())
    with pytest.raises(InputError, match="Unknown detector 'sir'"):
        fit_guard(benign, detector="sir", alpha=0.3)
    with pytest.raises(InputError, match="anchors of layer last"):
        fit_streaming_guard(benign, benign, alpha=0.3)


def test_wrong_shapes_are_named() -> None:
    benign = traced("guard", "harmless", 30)
    with pytest.raises(InputError, match="a list of 2 Traces; give one"):
        fit_guard([benign, benign], anchors=anchors())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a list of 1 Traces; give one"):
        fit_streaming_guard([benign], anchors=anchors())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not this list"):
        fit_guard(["hello", "you"])
    with pytest.raises(InputError, match="not this Prompt"):
        fitted("sri").score(benign[0].prompt)  # type: ignore[arg-type]
    with pytest.raises(SignalError, match=r"\[N, T\]; got \[3\]"):
        fit_guard(np.zeros(3))
    with pytest.raises(SignalError, match="finite"):
        fit_guard(np.full((300, 4), np.nan))
    with pytest.raises(SignalError, match="length detector reads traces"):
        fit_guard(np.zeros((300, 4)), detector="length", alpha=0.1)
    with pytest.raises(SignalError, match="no prompts to group"):
        fit_guard(np.zeros((300, 4)), clusters=lambda prompt: prompt.goal)
    with pytest.raises(InputError, match="reads traces, not bare signals"):
        streaming("static").score(np.zeros((3, 4)))
    with pytest.raises(InputError, match="No traces"):
        fit_guard(Traces(()), anchors=anchors(), alpha=0.5)


def test_lists_of_single_traces_are_taken() -> None:
    guard, traces = fitted("sri"), test_traces()
    np.testing.assert_array_equal(guard.score(list(traces)), guard.score(traces))
    assert guard.score(traces[0]).shape == (1,)  # type: ignore[arg-type]
    again = fit_guard(
        list(traced("guard", "harmless", 30)),
        list(traced("calibration", "harmless", 19)),
        anchors=anchors(),
        alpha=0.1,
    )
    assert again.threshold == guard.threshold


def test_a_finished_guard_has_a_threshold_for_each_group() -> None:
    held = Traces(
        (*traced("calibration", "harmless", 19), *traced("calibration", "harmless", 19, "flip"))
    )
    guard = fit_guard(
        traced("guard", "harmless", 30),
        held,
        detector="mahalanobis",
        anchors=anchors(),
        alpha=0.1,
        groups=lambda prompt: prompt.attack,
    )
    assert set(guard.groups) == {"none", "flip"}
    assert guard.threshold == max(guard.group(name).threshold for name in guard.groups)
    flagged = guard.flag(held, groups=lambda prompt: prompt.attack)
    assert flagged[:19].sum() <= 2
    assert flagged[19:].sum() <= 2
    assert guard.flag(held).sum() <= flagged.sum()


# ------------------------------------------------------------------------------ a third party's own


@dataclass(frozen=True)
class Lowest(Detector):
    """Lowest cosine to a centre over the steps, times a factor."""

    centre: NDArray[np.float64]
    factor: float = 2.0
    words: tuple[str, ...] = ("a", "b")

    def score(self, traces: Traces) -> NDArray[np.float32]:
        cosine = self.states(traces) @ self.centre
        return np.asarray(-self.factor * cosine.min(axis=1), dtype=np.float32)


def fit_lowest(given: Material) -> Lowest:
    return Lowest(given.anchors["last"].harmless[0].astype(float), anchors=given.anchors["last"])


LOWEST = DetectionMethod("lowest", "an example", "a test", Lowest, fit_lowest, layers=("last",))


@dataclass(frozen=True)
class Norm(StepDetector):
    """Largest norm of a state so far."""

    scale: float = 1.0

    def advance(self, state: NDArray[np.float32], step: int, before: float) -> float:
        norm = float(np.linalg.norm(state)) * self.scale
        return norm if step == 1 else max(before, norm)


def test_a_detector_of_a_third_party(tmp_path: Path) -> None:
    benign, held = traced("guard", "harmless", 30), traced("calibration", "harmless", 19)
    for detector in (LOWEST, LOWEST.fit(benign, anchors=anchors())):
        guard = fit_guard(benign, held, detector=detector, anchors=anchors(), alpha=0.1)
        assert guard.name == "lowest"
        path = guard.save(tmp_path / "guard.safetensors")
        again = load_guard(path, detector=Lowest)
        same(guard, again)
        assert isinstance(again.detector, Lowest)
        assert again.detector.words == ("a", "b")
        with pytest.raises(InputError, match=r"'lowest', which nothing provides.*detector=\.\.\."):
            load_guard(path)
    alone = fit_guard(held, detector=guard.detector, alpha=0.1)
    assert alone.threshold == guard.threshold, "a fitted detector is only calibrated"


def test_a_streaming_detector_of_a_third_party(tmp_path: Path) -> None:
    guard = fit_streaming_guard(
        traced("guard", "harmless", 30),
        traced("calibration", "harmless", 19),
        detector=Norm(),
        alpha=0.1,
    )
    assert (guard.name, guard.layers, guard.anchors) == ("Norm", ("last",), None)
    same(guard, load_guard(guard.save(tmp_path / "guard"), detector=Norm))
    stream = demur.steps(
        guarded.model(), world.prompts("test", "harmful", n=3), sampler=guarded.SAMPLER
    )
    *_, last = guard.watch(stream)
    assert all(np.isfinite(reading.statistic) for reading in last.readings)
    assert all(np.isnan(reading.sigma) for reading in last.readings)


def test_an_installed_detector_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages"
    (package / "shouting-1.dist-info").mkdir(parents=True)
    (package / "shouting-1.dist-info" / "METADATA").write_text("Name: shouting\nVersion: 1\n")
    (package / "shouting-1.dist-info" / "entry_points.txt").write_text(
        "[demur.detectors]\nshouting = shouting:SHOUTING\n"
    )
    (package / "shouting.py").write_text(
        """
from dataclasses import dataclass
import numpy as np
from demur.detectors import DetectionMethod, Detector

@dataclass(frozen=True)
class Shouting(Detector):
    mark: str = "!"
    def score(self, traces):
        return np.array([trace.response.count(self.mark) for trace in traces], dtype=np.float32)

SHOUTING = DetectionMethod("shouting", "marks", "a test", Shouting, lambda given: Shouting())
"""
    )
    monkeypatch.syspath_prepend(str(package))
    held = traced("calibration", "harmless", 19)
    method = import_module("shouting").SHOUTING
    path = fit_guard(held, held, detector=method, alpha=0.1).save(tmp_path / "guard")
    # Installed packages are looked up once a process.
    code = f"from demur.guard import load_guard; print(load_guard({str(path)!r}).detector)"
    environment = {**os.environ, "PYTHONPATH": str(package)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert said.stdout.startswith("Shouting(name='shouting'")


def test_a_field_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    odd: Any = object()
    detector = dataclasses.replace(fit_lowest(Material(Traces(()), anchors())), words=odd)
    guard = fit_guard(traced("calibration", "harmless", 19), detector=detector, alpha=0.1)
    with pytest.raises(InputError, match="Field 'words' of a detector is of type object"):
        guard.save(tmp_path / "guard")


# ---------------------------------------------------------------------------------- files of before


@pytest.mark.parametrize("name", ["sri", "sri-standardised"])
def test_a_file_of_version_1_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    guard = fitted(name)
    arrays = {
        key: value for key, value in vars(guard.detector).items() if key in ("mean", "spread")
    }
    for place, pair in enumerate(
        zip(guard.detector.weights, guard.detector.biases, strict=True)  # type: ignore[attr-defined]
    ):
        arrays |= {f"weight_{place}": pair[0], f"bias_{place}": pair[1]}
    arrays |= {"calibration": guard.calibration, **anchors()["last"].arrays()}
    about = {"threshold": guard.threshold, "alpha": 0.1, "method": "conformal", "name": name}
    about["anchors"] = anchors()["last"].about()
    old = write_tensors(tmp_path / "old.safetensors", arrays, kind="guard", about=about)
    same(guard, Guard.load(old))
    same(guard, load_guard(Guard.load(old).save(tmp_path / "new.safetensors")))


def test_a_streaming_file_of_version_1_gives_the_same_scores(tmp_path: Path) -> None:
    guard = streaming("sri-step")
    arrays = {"middle": -guard.middle, "spread": guard.spread, **anchors()["last"].arrays()}
    arrays["calibration_all"] = guard.calibration
    about = {
        "alpha": 0.1,
        "method": "conformal",
        "name": "sri",
        "groups": {"all": guard.threshold},
        "fingerprint": dataclasses.asdict(guard.fingerprint),
        "anchors": anchors()["last"].about(),
    }
    old = write_tensors(tmp_path / "old", arrays, kind="streaming_guard", about=about)
    same(guard, StreamingGuard.load(old))
    same(guard, load_guard(StreamingGuard.load(old).save(tmp_path / "new")))


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = fitted("length").save(tmp_path / "guard")
    arrays, about = read_tensors(path, kind="guard")
    write_tensors(path, arrays, kind="guard", about={**about, "version": 3})
    with pytest.raises(InputError, match=r"file version 3.*--upgrade"):
        load_guard(path)
    with pytest.raises(InputError, match=r"demur guard fit RUN"):
        load_guard(tmp_path / "nothing")
