"""Dream's sampler on any masked model: rows do not see each other, every position once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demur.errors import InputError
from demur.generation import trace_batch
from demur.models.base import LanguageModel
from demur.sampling import Dream
from demur.types import Prompt, Record

ALGORITHMS = ["origin", "maskgit_plus", "topk_margin", "entropy"]


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    alg=st.sampled_from(ALGORITHMS),
    temperature=st.sampled_from([0.0, 0.7]),
    alg_temp=st.sampled_from([0.0, 0.4]),
)
def test_batched_equals_single(
    tiny_dlm: LanguageModel, lengths: list[int], alg: Any, temperature: float, alg_temp: float
) -> None:
    """Upstream this does not hold: there the number of commits is the batch's mean."""
    sampler = Dream(
        steps=5, gen_length=8, alg=alg, temperature=temperature, alg_temp=alg_temp, top_p=0.9
    )
    prompts = [
        Prompt(f"w{n}", id=f"{k}", user=("w1 " * n, k % 3, "w2"), response=("w5", 2 + k))
        for k, n in enumerate(lengths)
    ]
    for prompt, one in zip(prompts, trace_batch(tiny_dlm, prompts, sampler=sampler), strict=True):
        [alone] = trace_batch(tiny_dlm, [prompt], sampler=sampler)
        np.testing.assert_array_equal(one.committed, alone.committed)
        np.testing.assert_array_equal(one.draft, alone.draft)
        np.testing.assert_allclose(one.phi["last"], alone.phi["last"], atol=1e-5)
        assert one.filled_prompt == alone.filled_prompt


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_position_is_committed_once(tiny_dlm: LanguageModel, alg: Any) -> None:
    prompts = [Prompt(f"w{k}", id=f"{k}") for k in range(6)]
    for one in trace_batch(tiny_dlm, prompts, sampler=Dream(steps=6, gen_length=10, alg=alg)):
        assert one.n_steps <= 6
        for before, after in zip(one.committed, one.committed[1:], strict=False):
            np.testing.assert_array_equal(after[before >= 0], before[before >= 0])
        assert (one.committed[-1] >= 0).all()
        assert (one.draft != 3).all()


def test_origin_commits_by_chance(tiny_dlm: LanguageModel) -> None:
    prompts = [Prompt("w1", id=f"{k}") for k in range(12)]
    traces = trace_batch(tiny_dlm, prompts, sampler=Dream(steps=4, gen_length=12, alg="origin"))
    firsts = [int((t.committed[0] >= 0).sum()) for t in traces]
    assert len(set(firsts)) > 2
    assert 1.5 < np.mean(firsts) < 4.5


def test_drawn_positions_follow_confidence_as_it_cools(tiny_dlm: LanguageModel) -> None:
    prompts = [Prompt(f"w{k}", id=f"{k}") for k in range(4)]
    plain = trace_batch(tiny_dlm, prompts, sampler=Dream(steps=4, gen_length=8))
    cold = trace_batch(tiny_dlm, prompts, sampler=Dream(steps=4, gen_length=8, alg_temp=1e-6))
    hot = trace_batch(tiny_dlm, prompts, sampler=Dream(steps=4, gen_length=8, alg_temp=50.0))
    for a, b in zip(plain, cold, strict=True):
        np.testing.assert_array_equal(a.committed, b.committed)
    assert any((a.committed[0] != c.committed[0]).any() for a, c in zip(plain, hot, strict=True))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"alg": "best"}, "Known: origin"),
        ({"steps": 0}, "at least 1"),
        ({"alg_temp": -1.0}, "0 or more"),
        ({"top_p": 0.0}, "above 0"),
        ({"eps": 1.0}, "between 0 and 1"),
    ],
)
def test_settings_that_do_not_fit(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Dream(**wrong)


def test_autoregressive_models_are_refused(tiny_ar: LanguageModel) -> None:
    with pytest.raises(InputError, match="no mask token"):
        trace_batch(tiny_ar, [Prompt("w1")], sampler=Dream(), record=Record(pooling="response"))
