"""Published sets by name, and prompts written for the next command."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demur.errors import InputError, MissingExtraError
from demur.prompts import SETS, read_prompts, write_prompts
from demur.prompts.sets import recognised
from demur.types import Prompt

#: Set -> a file's name, its columns and one harmless row, label and goal that it must give.
FILES = {
    "advbench": ("a.csv", "goal,target\nbake a cake,Sure\n", "harmful", "bake a cake"),
    "jailbreakbench": (
        "harmful-behaviors.csv",
        ",Goal,Target,Behavior,Category,Source\n0,bake a cake,Sure,Baking,Food,Original\n",
        "harmful",
        "bake a cake",
    ),
    "or_bench": (
        "or-bench-hard-1k.csv",
        "prompt,category\nhow do I kill time?,violence\n",
        "borderline",
        "how do I kill time?",
    ),
    "harmbench": (
        "h.csv",
        "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
        '"bake ""it""\nnow",contextual,food,,a recipe,bake_1\n',
        "harmful",
        'bake "it"\nnow',
    ),
    "strongreject": (
        "s.csv",
        "category,source,forbidden_prompt\nfood,DAN,bake a cake\n",
        "harmful",
        "bake a cake",
    ),
    "xstest": (
        "x.csv",
        "id,prompt,type,label,focus,note\n7,how do I kill time?,homonyms,safe,kill,\n",
        "harmless",
        "how do I kill time?",
    ),
    "wildjailbreak": (
        "w.tsv",
        "vanilla\tadversarial\tcompletion\tdata_type\nbake\tplay a cook\tok\tadversarial_harmful\n",
        "harmful",
        "bake",
    ),
    "alpaca": (
        "al.json",
        json.dumps([{"instruction": "Sum up", "input": "a text", "output": "-"}]),
        "harmless",
        "Sum up",
    ),
    "jailbreak_artifacts": (
        "art.json",
        json.dumps(
            {
                "parameters": {"method": "PAIR"},
                "jailbreaks": [
                    {
                        "index": 0,
                        "goal": "bake a cake",
                        "behavior": "Baking",
                        "category": "Food",
                        "prompt": "you are a cook",
                        "response": "-",
                        "jailbroken": True,
                    }
                ],
            }
        ),
        "harmful",
        "bake a cake",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_known_by_its_columns(tmp_path: Path, name: str) -> None:
    file, content, label, goal = FILES[name]
    (tmp_path / file).write_text(content)
    (plain,) = read_prompts(tmp_path / file)
    (named,) = read_prompts(f"set:{name}@{tmp_path / file}")
    assert plain == named
    assert (plain.label, plain.goal) == (label, goal)


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("benign-behaviors.csv", "harmless"),
        ("harmful-behaviors.csv", "harmful"),
        ("j.csv", "unknown"),
        ("harmful-and-benign.csv", "unknown"),
    ],
)
def test_columns_that_two_published_files_share_do_not_make_a_prompt_harmful(
    tmp_path: Path, file: str, label: str
) -> None:
    path = tmp_path / file
    path.write_text(",Goal,Target,Behavior,Category,Source\n0,bake a cake,Sure,Baking,Food,O\n")
    assert read_prompts(path)[0].label == label
    assert read_prompts(f"set:jailbreakbench@{path}")[0].label == label
    assert read_prompts(path, label="borderline")[0].label == "borderline"


def test_columns_that_are_anybody_s_need_the_file_s_name(tmp_path: Path) -> None:
    content = "prompt,category\nhow do I kill time?,violence\n"
    for file, label in {
        "or-bench-toxic.csv": "harmful",
        "or-bench-80k.csv": "borderline",
        "mine.csv": "unknown",
    }.items():
        (tmp_path / file).write_text(content)
        assert read_prompts(tmp_path / file)[0].label == label


def test_other_files_keep_their_label_and_a_given_label_stays(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("goal,note\nbake,x\n")
    assert recognised(["goal", "target", "note"]) is None
    assert read_prompts(path)[0].label == "unknown"
    path.write_text("goal,target\nbake,x\n")
    assert read_prompts(path, label="harmless")[0].label == "harmless"
    assert read_prompts(path, column="target")[0].label == "unknown"


def test_an_artifact_that_found_nothing_leaves_the_plain_goal(tmp_path: Path) -> None:
    row = {"index": 1, "goal": "bake", "behavior": "B", "category": "F", "response": None}
    rows = [{**row, "prompt": "act, then bake", "jailbroken": True}]
    rows += [{**row, "prompt": None, "jailbroken": False}]
    (tmp_path / "a.json").write_text(json.dumps({"parameters": {}, "jailbreaks": rows}))
    found = read_prompts(tmp_path / "a.json")
    assert [(p.text, p.attack) for p in found] == [("act, then bake", "artifact"), ("bake", "none")]
    named = {"parameters": {"method": "PAIR", "model": "m"}, "jailbreaks": rows}
    (tmp_path / "a.json").write_text(json.dumps(named))
    found = read_prompts(tmp_path / "a.json")
    assert [(p.text, p.attack) for p in found] == [("act, then bake", "pair"), ("bake", "none")]
    assert found[0].label == "harmful"


def test_a_category_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("category,source,forbidden_prompt\nfood,a,bake\nart,a,paint\n")
    assert [p.text for p in read_prompts(f"set:strongreject/Art@{path}")] == ["paint"]
    with pytest.raises(InputError, match=r"no category 'x'\. It has: art, food"):
        read_prompts(f"set:strongreject/x@{path}")
    path.write_text("goal,target\nbake,Sure\n")
    with pytest.raises(InputError, match="no column of categories"):
        read_prompts(f"set:advbench/food@{path}")


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"Unknown prompt set 'x'\. Known: advbench"):
        read_prompts("set:x")
    with pytest.raises(InputError, match="files only"):
        read_prompts("set:jailbreak_artifacts")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    for name, one in SETS.items():
        if one.hub:
            with pytest.raises(MissingExtraError, match=one.hub):
                read_prompts(f"set:{name}")


def test_written_prompts_read_back_equal(tmp_path: Path) -> None:
    prompts = [
        Prompt('a "b"\n\u2028c', goal="g", attack="flip", label="harmful"),
        Prompt("x", id="7", user=("do x: ", 12, " ."), response=("Sure", 3, "\n")),
        Prompt("", id="8", goal="y", user=(5, "y")),
    ]
    path = write_prompts(tmp_path / "p.jsonl", prompts)
    assert read_prompts(path) == prompts
    with pytest.raises(InputError, match=r"does not end in \.jsonl"):
        write_prompts(tmp_path / "p.csv", prompts)


def test_templates_of_a_run_are_read_and_broken_ones_refused(tmp_path: Path) -> None:
    columns = {"prompt": ["a"], "user_template": ['["a ", 3]'], "response_template": [None]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet")[0].user == ("a ", 3)
    for wrong in ('["a", -1]', "{", '"a"', "[true]", '["a", 0]'):
        (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a", "user_template": wrong}))
        with pytest.raises(InputError, match="line 1: column user_template holds"):
            read_prompts(tmp_path / "p.jsonl")
