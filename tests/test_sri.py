"""Anchors and the signal, against a plain restatement of the paper's formulas."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import demur
from demur.alignment import align
from demur.errors import FingerprintError, InputError, SignalError
from demur.judges import Verdict
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive
from demur.sri import Anchors, log_ratio
from demur.types import Trace, Traces

SCRIPTS = Path(__file__).parents[1] / "scripts"


def some_anchors(steps: int = 5, width: int = 7, seed: int = 0) -> Anchors:
    values = np.random.default_rng(seed).normal(size=(2, steps, width)).astype(np.float32)
    return Anchors(values[0], values[1])


def sigma_by_hand(phi: NDArray[np.float32], anchors: Anchors) -> list[float]:
    """arXiv:2602.02600, section 3, one step at a time."""
    out = []
    for state, good, bad in zip(phi, anchors.harmless, anchors.harmful, strict=True):

        def distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
            return 1 - float(np.dot(a, b)) / math.sqrt(np.dot(a, a)) / math.sqrt(np.dot(b, b))

        ratio = math.log(distance(state, bad) + 1e-8) - math.log(distance(state, good) + 1e-8)
        out.append(1 / (1 + math.exp(-ratio / 0.1)))
    return out


def test_signal_is_the_papers() -> None:
    anchors = some_anchors()
    phi = np.random.default_rng(1).normal(size=(6, 5, 7)).astype(np.float32)
    expected = [sigma_by_hand(row, anchors) for row in phi]
    np.testing.assert_allclose(demur.signal(phi, anchors), expected, atol=1e-5)
    np.testing.assert_allclose(demur.signal(phi[0], anchors), expected[0], atol=1e-5)


def test_sign_and_ends() -> None:
    anchors = some_anchors()
    at_harmless = demur.signal(anchors.harmless, anchors)
    at_harmful = demur.signal(anchors.harmful, anchors)
    assert (at_harmless > 0.99).all()
    assert (at_harmful < 0.01).all()
    assert (log_ratio(anchors.harmless, anchors) > 0).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 9), st.integers(0, 10**6))
def test_signal_is_bounded_and_scale_free(rows: int, steps: int, width: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    anchors = some_anchors(steps, width, seed)
    phi = generator.normal(size=(rows, steps, width)).astype(np.float32)
    sigma = demur.signal(phi, anchors)
    assert sigma.shape == (rows, steps)
    assert ((sigma >= 0) & (sigma <= 1)).all()
    np.testing.assert_allclose(demur.signal(phi * 3, anchors), sigma, atol=2e-4)


def test_wrong_shape_and_nan_are_refused() -> None:
    anchors = some_anchors()
    with pytest.raises(SignalError, match=r"States are \[5, 6\]"):
        demur.signal(np.ones((5, 6)), anchors)
    broken = np.ones((2, 5, 7))
    broken[1, 3, 0] = np.inf
    with pytest.raises(SignalError, match="NaN or infinite"):
        demur.signal(broken, anchors)
    with pytest.raises(SignalError, match="harmful anchors hold NaN"):
        Anchors(np.ones((2, 3), np.float32), np.full((2, 3), np.nan, np.float32))


@pytest.fixture(scope="module")
def labelled(tiny_ar: LanguageModel) -> list[Trace]:
    prompts = [
        demur.Prompt(f"w{i} w{i + 1}", label="harmless" if i < 4 else "harmful") for i in range(8)
    ]
    return list(demur.trace(tiny_ar, prompts, sampler=Autoregressive(steps=6)))


def test_anchors_are_class_means(labelled: list[Trace]) -> None:
    refused = [True, False, False, False, True, True, False, True]
    anchors = demur.fit_anchors(labelled, refused, allow_few=True)
    expected = np.mean([align(labelled[i].phi["last"], 6) for i in (1, 2, 3)], axis=0)
    np.testing.assert_allclose(anchors.harmless, expected, atol=1e-6)
    assert anchors.counts == (3, 3)
    assert anchors.steps == 6
    assert anchors.alignment == "repeat_state"


def test_a_judge_can_be_passed(labelled: list[Trace]) -> None:
    def longest(goal: str, response: str) -> Verdict:
        return Verdict("hit" if len(response) >= median else "miss")

    median = sorted(len(t.response) for t in labelled)[4]
    refused = [len(t.response) >= median for t in labelled]
    one, other = (
        demur.fit_anchors(labelled, longest, allow_few=True),
        demur.fit_anchors(labelled, refused, allow_few=True),
    )
    np.testing.assert_array_equal(one.harmful, other.harmful)


def test_verdicts_must_be_one_for_each_trace(labelled: list[Trace]) -> None:
    with pytest.raises(InputError, match="more traces than the 7 pairs"):
        demur.fit_anchors(labelled, [True] * 7, allow_few=True)
    with pytest.raises(InputError, match="more verdicts than the 8 pairs"):
        demur.fit_anchors(labelled, [False] * 4 + [True] * 5, allow_few=True)
    with pytest.raises(InputError, match="is 'harmless'; it must be True"):
        demur.fit_anchors(labelled, [t.prompt.label for t in labelled], allow_few=True)


def test_signal_takes_traces(tiny_ar: LanguageModel, labelled: list[Trace]) -> None:
    anchors = demur.fit_anchors(
        labelled, [t.prompt.label == "harmful" for t in labelled], allow_few=True
    )
    traces = Traces(tuple(labelled))
    np.testing.assert_array_equal(
        demur.signal(traces, anchors), demur.signal(anchors.states(traces), anchors)
    )


def test_a_layer_that_was_not_recorded_is_one_error(labelled: list[Trace]) -> None:
    for read in (
        lambda: demur.fit_anchors(labelled, [True] * 8, layer="first", allow_few=True),
        lambda: Traces(tuple(labelled)).states("first"),
        lambda: labelled[0].states("first"),
    ):
        with pytest.raises(InputError, match="Trace again with --layers first"):
            read()


def test_empty_class_says_how_many_were_refused(labelled: list[Trace]) -> None:
    with pytest.raises(SignalError, match="refused all 4 harmless prompts"):
        demur.fit_anchors(labelled, [True] * 8, allow_few=True)


def test_saved_anchors_come_back(labelled: list[Trace], tmp_path: Path) -> None:
    anchors = demur.fit_anchors(
        labelled, [t.prompt.label == "harmful" for t in labelled], allow_few=True
    )
    again = Anchors.load(anchors.save(tmp_path / "anchors.safetensors"))
    np.testing.assert_array_equal(again.harmful, anchors.harmful)
    assert again.fingerprint == anchors.fingerprint
    assert again.counts == anchors.counts


def test_traces_of_another_sampler_are_refused(
    labelled: list[Trace], tiny_ar: LanguageModel
) -> None:
    anchors = demur.fit_anchors(
        labelled, [t.prompt.label == "harmful" for t in labelled], allow_few=True
    )
    other = demur.trace(tiny_ar, ["w1"], sampler=Autoregressive(steps=7))
    with pytest.raises(FingerprintError, match=r"sampler.*demur anchors"):
        anchors.states(other)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No anchors file"):
        Anchors.load(tmp_path / "none.safetensors")
    saved = some_anchors().save(tmp_path / "a.safetensors")
    saved.write_bytes(saved.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged"):
        Anchors.load(saved)


def test_released_anchors_file_reads(tmp_path: Path) -> None:
    import torch

    pair = (torch.randn(32, 8, dtype=torch.bfloat16), torch.randn(32, 8, dtype=torch.bfloat16))
    torch.save(pair, tmp_path / "centers.pt")
    anchors = demur.import_anchors(tmp_path / "centers.pt")
    assert anchors.harmless.shape == (32, 8)
    assert anchors.harmless.dtype == np.float32
    np.testing.assert_array_equal(anchors.harmful, pair[1].float().numpy())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch /tmp/demur-was-here",)


def test_malicious_anchors_file_runs_nothing(tmp_path: Path) -> None:
    import pickle

    target = Path("/tmp/demur-was-here")
    target.unlink(missing_ok=True)
    (tmp_path / "centers.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not a released anchors file"):
        demur.import_anchors(tmp_path / "centers.pt")
    assert not target.exists()


@pytest.mark.parametrize("equal_at", [None, 3])
def test_the_check_of_released_anchors(equal_at: int | None, tmp_path: Path) -> None:
    import torch

    harmless, harmful = torch.randn(2, 32, 64, dtype=torch.bfloat16)
    if equal_at is not None:
        harmful[equal_at] = harmless[equal_at]
    torch.save((harmless, harmful), tmp_path / "centers.pt")
    command = [sys.executable, str(SCRIPTS / "check_released_anchors.py"), tmp_path / "centers.pt"]
    done = subprocess.run(command, capture_output=True, text=True)
    if equal_at is None:
        assert "32 steps of width 64" in done.stdout, done.stderr
    else:
        assert "equal at some step" in done.stderr


def test_answers_without_a_verdict_are_in_no_class(labelled: list[Trace]) -> None:
    def judge(goal: str, response: str) -> Verdict:
        number = int(goal.split()[0][1:])
        if number in (0, 7):
            return Verdict("unparsed")
        return Verdict("hit" if number >= 4 else "miss")

    anchors = demur.fit_anchors(labelled, judge, allow_few=True)
    assert (anchors.counts, anchors.dropped) == ((3, 3), (1, 1))
    assert "3 harmless and 3 harmful traces" in anchors.few
