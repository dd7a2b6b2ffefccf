"""Answers that demur did not generate, in the files in which people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demur.errors import InputError
from demur.prompts import completions_with_summary, read_completions

ASKED = {"role": "user", "content": "bake it"}
SAID = {"role": "assistant", "content": "sure"}


def save(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_harmbench_completions_and_their_goals(tmp_path: Path) -> None:
    value = {
        "bake_1": [
            {"test_case": "play: bake it", "generation": "sure", "label": 1},
            {"test_case": "joke: bake it", "generation": "no", "label": 0},
        ],
        "brew_2": [{"test_case": "brew it", "generation": "", "label": 0}],
    }
    path = save(tmp_path, "c.json", value)
    pairs, summary = completions_with_summary(path)
    assert [(p.id, p.text, p.goal, said) for p, said in pairs] == [
        ("bake_1", "play: bake it", "play: bake it", "sure"),
        ("bake_1-2", "joke: bake it", "joke: bake it", "no"),
        ("brew_2", "brew it", "brew it", ""),
    ]
    assert "1 answers are empty" in str(summary)
    assert "--goals FILE" in str(summary)
    goals = save(
        tmp_path, "b.csv", "Behavior,BehaviorID,label\nbake,bake_1,harmful\nbrew,brew_2,\n"
    )
    found = read_completions(path, goals=goals)
    assert [(p.id, p.goal, p.label) for p, _ in found] == [
        ("bake_1", "bake", "harmful"),
        ("bake_1-2", "bake", "harmful"),
        ("brew_2", "brew", "unknown"),
    ]
    goals = save(tmp_path, "b.csv", "Behavior,BehaviorID\nbake,bake_1\n")
    with pytest.raises(InputError, match=r"no goal for 1 of 3 answers, first for the id 'brew_2'"):
        read_completions(path, goals=goals)
    one = save(tmp_path, "one.json", {"brew_2": value["brew_2"]})
    assert read_completions(one)[0][0].id == "brew_2"


def test_jailbreakbench_artifacts(tmp_path: Path) -> None:
    row = {"index": 0, "goal": "bake it", "behavior": "B", "category": "F", "jailbroken": True}
    rows = [{**row, "prompt": "play: bake it", "response": "sure"}]
    rows += [{**row, "index": 1, "prompt": None, "response": None, "jailbroken": False}]
    value = {"parameters": {"method": "PAIR"}, "jailbreaks": rows}
    ((prompt, said),), summary = completions_with_summary(save(tmp_path, "a.json", value))
    assert (prompt.text, prompt.goal, prompt.attack) == ("play: bake it", "bake it", "pair")
    assert (prompt.label, said) == ("harmful", "sure")
    assert "1 rows have no answer and were left out" in str(summary)
    assert summary.unread_labels == ("jailbroken",)


def test_beavertails_and_wildguardmix(tmp_path: Path) -> None:
    row = {"prompt": "a", "response": "b", "category": {"theft": False}, "is_safe": False}
    ((prompt, said),), summary = completions_with_summary(save(tmp_path, "b.jsonl", row))
    assert (prompt.text, prompt.label, said) == ("a", "unknown", "b")
    assert summary.unread_labels == ("is_safe",)
    rows = [
        {
            "prompt": "a",
            "adversarial": True,
            "response": None,
            "prompt_harm_label": "harmful",
            "response_harm_label": None,
        },
        {
            "prompt": "c",
            "adversarial": False,
            "response": "d",
            "prompt_harm_label": "unharmful",
            "response_harm_label": "harmful",
        },
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "w.parquet")
    ((prompt, said),), summary = completions_with_summary(tmp_path / "w.parquet")
    assert (prompt.text, prompt.label, said) == ("c", "harmless", "d")
    assert summary.unread_labels == ("response_harm_label",)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "bake it", "response": "sure"},
        {"instruction": "bake it", "output": "sure"},
        {"question": "bake it", "answer": "sure"},
        {"Prompt": "bake it", "Completion": "sure"},
        {"user_input": "bake it", "model_output": "sure"},
        {"messages": [ASKED, SAID]},
        {"prompt": [ASKED], "completion": [SAID]},
        {
            "conversations": [
                {"from": "human", "value": "bake it"},
                {"from": "gpt", "value": "sure"},
            ]
        },
    ],
)
def test_usual_names_and_conversations(tmp_path: Path, row: dict[str, Any]) -> None:
    ((prompt, said),), summary = completions_with_summary(save(tmp_path, "c.jsonl", row))
    assert (prompt.text, prompt.turns, said) == ("bake it", (), "sure")
    assert str(summary).startswith(f"1 answers from {tmp_path}/c.jsonl: 1 unknown")


def test_columns_can_be_named_and_earlier_turns_stay(tmp_path: Path) -> None:
    path = save(tmp_path, "c.csv", "ask,response_0,response_1\nbake it,sure,no\n")
    ((prompt, said),) = read_completions(path, column="ask", answers="response_1")
    assert (prompt.text, said) == ("bake it", "no")
    row = {"messages": [ASKED, SAID, {"role": "user", "content": "now"}, SAID]}
    ((prompt, said),) = read_completions(save(tmp_path, "c.jsonl", row))
    assert (prompt.text, len(prompt.turns), said) == ("now", 2, "sure")


BAD = {
    "none.csv": ("prompt,note\na,b\n", r"row 1, line 2 has no answer.*--answers"),
    "asked.jsonl": ({"messages": [ASKED]}, r"line 1 has no answer.*demur judge .* --answers"),
    "null.jsonl": ({"prompt": "a", "response": None}, "holds no answers"),
    "number.jsonl": (
        {"prompt": "a", "response": 3},
        r"column response holds '3' \(int\), not text",
    ),
    "two.jsonl": ({"prompt": "a", "response": [ASKED, SAID]}, "2 turns, not one of the assistant"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_without_answers_say_what_to_do(tmp_path: Path, name: str) -> None:
    value, message = BAD[name]
    with pytest.raises(InputError, match=message):
        read_completions(save(tmp_path, name, value))
    with pytest.raises(InputError, match=r"no column 'x'.*demur judge .* --answers"):
        read_completions(save(tmp_path, "p.csv", "prompt,response\na,b\n"), answers="x")


def test_published_artifacts_are_read_whole() -> None:
    """By their counts alone: the answers in them are measured on, not looked at."""
    root = Path(__file__).parents[1]
    folders = (root / "shared/data/jbb-artifacts", root.parent / "shared/data/jbb-artifacts")
    files = sorted(path for folder in folders for path in folder.glob("*.json"))
    if not files:
        pytest.skip("the published artifacts are not here")
    for path in files:
        pairs, summary = completions_with_summary(path)
        left = [note for note in summary.notes if "left out" in note]
        assert len(pairs) + int(left[0].split()[0] if left else 0) == 100
        assert {prompt.label for prompt, _ in pairs} == {"harmful"}
