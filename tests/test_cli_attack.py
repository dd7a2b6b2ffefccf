"""``demur attacks`` and ``demur attack``, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

from demur.prompts import read_prompts
from test_cli import demur


def test_attacks_are_listed(tmp_path: Path) -> None:
    done = demur("attacks", "--json", cwd=tmp_path)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["pad"]["needs_target"]
    assert "mode" in rows["flip"]["settings"]
    shown = demur("attacks", cwd=tmp_path).stdout
    assert "arXiv:2410.02832" in shown
    assert "(needs --model)" in shown


def test_attacked_prompts_are_traced_with_their_templates(tmp_path: Path) -> None:
    source = "organism:test/harmful"
    made = demur(
        *("attack", "pad", source, "--limit", "2", "--model", "organism-dlm", "--out", "p.jsonl"),
        *("--attack-set", 'anchors=["sure", "then"]'),
        cwd=tmp_path,
    )
    assert (made.returncode, made.stdout) == (0, "2 prompts in p.jsonl\n")
    prompts = read_prompts(tmp_path / "p.jsonl")
    assert all(p.attack == "pad" and p.label == "harmful" and p.response for p in prompts)
    traced = demur("trace", "p.jsonl", "--model", "organism-dlm", "--out", "run", cwd=tmp_path)
    assert traced.returncode == 0
    from demur.store import Store

    assert [t.prompt for t in Store.open(tmp_path / "run").traces()] == prompts


def test_wrong_words_get_one_line(tmp_path: Path) -> None:
    for words, said in (
        (("attack", "x", "organism:test/harmful", "--out", "p.jsonl"), "Unknown attack 'x'"),
        (("attack", "flip", "organism:test/harmful", "--out", "p.csv"), "must end in .jsonl"),
        (("attack", "pad", "organism:test/harmful", "--out", "p.jsonl"), "--model"),
    ):
        done = demur(*words, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert not (tmp_path / "p.jsonl").exists()
