"""``demur.compat`` against the paper's released wrappers on the same tiny models, within 1e-5.

The numbers are frozen by ``tests/parity/freeze_wrappers.py``, which names the upstream commits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
from demur import compat
from demur.sri import Anchors, signal
from parity import tiny

FROZEN = json.loads((Path(__file__).parent / "parity" / "wrappers.json").read_text())["cases"]


def drawn() -> tuple[Any, Any]:
    """Centers and states as the freezing script draws them."""
    random = np.random.RandomState(5)
    shared = random.standard_normal((1, 6, 24))
    mean = shared + 0.3 * random.standard_normal((2, 6, 24))
    return mean, shared + 0.3 * random.standard_normal((5, 6, 24))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "llada"])
def test_activations_equal_the_wrapper(kind: str, batch_size: int, tmp_path: Path) -> None:
    model = demur.load(getattr(tiny, kind)(tmp_path / kind))
    frozen = FROZEN[kind]
    found = compat.activations(model, frozen["prompts"], batch_size=batch_size, **frozen["args"])
    np.testing.assert_allclose(found, np.array(frozen["states"]), atol=1e-5)


def test_an_early_end_is_among_the_frozen_ones(tmp_path: Path) -> None:
    """Else the repeated state would not have been tested."""
    model = demur.load(tiny.llama(tmp_path / "llama"))
    batch = compat.encode(model, FROZEN["llama"]["prompts"])
    assert batch.ids[batch.attention].eq(0).sum() == 2 * len(batch.ids)
    out = model.net.generate(
        input_ids=batch.ids,
        attention_mask=batch.attention.long(),
        max_new_tokens=10,
        do_sample=False,
    )
    ends = (out[:, batch.ids.shape[1] :] == 1).long().cumsum(1).clamp(max=1).sum(1)
    assert ((ends > 1) & (ends < 10)).any()
    assert (ends == 0).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_signal_equals_the_wrapper(dtype: str) -> None:
    centers, states = drawn()
    found = compat.create_signal(tuple(centers), states, dtype=getattr(torch, dtype))
    np.testing.assert_allclose(found, np.array(FROZEN["signal"][dtype]), atol=1e-5)


def test_own_signal_is_the_float32_one() -> None:
    centers, states = drawn()
    own = signal(states, Anchors(*centers.astype(np.float32)))
    np.testing.assert_allclose(own, np.array(FROZEN["signal"]["float32"]), atol=1e-5)
    assert np.abs(own - np.array(FROZEN["signal"]["bfloat16"])).max() > 1e-3
