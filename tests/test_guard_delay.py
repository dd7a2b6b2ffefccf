"""How soon a guard detects, and what had left by then."""

from __future__ import annotations

import dataclasses

import numpy as np

import guarded
from demur.guard import detection_delay
from demur.types import Traces


def test_delay_of_jailbreaks_and_of_passed_generations() -> None:
    guard = guarded.guard()
    traces = Traces(
        (
            *guarded.traced("test", "harmless", 6),
            *guarded.traced("test", "harmful", 12, attack="wild"),
        )
    )
    found = detection_delay(guard, traces)
    np.testing.assert_array_equal(found.step, guard.detect(traces))
    lengths = [len(t.response_ids) for t in traces]
    expected = np.where(found.step > 0, found.step - 1, lengths)
    np.testing.assert_array_equal(found.tokens_out, expected)
    assert found.curve.shape == (24,)
    assert (np.diff(found.curve) >= 0).all()
    assert found.curve[-1] == (found.step > 0).mean()
    assert found.curve[0] == (found.step == 1).mean()


def test_a_diffusion_block_is_out_when_the_next_one_began() -> None:
    guard, traces = guarded.guard(), guarded.traced("test", "harmful", 4, attack="flip")
    mark = dataclasses.replace(guard.fingerprint, sampler={"name": "masked", "steps": 24})
    guard = dataclasses.replace(guard, fingerprint=mark)
    blocks = [np.arange(t.n_steps, dtype=np.int32) // 8 for t in traces]
    by_block = Traces(
        tuple(
            dataclasses.replace(t, fingerprint=mark, blocks=b)
            for t, b in zip(traces, blocks, strict=True)
        )
    )
    found = detection_delay(guard, by_block)
    for step, out in zip(found.step, found.tokens_out, strict=True):
        if step:
            assert out == max(0, step - 2) // 8 * 8
