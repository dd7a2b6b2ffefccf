"""The table of samplers, their specs, and one row's noise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2

from demur.errors import InputError
from demur.sampling import SAMPLERS, RowNoise, sampler_from, spec
from demur.sampling.choice import nucleus
from parity.blocks import save_sdar


@pytest.mark.parametrize("name", SAMPLERS)
def test_spec_is_the_inverse_of_sampler_from(name: str) -> None:
    sampler = SAMPLERS[name]()
    written = spec(sampler)
    assert written["name"] == name
    assert sampler_from(written) == sampler
    assert sampler_from({"name": name}) == sampler


def test_specs_are_plain_data() -> None:
    for name in SAMPLERS:
        for value in spec(SAMPLERS[name]()).values():
            assert value is None or isinstance(value, str | int | float | bool)


def test_unknown_sampler_and_setting() -> None:
    with pytest.raises(InputError, match="Known: autoregressive, masked"):
        sampler_from({"name": "beam"})
    with pytest.raises(InputError, match=r"no setting beams\. It has: .*temperature"):
        sampler_from({"name": "autoregressive", "beams": 3})


def test_a_rows_numbers_do_not_depend_on_its_neighbours() -> None:
    where = torch.tensor([[True, True, False], [True, False, False]])
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    for draw in (
        lambda noise, rows, own: noise.uniform(where[rows]),
        lambda noise, rows, own: noise.choose(logits[own], where[rows]),
    ):
        both = draw(RowNoise.seeded([1, 2]), slice(0, 2), slice(0, 3))
        assert torch.equal(both[:2], draw(RowNoise.seeded([1]), slice(0, 1), slice(0, 2)))
        assert torch.equal(both[2:], draw(RowNoise.seeded([2]), slice(1, 2), slice(2, 3)))
        kept = RowNoise.seeded([1, 2]).keep(torch.tensor([1]))
        assert torch.equal(both[2:], draw(kept, slice(1, 2), slice(2, 3)))


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 16, 17, 40])
def test_choose_draws_by_probability(vocabulary: int) -> None:
    """No index is drawn more or less often than chance allows, at the level of 1 in 10,000."""
    draws = 20_000
    logits = 2 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    if vocabulary > 2:
        logits[1] = -torch.inf
    where = torch.ones(1, draws, dtype=torch.bool)
    found = RowNoise.seeded([3]).choose(logits.expand(draws, -1), where)
    expected = draws * logits.double().softmax(-1)
    counts = torch.bincount(found, minlength=vocabulary)
    assert len(counts) == vocabulary
    assert counts[expected == 0].sum() == 0
    common = expected >= 5
    statistic = ((counts - expected) ** 2 / expected)[common].sum().item()
    assert statistic < chi2.ppf(1 - 1e-4, df=int(common.sum()))


def test_a_rounding_error_does_not_change_what_is_drawn() -> None:
    dice = torch.Generator().manual_seed(5)
    logits = torch.randn(500, 2000, generator=dice)
    nearly = logits + 1e-6 * torch.randn(logits.shape, generator=dice)
    where = torch.ones(1, 500, dtype=torch.bool)
    drawn = [RowNoise.seeded([6]).choose(values, where) for values in (logits, nearly)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.5}, [0]),
        ({"top_p": 0.75}, [0, 1]),
        ({"top_p": 0.01}, [0]),
        ({"top_k": 3, "top_p": 0.9}, [0, 1, 2]),
        # Of the two most likely alone, the first would be the whole nucleus.
        ({"top_k": 2, "top_p": 0.65}, [0, 1]),
    ],
)
def test_nucleus(options: dict[str, float], kept: list[int]) -> None:
    logits = torch.tensor([[0.55, 0.25, 0.15, 0.05]]).log()
    found = nucleus(logits, **options)  # type: ignore[arg-type]
    assert torch.isfinite(found[0]).nonzero()[:, 0].tolist() == kept


@pytest.mark.parametrize("name", ["organism-ar", "organism-dlm", "sdar"])
def test_steps_that_are_kept_until_exit_print_nothing(tmp_path: Path, name: str) -> None:
    """A generator suspended in inference mode printed "Exception ignored in generator"."""
    path = str(save_sdar(tmp_path / "tiny-sdar")) if name == "sdar" else name
    code = f"""
import demur
from demur.sampling import RowNoise, sampler_from
from demur.types import Prompt, Record
model = demur.load({path!r})
sampler = sampler_from(model.traits.sampler)
batch, record = model.encode([Prompt("w1 w2")]), Record(pooling=model.traits.pooling)
steps = sampler.run(model, batch, record, RowNoise.seeded([0]))
assert next(iter(steps)).index == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Exception ignored" not in done.stderr
