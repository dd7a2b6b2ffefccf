"""Rows join and leave a running batch, and each answer is what it would be alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
import torch

import demur
from demur.models.base import LanguageModel
from demur.sampling import (
    Autoregressive,
    Block,
    Dream,
    Masked,
    Sampler,
    sampler_from,
)
from demur.sampling.autoregressive import TokenBatch
from demur.sampling.denoising import size_class
from demur.serve.model_engine import RequestQueue
from demur.serve.running_batch import (
    APART,
    GATHER,
    PATIENCE,
    PREFILL_TOKENS,
    SHARED,
    ContinuousBatch,
    GroupedBatch,
    RunningBatch,
    new_batch,
)
from demur.serve.sequence import ServedSequence
from demur.types import Prompt, Record
from parity.blocks import save_sdar

TEXTS = [" ".join(f"w{(3 * i + j) % 40}" for j in range(1 + (7 * i) % 23)) for i in range(14)]


def a_job(model: LanguageModel, text: str, sampler: Sampler, **about: Any) -> ServedSequence:
    return ServedSequence(
        prompt=model.chat.ids(Prompt(text), mask_id=None),
        sampler=sampler,
        seed=about.pop("seed", 7),
        most=about.pop("most", sampler.new_tokens),
        events=asyncio.Queue(),
        **about,
    )


def continuous(
    model: LanguageModel, rows: int, layers: tuple[str, ...] = ("last",)
) -> ContinuousBatch:
    batch = TokenBatch(model, Record(layers=layers, pooling="running"), rows=rows)
    return ContinuousBatch(model, batch, rows=rows)


@torch.inference_mode()
def driven(
    batch: RunningBatch,
    jobs: Sequence[ServedSequence],
    *,
    when: Callable[[int], int],
    leave: Sequence[ServedSequence] = (),
) -> tuple[dict[ServedSequence, list[int]], dict[ServedSequence, list[torch.Tensor]]]:
    """Run to the end; ``when(place)`` is the turn at which a job joins. Tokens and states of each."""
    tokens: dict[ServedSequence, list[int]] = {job: [] for job in jobs}
    states: dict[ServedSequence, list[torch.Tensor]] = {job: [] for job in jobs}
    alive, turn = set(jobs) - set(leave), 0
    while alive:
        batch.join([job for place, job in enumerate(jobs) if when(place) == turn])
        turn += 1
        for output in batch.advance():
            for place, job in enumerate(output.sequences):
                tokens[job] += output.released[place]
                if output.phi is not None:
                    states[job].append(output.phi["last"][place])
            over = [job for place, job in enumerate(output.sequences) if output.ended[place]]
            batch.leave([*over, *(leave if turn == 9 else ())])
            alive -= set(over)
        assert turn < 2000
    return tokens, states


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rows", [3, 64])
def test_rolling_rows_equal_single_ones(
    tiny_ar: LanguageModel, temperature: float, rows: int
) -> None:
    sampler = Autoregressive(steps=40, temperature=temperature, top_p=0.9)
    jobs = [a_job(tiny_ar, text, sampler, seed=i) for i, text in enumerate(TEXTS)]
    arrivals = random.Random(0).sample(range(60), len(jobs))
    if rows == 3:
        arrivals = [25 * (place // 3) for place in range(len(jobs))]
        jobs = [replace(job, most=min(job.most, 20)) for job in jobs]
    batch = continuous(tiny_ar, rows, layers=("last", "1"))
    tokens, states = driven(batch, jobs, when=arrivals.__getitem__)
    for job in jobs:
        alone = continuous(tiny_ar, 1)
        wanted, phi = driven(alone, [job], when=lambda place: 0)
        assert tokens[job] == wanted[job]
        assert torch.allclose(torch.stack(states[job]), torch.stack(phi[job]), atol=1e-4)


def test_a_row_of_nan_leaves_nothing_behind(tiny_ar: LanguageModel) -> None:
    """Whoever runs beside a row whose states overflow, or takes its place, is answered as alone."""
    bad = tiny_ar.chat.ids(Prompt("w39"), mask_id=None)[-2]
    clean = [text for text in TEXTS if "w39" not in text]
    sampler = Autoregressive(steps=30)
    jobs = [a_job(tiny_ar, text, sampler) for text in clean]
    long, *short = sorted(jobs, key=lambda job: len(job.prompt), reverse=True)
    poisoned = a_job(tiny_ar, "w39 " * 30, sampler)

    def overflow(_: Any, given: tuple[torch.Tensor, ...], states: torch.Tensor) -> torch.Tensor:
        return states.masked_fill((given[0] == bad)[..., None], torch.nan)

    hook = tiny_ar.net.get_input_embeddings().register_forward_hook(overflow)
    try:
        batch = continuous(tiny_ar, 64)
        jobs = [poisoned, long, *short]
        tokens, states = driven(
            batch, jobs, when=lambda place: 0 if place < 2 else 10 + 3 * place, leave=[poisoned]
        )
        assert torch.stack(states[poisoned]).isnan().all()
    finally:
        hook.remove()
    for job in (long, *short):
        alone = continuous(tiny_ar, 1)
        wanted, phi = driven(alone, [job], when=lambda place: 0)
        assert tokens[job] == wanted[job]
        assert torch.allclose(torch.stack(states[job]), torch.stack(phi[job]), atol=1e-4)


@pytest.mark.parametrize("pooling", ["running", "generated", "content"])
def test_rolling_equals_the_sampler(tiny_ar: LanguageModel, pooling: str) -> None:
    sampler, record = Autoregressive(steps=30), Record(pooling=pooling)
    jobs = [a_job(tiny_ar, text, sampler) for text in TEXTS]
    batch = ContinuousBatch(tiny_ar, TokenBatch(tiny_ar, record, rows=64), rows=64)
    tokens, states = driven(batch, jobs, when=lambda i: 2 * i)
    traces = demur.trace(tiny_ar, TEXTS, sampler=sampler, record=record)
    for job, trace in zip(jobs, traces, strict=True):
        assert tokens[job] == trace.response_ids.tolist()
        assert torch.allclose(
            torch.stack(states[job]), torch.from_numpy(trace.phi["last"]), atol=1e-4
        )


@pytest.mark.skipif(
    version("transformers") < "5", reason="these layers had a cache class of their own"
)
def test_layers_that_keep_a_state_are_generated_and_served(tiny_ar: LanguageModel) -> None:
    """Rows of such models cannot join others; they start together, offline and in the server."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(1)
    config = Lfm2Config(
        vocab_size=len(tiny_ar.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.5,
    )
    traits = replace(tiny_ar.traits, end_ids=tuple(range(2, 50, 6)))
    model = replace(tiny_ar, net=Lfm2ForCausalLM(config).eval(), traits=traits)
    sampler = Autoregressive(steps=20)
    jobs = [a_job(model, text, sampler) for text in TEXTS[:6]]
    batch = new_batch(model, sampler, Record(pooling="running"), rows=8)
    assert isinstance(batch, GroupedBatch)
    tokens, _ = driven(batch, jobs, when=lambda i: i // 3)
    for job, trace in zip(jobs, demur.trace(model, TEXTS[:6], sampler=sampler), strict=True):
        alone = model.net.generate(
            torch.tensor([job.prompt]),
            attention_mask=torch.ones(1, len(job.prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=list(model.traits.end_ids),
            pad_token_id=0,
        )
        assert tokens[job] == trace.response_ids.tolist() == alone[0, len(job.prompt) :].tolist()


def test_sliding_windows_hold_in_a_rolling_batch(tmp_path: Any) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    from conftest import save_tokenizer

    tokenizer = save_tokenizer(tmp_path)
    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.5,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path)
    model = demur.load(tmp_path)
    sampler = Autoregressive(steps=25)
    jobs = [a_job(model, text, sampler) for text in TEXTS[:6]]
    tokens, _ = driven(continuous(model, 8), jobs, when=lambda i: 5 * i)
    for job, trace in zip(jobs, demur.trace(model, TEXTS[:6], sampler=sampler), strict=True):
        assert tokens[job] == trace.response_ids.tolist()


def test_a_row_that_is_given_up_changes_no_other(tiny_ar: LanguageModel) -> None:
    jobs = [a_job(tiny_ar, text, Autoregressive(steps=30)) for text in TEXTS]
    batch = continuous(tiny_ar, 64)
    tokens, _ = driven(batch, jobs, when=lambda i: i % 3, leave=jobs[::4])
    assert batch.room == 64
    for job in set(jobs) - set(jobs[::4]):
        alone = continuous(tiny_ar, 1)
        assert tokens[job] == driven(alone, [job], when=lambda place: 0)[0][job]


def test_a_short_prompt_waits_for_no_more_than_one_long_one(tiny_ar: LanguageModel) -> None:
    long, sampler = "w1 " * 200, Autoregressive(steps=4)
    budget = PREFILL_TOKENS // 200
    jobs = [a_job(tiny_ar, long, sampler) for _ in range(4 * budget)]
    batch = continuous(tiny_ar, 200)
    with torch.inference_mode():
        batch.join(jobs)
        batch.advance()
        short = a_job(tiny_ar, "w1", sampler)
        batch.join([short])
        (output,) = batch.advance()
        assert short in output.sequences


@pytest.mark.parametrize("turns", [1, PATIENCE + 3])
def test_a_short_prompt_is_read_within_two_passes(tiny_ar: LanguageModel, turns: int) -> None:
    """However long the others have waited, no more than one of them goes before it."""
    long, sampler = "w1 " * 200, Autoregressive(steps=64)
    budget = PREFILL_TOKENS // 200
    jobs = [a_job(tiny_ar, long, sampler) for _ in range(3 * turns * budget)]
    batch = continuous(tiny_ar, 4000)
    with torch.inference_mode():
        batch.join(jobs)
        for _ in range(turns):
            (output,) = batch.advance()
        unread = len(jobs) - len(output.sequences)
        assert unread >= budget
        for _ in range(2):
            short = a_job(tiny_ar, "w1", sampler)
            batch.join([short])
            batch.advance()
            (output,) = batch.advance()
            assert short in output.sequences
        # Those that wait are read meanwhile, a whole pass of them at a time.
        assert len(jobs) - len(set(output.sequences) & set(jobs)) <= unread - 2 * (budget - 1)


def test_a_few_prompts_are_read_together(tiny_ar: LanguageModel) -> None:
    """Beside many rows a pass for each prompt that arrives would cost every row a pass."""
    sampler, passes = Autoregressive(steps=64), list[int]()
    batch = continuous(tiny_ar, 64)
    with torch.inference_mode():
        batch.join([a_job(tiny_ar, text, sampler) for text in TEXTS])
        (output,) = batch.advance()
        for _ in range(3 * GATHER):
            batch.join([a_job(tiny_ar, "w1", sampler)])
            before = len(output.sequences)
            (output,) = batch.advance()
            passes.append(len(output.sequences) - before)
    assert [each for each in passes if each][1:] == [GATHER] * 2
    assert passes.count(0) == 3 * (GATHER - 1)


def test_a_long_prompt_is_not_starved(tiny_ar: LanguageModel) -> None:
    sampler = Autoregressive(steps=1)
    batch = continuous(tiny_ar, 4000)
    late = a_job(tiny_ar, "w1 " * 200, sampler)
    with torch.inference_mode():
        batch.join([late])
        for _ in range(PATIENCE + 2):
            batch.join([a_job(tiny_ar, "w1 " * 90, sampler) for _ in range(30)])
            (output,) = batch.advance()
            batch.leave(list(output.sequences))
            if late in output.sequences:
                return
    pytest.fail("the long prompt was never read")


@pytest.mark.parametrize(
    "sampler",
    [
        Masked(steps=8, gen_length=16, block_length=16),
        Masked(steps=16, gen_length=16, block_length=4, temperature=1.0),
        Masked(steps=8, gen_length=16, block_length=8, remasking="random"),
    ],
    ids=["one block", "blocks", "random"],
)
def test_grouped_rows_equal_single_ones(tiny_dlm: LanguageModel, sampler: Masked) -> None:
    jobs = [a_job(tiny_dlm, text, sampler, seed=i) for i, text in enumerate(TEXTS)]
    pooling = tiny_dlm.traits.pooling

    def grouped() -> GroupedBatch:
        return GroupedBatch(tiny_dlm, Record(pooling=pooling), rows=64)

    tokens, states = driven(grouped(), jobs, when=lambda i: i % 5)
    for job in jobs:
        wanted, phi = driven(grouped(), [job], when=lambda place: 0)
        assert tokens[job] == wanted[job]
        assert torch.allclose(torch.stack(states[job]), torch.stack(phi[job]), atol=1e-4)


def test_only_finished_blocks_settle(tiny_dlm: LanguageModel) -> None:
    """While a row works on a block, none of it is given, and what was given stays as it is."""
    sampler = Masked(steps=16, gen_length=16, block_length=4, never_end=True)
    job = a_job(tiny_dlm, TEXTS[3], sampler)
    pooling = tiny_dlm.traits.pooling
    batch = GroupedBatch(tiny_dlm, Record(pooling=pooling), rows=4)
    given: list[int] = []
    with torch.inference_mode():
        batch.join([job])
        while batch.room < 4:
            for output in batch.advance():
                given += output.released[0]
                committed, _ = output.view(0)
                assert len(given) % 4 == 0
                assert committed[: len(given)] == given
                assert output.ended[0] or len(given) < sum(token >= 0 for token in committed)
                batch.leave([job] if output.ended[0] else [])
    assert len(given) == 16


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each pass of any model."""
    found: list[int] = []
    states = LanguageModel.states

    def counted(self: LanguageModel, ids: torch.Tensor, *rest: Any, **more: Any) -> Any:
        found.append(len(ids))
        return states(self, ids, *rest, **more)

    monkeypatch.setattr(LanguageModel, "states", counted)
    return found


def test_groups_share_their_passes_whatever_their_settings(
    tiny_dlm: LanguageModel, passes: list[int]
) -> None:
    """Eight settings, two of them with guidance, and two size classes: at most two passes a step for
    each class, and answers as alone."""
    settings: list[dict[str, Any]] = [
        {},
        {"temperature": 0.5},
        {"remasking": "random"},
        {"threshold": 0.3},
        {"cfg_scale": 0.5},
        {"cfg_scale": 1.0, "temperature": 1.0},
    ]
    samplers = [Masked(steps=8, gen_length=16, block_length=8, **each) for each in settings]
    samplers = [*samplers, Dream(steps=8, gen_length=16), Dream(steps=8, gen_length=16, eps=0.1)]
    pooling = tiny_dlm.traits.pooling
    jobs = [
        a_job(tiny_dlm, text, sampler, seed=i)
        for text in (TEXTS[0], TEXTS[3])
        for i, sampler in enumerate(samplers)
    ]
    classes = {size_class(len(job.prompt) + 16) for job in jobs}
    assert len(classes) == 2

    def grouped() -> GroupedBatch:
        return GroupedBatch(tiny_dlm, Record(pooling=pooling), rows=64)

    tokens, pooled = driven(grouped(), jobs, when=lambda _: 0)
    together = list(passes)
    passes.clear()
    alone = [driven(grouped(), [job], when=lambda _: 0) for job in jobs]
    assert len(together) <= 2 * 8 * len(classes)
    assert sum(together) == len(passes) == sum(passes)
    for job, (wanted, phi) in zip(jobs, alone, strict=True):
        assert tokens[job] == wanted[job]
        assert torch.allclose(torch.stack(pooled[job]), torch.stack(phi[job]), atol=1e-4)


def test_rows_that_nobody_follows_cost_no_pass(tiny_dlm: LanguageModel, passes: list[int]) -> None:
    """Neither those whose client has gone nor those that came to an end in an early block."""
    sampler = Masked(steps=16, gen_length=16, block_length=4, never_end=True)
    gone, short, *others = [
        a_job(tiny_dlm, text, sampler, most=most)
        for text, most in zip(["w1", "w2", "w3", "w4"], [16, 4, 16, 16], strict=True)
    ]

    def grouped() -> GroupedBatch:
        return GroupedBatch(tiny_dlm, Record(pooling="response"), rows=4)

    jobs = [gone, short, *others]
    tokens, _ = driven(grouped(), jobs, when=lambda _: 0, leave=[gone])
    # The short one settles with the first step of the second block; the other is gone after the ninth.
    assert passes == [4] * 5 + [3] * 4 + [2] * 7
    for job in (short, *others):
        alone = driven(grouped(), [job], when=lambda _: 0)[0]
        assert tokens[job] == alone[job]


@pytest.fixture(scope="module")
def tiny_sdar(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A block diffusion model, whose groups take passes of their own."""
    return demur.load(save_sdar(tmp_path_factory.mktemp("batching") / "tiny-sdar"))


def block_sampler(blocks: int) -> Block:
    return Block(gen_length=4 * blocks, block_length=4, block_steps=2, threshold=None)


def masked_sampler(blocks: int) -> Masked:
    return Masked(gen_length=4 * blocks, block_length=4, steps=2 * blocks)


@pytest.mark.parametrize(
    ("model", "sampler", "most"),
    [("tiny_dlm", masked_sampler, SHARED), ("tiny_sdar", block_sampler, APART)],
)
def test_a_diffusion_request_waits_for_a_block_and_not_for_a_generation(
    request: pytest.FixtureRequest, model: str, sampler: Callable[[int], Sampler], most: int
) -> None:
    """A few groups begin at once; those that arrive then begin together, at the latest after the first
    block of the youngest group, so that there are never more groups than blocks."""
    net, blocks = request.getfixturevalue(model), 2 * most
    batch = GroupedBatch(net, Record(pooling="response"), rows=64)
    waited, began = dict[ServedSequence, int](), list[set[ServedSequence]]()
    with torch.inference_mode():
        for turn in range(6 * blocks):
            for each in range(2):
                job = a_job(net, TEXTS[turn % 4], sampler(blocks), seed=2 * turn + each)
                batch.join([job])
                waited[job] = 0
            outputs = batch.advance()
            here = {one for output in outputs for one in output.sequences}
            batch.leave([m.sequences[i] for m in outputs for i, over in enumerate(m.ended) if over])
            assert len(batch._groups) <= blocks
            if fresh := here & waited.keys():
                began.append(fresh)
            for one in fresh:
                assert waited.pop(one) <= 3
            for one in waited:
                waited[one] += 1
    assert all(len(fresh) == 2 for fresh in began[:most])
    assert max(map(len, began)) > 2, "none gathers"


def test_clients_take_turns() -> None:
    sampler = sampler_from({"name": "autoregressive"})

    def job(client: str) -> ServedSequence:
        return ServedSequence(
            prompt=[1], sampler=sampler, seed=0, most=1, events=asyncio.Queue(), client=client
        )

    many, few = [job("many") for _ in range(5)], [job("few") for _ in range(2)]
    waiting = RequestQueue()
    waiting.put([*many, *few])
    assert waiting.take(3) == [many[0], few[0], many[1]]
    waiting.remove([many[2], few[1], job("nobody")])
    assert len(waiting) == 2
    assert waiting.all() == many[3:]
    assert waiting.take(9) == many[3:]
    assert len(waiting) == 0
