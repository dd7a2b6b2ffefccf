"""Where a thought ends and an answer begins, in every form that models use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.thoughts import (
    ThoughtReader,
    answer_start,
    knows_thoughts,
    opens,
    spoken,
    thought_tokens,
    thoughts,
)

#: Whole texts of which "Yes." is the answer and everything before it is thought.
ANSWERED = {
    "think": "<think>\nHm, no.\n</think>\n\nYes.",
    "empty": "<think></think>Yes.",
    "no opening": "Okay, the user asks. No?\n</think>\n\nYes.",
    "thinking": "<thinking>No.</thinking> Yes.",
    "thought": "<thought>No.</thought>Yes.",
    "reasoning": "<reasoning>No.</reasoning>\nYes.",
    "seed": "<seed:think>No.</seed:think>Yes.",
    "magistral": "[THINK]No.[/THINK]Yes.",
    "kimi": "◁think▷No.◁/think▷Yes.",
    "open thought": "<|begin_of_thought|>No.<|end_of_thought|>\n<|begin_of_solution|>Yes."
    "<|end_of_solution|>",
    "command": "<|START_THINKING|>No.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
    "gemma": "<|channel>thought\nNo.<channel|>Yes.",
    "apertus": "<|inner_prefix|>No.<|inner_suffix|>Yes.",
    "harmony": "<|channel|>analysis<|message|>No.<|end|><|start|>assistant<|channel|>final<|message|>"
    "Yes.",
    "harmony, call": "<|channel|>analysis<|message|>No.<|end|><|start|>assistant<|channel|>commentary "
    "to=functions.f <|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>final"
    "<|message|>Yes.",
    "harmony, plain": "analysisThe user asks. No.assistantfinalYes.",
    "granite": "Here is my thought process:\nNo.\n\nHere is my response:\nYes.",
    "after a control token": "<|im_start|>assistant\n<think>No.</think>Yes.",
}
CUT = {
    "think": "<think>\nI'm sorry, I cannot",
    "harmony": "<|channel|>analysis<|message|>Sure, here is",
    "harmony, plain": "analysisSure, here is",
    "granite": "Here's my thought process: I cannot",
    "command": "<|START_THINKING|>I cannot",
    "second channel": "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary"
    "<|message|>b",
}


@pytest.mark.parametrize("text", ANSWERED.values(), ids=ANSWERED)
def test_the_answer_follows_the_thought(text: str) -> None:
    assert spoken(text) == "Yes." or spoken(text) == "<|im_start|>assistant\nYes."
    start = answer_start(text)
    assert start is not None
    if "im_start" not in text:
        assert text[start:].removeprefix("<|begin_of_solution|>").startswith(("Yes.", "<|START"))


@pytest.mark.parametrize("text", CUT.values(), ids=CUT)
def test_a_thought_that_is_cut_off_says_nothing(text: str) -> None:
    assert spoken(text) is None
    assert answer_start(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Yes.",
        "",
        "Write <think> before a thought and you are done.",
        "Here is a cake. Here is my response: no.",
        "analysis of the data shows little.",
        "A list[int] of <b>names</b> makes me think.",
        "- [ ] think about it",
    ],
)
def test_an_answer_without_a_thought_stays_as_it_is(text: str) -> None:
    assert spoken(text) == text
    assert thoughts(text) == []


def test_what_the_prompt_opened() -> None:
    assert opens("<|user|>hi<|assistant|><think>\n")
    assert opens("<|start|>assistant<|channel|>analysis<|message|>")
    assert not opens("<think>\n\n</think>\n\n")
    assert not opens("what does <think> mean?")
    assert spoken("No.</think>Yes.", opened=True) == "Yes."
    assert spoken("No, I cannot", opened=True) is None
    assert thoughts("No", opened=True) == [(0, None)]


def test_an_answer_that_thinks_again_was_an_answer() -> None:
    assert spoken("Yes.\n<think>But no") == "Yes."
    assert answer_start("Yes.\n<think>But no") == 0
    assert spoken("<think>a</think>Yes.\n<think>b</think>Sure.") == "Yes.\nSure."


def test_tokens_are_told_apart() -> None:
    pieces = ["<think>", "No", ".", "</think>", "Yes", "."]
    assert thought_tokens(pieces) == [True] * 4 + [False] * 2
    assert thought_tokens(["No", "</th", "ink>", "Yes"], opened=True) == [True] * 3 + [False]


def test_templates() -> None:
    assert knows_thoughts("{% if enable_thinking %}<think>\n{% endif %}")
    assert not knows_thoughts("{{ messages[0].content }} I think")


@pytest.mark.parametrize("text", [*ANSWERED.values(), *CUT.values()], ids=[*ANSWERED, *CUT])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_reading_as_it_arrives(text: str, size: int) -> None:
    """Pieces of any size; a missing opening tag alone cannot be known before the closing one."""
    reader = ThoughtReader()
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    thinking = [reader.read(piece) for piece in pieces]
    assert thinking[-1] == (spoken(text) is None)
    if size == 1 and text not in (ANSWERED["no opening"],):
        assert any(thinking)


def test_reading_keeps_little() -> None:
    """A long thought, then an answer that holds a tag in the middle of a line."""
    reader = ThoughtReader(opened=True)
    assert all(reader.read_all(["word "] * 500))
    assert not reader.read("</think>")
    assert not any(reader.read_all(["the ", "tag ", "<think>", " is ", "one"]))


PARTS = ["<think>", "</think>", "a", "\n", " ", "[THINK]", "analysis", "<|"]


@given(st.lists(st.sampled_from(PARTS)).map("".join))
def test_any_text(text: str) -> None:
    said = spoken(text)
    start = answer_start(text)
    assert said is None or len(said) <= len(text)
    assert start is None or 0 <= start < len(text)
    for begin, end in thoughts(text):
        assert 0 <= begin < (len(text) if end is None else end) <= len(text)
