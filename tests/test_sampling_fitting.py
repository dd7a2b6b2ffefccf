"""Memory that does not suffice: batches are halved and no row is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demur.models.base import LanguageModel
from demur.sampling import Masked
from demur.sampling.fitting import CPU_BATCH, in_halves, out_of_memory
from demur.tracing import record, trace
from demur.types import Prompt

PROMPTS = [Prompt("w1 " * n, id=f"{n}") for n in (1, 3, 2, 6, 4, 5, 7)]
SAMPLER = Masked(steps=4, gen_length=8, block_length=8)


def test_halves_keep_the_order_and_lose_nothing() -> None:
    tried = []

    def work(items: list[int]) -> list[int]:
        tried.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return [10 * item for item in items]

    assert in_halves(list(range(7)), work) == [10 * i for i in range(7)]  # type: ignore[arg-type]
    assert tried == [7, 3, 1, 2, 4, 2, 2]


def test_one_row_that_does_not_fit_is_an_error() -> None:
    def work(items: object) -> list[int]:
        raise MemoryError

    with pytest.raises(MemoryError):
        in_halves([1, 2], work)


def test_other_errors_are_not_retried() -> None:
    tried = []

    def work(items: object) -> list[int]:
        tried.append(items)
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        in_halves([1, 2], work)
    assert len(tried) == 1
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))


def test_tracing_goes_on_with_fewer_rows(tiny_dlm: LanguageModel) -> None:
    """The network itself refuses more than two rows."""
    expected = record(tiny_dlm, PROMPTS, sampler=SAMPLER)

    def refuse(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if len(kwargs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = tiny_dlm.net.model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        found = trace(tiny_dlm, PROMPTS, sampler=SAMPLER, batch_size=7)
    finally:
        hook.remove()
    assert [t.prompt.id for t in found] == [p.id for p in PROMPTS]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.committed, b.committed)
        np.testing.assert_allclose(a.phi["last"], b.phi["last"], atol=1e-5)


def test_auto_on_a_cpu(tiny_dlm: LanguageModel) -> None:
    sizes: list[int] = []
    hook = tiny_dlm.net.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    many = [Prompt(f"w{n}", id=f"{n}") for n in range(CPU_BATCH + 1)]
    trace(tiny_dlm, many, sampler=SAMPLER, batch_size="auto")
    hook.remove()
    assert set(sizes) == {CPU_BATCH, 1}
