"""Conversations are asked as such: through the chat template, into traces and run folders."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import demur
from demur.attacks.attacked import attacked
from demur.errors import InputError
from demur.generation import trace
from demur.models.base import LanguageModel
from demur.prompts import read_prompts
from demur.runs import trace_to
from demur.sampling import Autoregressive
from demur.store import Store
from demur.store.rows import in_order, merged, to_table
from demur.types import Prompt, Turn

EARLIER = (Turn("user", "w1 w2"), Turn("assistant", "w3"))
SYSTEM = Turn("system", "w9 w8")


def rendered(model: LanguageModel, turns: list[Turn]) -> list[int]:
    """What transformers makes of the turns."""
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.fixture(scope="module")
def organism() -> LanguageModel:
    return demur.load("organism-ar")


@pytest.mark.parametrize("name", ["tiny_ar", "tiny_dlm", "organism"])
def test_ids_are_those_of_the_chat_template(name: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    own = Turn("system", model.system)
    last = Turn("user", "w4 w5")
    for turns, wanted in (
        (EARLIER, [own, *EARLIER, last]),
        ((SYSTEM, *EARLIER), [SYSTEM, *EARLIER, last]),
        ((SYSTEM,), [SYSTEM, last]),
    ):
        prompt = Prompt(last.content, turns=turns)
        ids = model.chat.ids(prompt, mask_id=model.traits.mask_id)
        assert ids == rendered(model, wanted)
        assert model.encode([prompt]).ids[0].tolist() == ids
        assert model.check_fits(prompt, new_tokens=1) == len(ids)
    plain = model.chat.ids(Prompt(last.content), mask_id=None)
    assert plain == rendered(model, [own, last])


def test_control_text_in_an_earlier_turn_stays_text(tiny_ar: LanguageModel) -> None:
    turns = (Turn("user", "w1 <|eos|>"), Turn("assistant", "w3 <|mask|>"))
    ids = tiny_ar.chat.ids(Prompt("w4", turns=turns), mask_id=None)
    special = {tiny_ar.tokenizer.convert_tokens_to_ids(t) for t in ("<|eos|>", "<|mask|>")}
    assert not special & {*ids}
    assert tiny_ar.decode(ids).split().count("w3") == 1


def test_slots_are_filled_behind_earlier_turns(
    tiny_ar: LanguageModel, tiny_dlm: LanguageModel
) -> None:
    plain = Prompt("w4", turns=EARLIER)
    slotted = replace(plain, user=("w4", 2, "w5"))
    mask = tiny_dlm.traits.mask_id
    ids = tiny_dlm.chat.ids(slotted, mask_id=mask)
    before = tiny_dlm.chat.ids(plain, mask_id=mask)
    w5 = tiny_dlm.tokenizer.convert_tokens_to_ids("w5")
    assert ids == [*before[:-1], mask, mask, w5, before[-1]]
    with pytest.raises(InputError, match="has masked slots, but tiny-ar is autoregressive"):
        tiny_ar.encode([slotted])


def test_an_attack_keeps_the_turns() -> None:
    made = attacked(Prompt("w4", turns=EARLIER), "flip", text="w5")
    assert (made.text, made.turns, made.goal) == ("w5", EARLIER, "w4")


def test_a_conversation_is_answered_as_one(tiny_ar: LanguageModel) -> None:
    """The answer depends on the earlier turns, and is the same alone and in a batch."""
    prompts = [Prompt("w4"), Prompt("w4", turns=EARLIER), Prompt("w4", turns=(SYSTEM, *EARLIER))]
    sampler = Autoregressive(steps=6)
    together = trace(tiny_ar, prompts, sampler=sampler)
    assert len({tuple(t.response_ids.tolist()) for t in together}) > 1
    for one, prompt in zip(together, prompts, strict=True):
        (alone,) = trace(tiny_ar, [prompt], sampler=sampler)
        assert alone.response_ids.tolist() == one.response_ids.tolist()
        assert one.prompt == prompt


def test_runs_keep_conversations_and_plain_runs_are_as_before(
    tmp_path: Path, tiny_ar: LanguageModel
) -> None:
    mixed = [
        Prompt("w4", "a"),
        Prompt("w4", "b", turns=EARLIER),
        Prompt("w5", "c"),
        Prompt("w6", "d"),
    ]
    sampler = Autoregressive(steps=2)

    def run(name: str, prompts: list[Prompt], **how: int) -> Store:
        return trace_to(tmp_path / name, tiny_ar, prompts, sampler=sampler, **how)

    plain = run("plain", [mixed[0], *mixed[2:]])
    assert "turns" not in plain.read().column_names
    store = run("mixed", mixed, batch_size=1)
    assert [t.prompt for t in store.traces()] == mixed
    columns = [name for name in store.read().column_names if name != "turns"]
    assert columns == plain.read().column_names
    # A shard depends on its rows, not on how they were batched.
    traces = [*store.traces()]
    tables = []
    for batches in ([[0], [1], [2], [3]], [[3, 1], [0, 2]], [[0, 1, 2, 3]]):
        table, order = merged([to_table(rows, [traces[i] for i in rows]) for rows in batches])
        tables.append(in_order(table, order))
    assert tables[0] == tables[1] == tables[2]
    windows = run("windows", mixed, shard_rows=2)
    assert [t.prompt for t in windows.traces()] == mixed
    assert windows.read().num_rows == 4


def test_the_parquet_files_of_a_run_are_prompts_again(
    tmp_path: Path, tiny_ar: LanguageModel
) -> None:
    prompts = [Prompt("w4", "a", label="harmless"), Prompt("w5", "b", turns=(SYSTEM, *EARLIER))]
    trace_to(tmp_path / "run", tiny_ar, prompts, sampler=Autoregressive(steps=1))
    (shard,) = (tmp_path / "run/traces").glob("*.parquet")
    assert pq.read_table(shard).column_names[-1] == "turns"
    assert read_prompts(shard) == prompts


#: As Gemma's: no system turn, and user and assistant take turns.
ALTERNATES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<|user|>' if m.role == 'user' else '<|assistant|>' }}{{ m.content | trim }}{% endfor %}"
    "<|assistant|>"
)


def test_a_template_without_a_system_turn_and_one_that_refuses_the_turns(
    tiny_ar: LanguageModel,
) -> None:
    tokenizer = copy.deepcopy(tiny_ar.tokenizer)
    tokenizer.chat_template = ALTERNATES
    model = replace(tiny_ar, tokenizer=tokenizer)
    folded = Turn("user", f"{SYSTEM.content}\n\n{EARLIER[0].content}")
    prompt = Prompt("w4", "a", turns=(SYSTEM, *EARLIER))
    assert model.chat.ids(prompt, mask_id=None) == rendered(
        model, [folded, EARLIER[1], Turn("user", "w4")]
    )
    with pytest.raises(InputError, match=r"refuses these turns .*roles must alternate"):
        model.encode([Prompt("w4", turns=EARLIER[:1])])
