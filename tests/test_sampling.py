"""The table of samplers, their specs, and one row's noise."""

from __future__ import annotations

import pytest
import torch

from demur.errors import InputError
from demur.sampling import SAMPLERS, RowNoise, sampler_from, spec
from demur.sampling.nucleus import nucleus


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
    both = RowNoise.seeded([1, 2]).uniform(where, 4)
    assert torch.equal(both[:2], RowNoise.seeded([1]).uniform(where[:1], 4))
    assert torch.equal(both[2:], RowNoise.seeded([2]).uniform(where[1:], 4))
    kept = RowNoise.seeded([1, 2]).keep(torch.tensor([1])).uniform(where[1:], 4)
    assert torch.equal(kept, both[2:])


def test_choose_draws_what_is_likely() -> None:
    p = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    noise = RowNoise.seeded([3, 4])
    drawn = torch.stack([noise.choose(p) for _ in range(200)])
    assert (drawn[:, 0] == 1).all()
    assert 60 < int((drawn[:, 1] == 0).sum()) < 140
    assert (drawn[:, 1] != 1).all()


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
    ],
)
def test_nucleus(options: dict[str, float], kept: list[int]) -> None:
    logits = torch.tensor([[0.55, 0.25, 0.15, 0.05]]).log()
    found = nucleus(logits, **options)  # type: ignore[arg-type]
    assert torch.isfinite(found[0]).nonzero()[:, 0].tolist() == kept
