"""Labels mean what they say, or nothing; and they can be given after the traces were made."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.errors import InputError
from demur.prompts import prompts_with_summary, read_labels, read_prompts, with_labels
from demur.prompts.labels import label_word
from demur.types import Fingerprint, Prompt, Trace

WORDS = {
    "harmful": "harmful",
    "UNSAFE": "harmful",
    "malicious": "harmful",
    "NOT_SAFE": "harmful",
    "not safe": "harmful",
    "un_safe": "harmful",
    "un-safe": "harmful",
    "nonsafe": "harmful",
    "vanilla_harmful": "harmful",
    "not_benign": "harmful",
    "harmless": "harmless",
    "Safe": "harmless",
    "not_harmful": "harmless",
    "non_harmful": "harmless",
    "non-harmful": "harmless",
    "unharmful": "harmless",
    "NotHarmful": "harmless",
    "not unsafe": "harmless",
    "adversarial_benign": "harmless",
    "vanilla_not_harmful": "harmless",
    "borderline": "borderline",
    "maybe_harmful": None,
    "not_borderline": None,
    "safe_targets": None,
    "half safe": None,
    "hardly harmful": None,
    "0": None,
    "1": None,
    "": None,
    "not": None,
    "unknown": None,
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_means_what_it_says_or_nothing(word: str) -> None:
    assert label_word(word) == WORDS[word]


@pytest.mark.parametrize(
    ("column", "value", "label"),
    [
        ("harmful", 1, "harmful"),
        ("harmful", 0, "harmless"),
        ("is_harmful", False, "harmless"),
        ("unsafe", "1", "harmful"),
        ("is_unsafe", "True", "harmful"),
        ("malicious", 1.0, "harmful"),
        ("is_safe", True, "harmless"),
        ("is_safe", "false", "harmful"),
        ("Safe", 0, "harmful"),
        ("benign", "yes", "harmless"),
        ("harmless", 0, "harmful"),
        ("not_safe", 1, "harmful"),
        ("prompt_is_safe", 0, "harmful"),
        ("prompt_harmful", 1, "harmful"),
        ("safe", "unsafe", "harmful"),
        ("harmful", 2, "unknown"),
        ("harmful", "perhaps", "unknown"),
        ("label", 1, "unknown"),
        ("label", "0", "unknown"),
        ("is_toxic", True, "unknown"),
    ],
)
def test_ones_and_zeros_mean_what_their_column_says(
    tmp_path: Path, column: str, value: Any, label: str
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "a", column: value}))
    (prompt,), summary = prompts_with_summary(path)
    assert prompt.label == label
    if label == "unknown":
        told = "name no label" if column in ("harmful", "label") else "look like labels"
        assert told in str(summary)
        assert column in str(summary)


def test_a_flag_beside_an_answer_is_not_taken_for_the_prompt_s(tmp_path: Path) -> None:
    """In BeaverTails ``is_safe`` is about the answer."""
    path = tmp_path / "p.jsonl"
    row = {"prompt": "a", "response": "b", "is_safe": False, "prompt_is_safe": True}
    path.write_text(json.dumps(row))
    (prompt,), summary = prompts_with_summary(path)
    assert prompt.label == "harmless"
    assert summary.unread_labels == ("is_safe",)


def test_columns_that_differ_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,label,is_safe\na,harmful,1\nb,harmful,0\nc,,1\n")
    prompts, summary = prompts_with_summary(path)
    assert [p.label for p in prompts] == ["harmful", "harmful", "harmless"]
    assert "1 rows: label and is_safe differ, label was taken" in str(summary)


# ------------------------------------------------------------------ afterwards


def trace_of(prompt: Prompt) -> Trace:
    mark = Fingerprint("m", "r", {"name": "x"}, "mean", "", "float32")
    none = np.zeros((1, 1), np.int32)
    states = {"last": np.zeros((1, 2), np.float32)}
    return Trace(prompt, "", none[0], none, none, states, "stop", none[0], mark)


def labels_of(prompts: list[Prompt], source: Path) -> list[str]:
    return [t.prompt.label for t in with_labels(map(trace_of, prompts), read_labels(source))]


def test_labels_join_by_id_text_or_goal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prompts = [Prompt("a", "1"), Prompt("b", "2"), Prompt("play: c", "3/role", "c"), Prompt("d")]
    (tmp_path / "ids.csv").write_text("id,label\n1.0,unsafe\n2.0,safe\n")
    assert labels_of(prompts, tmp_path / "ids.csv") == ["harmful", "harmless", "unknown", "unknown"]
    assert "2 of 4 traces have no label" in caplog.text
    (tmp_path / "texts.jsonl").write_text(
        "\n".join(json.dumps({"prompt": t, "harmful": n}) for n, t in enumerate(("b", "c ")))
    )
    assert labels_of(prompts, tmp_path / "texts.jsonl")[1:3] == ["harmless", "harmful"]
    one = [*with_labels(map(trace_of, prompts), "borderline")]
    assert {t.prompt.label for t in one} == {"borderline"}
    assert [t.prompt.id for t in one] == [p.id for p in prompts]


def test_labels_of_the_file_that_was_traced_fit_even_where_ids_repeat(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,prompt,label\na,one,safe\na,two,unsafe\n")
    prompts = [Prompt(p.text, p.id) for p in read_prompts(path)]
    assert labels_of(prompts, path) == ["harmless", "harmful"]


def test_labels_that_cannot_be_meant_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "l.csv"
    path.write_text("id,prompt,label\n0,other,harmful\n")
    with pytest.raises(
        InputError, match=r"id '0' belongs to another prompt in .*'other', not 'mine'"
    ):
        labels_of([Prompt("mine", "0")], path)
    with pytest.raises(InputError, match=r"None of 1 traces is in .*neither by id nor by text"):
        labels_of([Prompt("mine", "7")], path)
    path.write_text("prompt,label\na,harmful\na,safe\n")
    with pytest.raises(InputError, match="labels one prompt harmful and harmless: 'a'"):
        read_labels(path)
    path.write_text("prompt,label\na,1\nb,0\n")
    with pytest.raises(InputError, match=r"labels no prompt.*name no label: '1', '0'"):
        read_labels(path)
    path.write_text("label\nharmful\n")
    with pytest.raises(InputError, match="no column that is known to hold prompts"):
        read_labels(path)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
