"""Memory that does not suffice: batches are halved and no row is lost."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from demur.generation import batches, trace, trace_batch
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, Masked
from demur.sampling.fitting import (
    CPU_BATCH,
    in_halves,
    largest_that_fits,
    out_of_memory,
    run_steps,
)
from demur.types import Prompt, Record

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
    expected = trace_batch(tiny_dlm, PROMPTS, sampler=SAMPLER)

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


def test_the_largest_that_fits_is_found_by_the_allocator() -> None:
    """In a process that may have 1 GiB more than it has: 8 x 100 MiB fit, 16 x 100 MiB do not."""
    script = """
        import resource, torch
        from demur.sampling.fitting import largest_that_fits

        torch.set_num_threads(1)
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        tried = []
        def allocate(size):
            tried.append(size)
            torch.ones(size, 100 * 2**20, dtype=torch.uint8)
        print(largest_that_fits(256, allocate), tried)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "8 [2, 4, 8, 16]"


def test_errors_of_a_try_are_not_taken_for_memory() -> None:
    def broken(size: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        largest_that_fits(8, broken)
    assert largest_that_fits(1, broken) == 1
    assert largest_that_fits(7, lambda size: None) == 4


@pytest.mark.parametrize("kind", ["tiny_ar", "tiny_dlm"])
def test_a_try_runs_the_first_steps_as_they_will_be(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    sampler = Autoregressive(steps=8) if kind == "tiny_ar" else SAMPLER
    record = Record(layers=("last", "first"), pooling="running")
    steps = run_steps(model, [PROMPTS[3]] * 4, sampler, count=2, record=record)
    assert [step.index for step in steps] == [1, 2]
    assert {layer: len(phi) for layer, phi in steps[0].phi.items()} == {"last": 4, "first": 4}


def test_batches_go_by_the_tokens_that_are_read(tiny_dlm: LanguageModel) -> None:
    """A template of masked slots is long without having a long text."""
    prompts = [
        Prompt("w1 w2 w3 w4 w5", id="text"),
        Prompt("x", id="slots", user=("w1", 30)),
        Prompt("w1", id="short"),
    ]
    assert batches(tiny_dlm, prompts, SAMPLER, batch_size=1) == [[2], [0], [1]]
    assert batches(tiny_dlm, prompts, SAMPLER, batch_size=2) == [[2, 0], [1]]
    assert batches(tiny_dlm, [], SAMPLER, batch_size="auto") == []


def test_peak_memory_is_that_of_this_process() -> None:
    """What was held once stays in it."""
    script = """
        import torch
        from demur.sampling.fitting import peak_memory

        torch.ones(2**30, dtype=torch.uint8)
        print(peak_memory(torch.device("cpu")))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 3


def test_auto_on_a_cpu(tiny_dlm: LanguageModel) -> None:
    sizes: list[int] = []
    hook = tiny_dlm.net.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    many = [Prompt(f"w{n}", id=f"{n}") for n in range(CPU_BATCH + 1)]
    trace(tiny_dlm, many, sampler=SAMPLER, batch_size="auto")
    hook.remove()
    assert set(sizes) == {CPU_BATCH, 1}
