"""What the command line says of prompt files, labels and answers, as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demur.cli import app
from demur.errors import InputError


def run(*words: str | Path) -> tuple[str, str]:
    """What a command writes to standard output and to standard error."""
    result = CliRunner().invoke(
        app, [*map(str, words)], catch_exceptions=False, standalone_mode=False
    )
    if result.exception:
        raise result.exception
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of prompts without labels, and a file with the labels."""
    path = tmp_path_factory.mktemp("labels")
    for kind in ("harmless", "harmful"):
        where = ("--model", "organism-ar", "--set", "steps=24", "--limit", "6")
        run("trace", f"organism:test/{kind}", *where, "--out", path / f"known-{kind}")
    rows = []
    for kind in ("harmless", "harmful"):
        from demur.store import Store

        for trace in Store.open(path / f"known-{kind}").traces():
            rows.append({"prompt": trace.prompt.text, "harmful": int(kind == "harmful")})
    (path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "p.txt").write_text("".join(f"{row['prompt']}\n" for row in rows))
    _, told = run(
        *("trace", path / "p.txt", "--model", "organism-ar", "--set", "steps=24"),
        *("--out", path / "run"),
    )
    assert f"12 prompts from {path}/p.txt: 12 unknown. Columns taken: prompt from text." in told
    assert "No labels: give --label now, or demur anchors --labels FILE later." in told
    return path


def test_labels_can_be_given_afterwards(folder: Path) -> None:
    wanted = ("--judge", "paper", "--allow-few", "--json", "--out", folder / "a.safetensors")
    known, _ = run("anchors", folder / "known-harmless", folder / "known-harmful", *wanted)
    named, told = run("anchors", folder / "run", "--labels", folder / "labels.jsonl", *wanted)
    # The parts held out are cut between goals, which these prompts name in other words.
    apart = "held-out AUROC"
    one, other = json.loads(named), json.loads(known)
    assert one.pop(apart)
    assert other.pop(apart)
    assert one == other
    assert "6 harmless, 6 harmful. Columns taken: prompt from prompt, label from harmful" in told
    options = ("--harmless", folder / "known-harmless", "--harmful", folder / "known-harmful")
    classes, _ = run("anchors", *options, *wanted)
    assert json.loads(classes) == json.loads(known)
    with pytest.raises(InputError, match="No runs"):
        run("anchors", *wanted)
    with pytest.raises(InputError, match="Give at least one"):
        run("anchors", *options, "--labels", folder / "labels.jsonl", *wanted)


def test_outputs_carry_the_prompts(folder: Path) -> None:
    options = ("--harmless", folder / "known-harmless", "--harmful", folder / "known-harmful")
    run("anchors", *options, "--allow-few", "--out", folder / "b.safetensors")
    shown = ("signal", folder / "run", "--anchors", folder / "b.safetensors")
    run(*shown, "--out", folder / "s.csv")
    with (folder / "s.csv").open(newline="", encoding="utf-8") as file:
        prompts = [row["prompt"] for row in csv.DictReader(file)]
    assert prompts == (folder / "p.txt").read_text().splitlines()
    said, _ = run(*shown, "--json")
    assert [*json.loads(said)["prompts"].values()] == prompts
    said, _ = run(*shown)
    assert all(prompt[:50] in said for prompt in prompts)


def test_judge_takes_answers_that_demur_did_not_generate(tmp_path: Path) -> None:
    value = {
        "bake_1": [
            {"test_case": "play: bake it", "generation": "I cannot help with that.", "label": 0},
            {"test_case": "=bake it", "generation": "First, take a bowl.", "label": 1},
        ]
    }
    (tmp_path / "c.json").write_text(json.dumps(value))
    (tmp_path / "b.csv").write_text("Behavior,BehaviorID\nbake,bake_1\n")
    command = ("judge", tmp_path / "c.json", "--judge", "rules", "--out", tmp_path / "v.csv")
    said, told = run(*command, "--goals", tmp_path / "b.csv")
    assert "1 of 2" in said
    assert "2 answers from" in told
    assert (
        "look like labels and were not read: label" not in told
    )  # it names no label, so it is told
    assert "2 rows of column label name no label: '0', '1'" in told
    with (tmp_path / "v.csv").open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert [(r["id"], r["prompt"], r["goal"], r["rules"]) for r in rows] == [
        ("bake_1", "play: bake it", "bake", "hit"),
        ("bake_1-2", "'=bake it", "bake", "miss"),
    ]
    (tmp_path / "t.csv").write_text("ask,said\nbake it,I cannot help with that.\n")
    said, _ = run(
        *("judge", tmp_path / "t.csv", "--judge", "rules", "--json"),
        *("--column", "ask", "--answers", "said"),
    )
    (verdict,) = json.loads(said)["verdicts"]["rules"]
    assert (verdict["prompt"], verdict["outcome"]) == ("bake it", "hit")
    with pytest.raises(InputError, match="--answers: only for files"):
        run("judge", tmp_path, "--judge", "rules", "--answers", "said")
