"""Every family from the command line: traces, anchors, guards, a report and a study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from packaging.version import Version

import demur
import test_models_bert_chat
from commanded import Desk
from demur.anchors import most_steps
from parity import blocks, tiny

#: A verdict by the number in the goal, since random weights refuse nothing.
JUDGE = """
from dataclasses import dataclass

import demur
from demur.judges import Verdict


@dataclass(frozen=True)
class Odd:
    name: str = "odd"
    what: str = "refusal"
    about: str = "the goal's number is odd"
    source: str = "a test"

    def __call__(self, goal: str, response: str) -> Verdict:
        return Verdict("hit" if int(goal.split()[0][1:]) % 2 else "miss")


demur.register("judges", Odd())
"""

MASKED = {"steps": 4, "gen_length": 8, "block_length": 8}
BLOCK = {"gen_length": 8, "block_length": 4, "block_steps": 2, "threshold": 0.5}

#: Family -> how a tiny checkpoint is made, the sampler's settings, and T.
FAMILIES: dict[str, tuple[Callable[[Path], Path], dict[str, Any], int]] = {
    "causal": (tiny.llama, {"steps": 6}, 6),
    "llada": (tiny.llada, MASKED, 4),
    "dream": (tiny.dream, {"steps": 4, "gen_length": 8}, 4),
    "mdlm": (tiny.a2d, MASKED, 4),
    "bd3lm": (tiny.a2d, BLOCK | {"counted_from": "response"}, 6),
    "bert-chat": (test_models_bert_chat.save, MASKED, 4),
    "sdar": (blocks.save_sdar, BLOCK, 6),
    "llada2": (blocks.save_llada2, BLOCK, 6),
    "diffusion-gemma": (
        blocks.save_diffusion_gemma,
        {"gen_length": 12, "canvas_length": 12, "canvas_steps": 4},
        4,
    ),
}


def study(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A study of one model under these settings."""

    def one(name: str, label: str, n: int) -> dict[str, Any]:
        return {"source": f"{name}.txt", "label": label, "n": n}

    return {
        "title": "family",
        "alpha": 0.2,
        "allow_few": True,
        "judges": {"refusal": ["odd"]},
        "models": [{"name": model, "model": model, "arms": [{"name": "own", "sampler": settings}]}],
        "sets": {
            "anchors": [one("harmless", "harmless", 8), one("harmful", "harmful", 8)],
            "fit": [one("benign", "harmless", 24)],
            "calibration": [one("held", "harmless", 8)],
            "test": [one("plain", "harmless", 4), one("asked", "harmful", 4)],
        },
        "detectors": ["sri"],
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_from_prompts_to_a_guard_a_report_and_a_study(family: str, tmp_path: Path) -> None:
    save, settings, steps = FAMILIES[family]
    old = Version(transformers.__version__) < Version("5.11")
    if family == "diffusion-gemma" and old:
        pytest.skip("transformers has no DiffusionGemma before 5.11")
    desk_folder = tmp_path / "desk"
    desk_folder.mkdir()
    name = f"tiny-{family}"
    save(desk_folder / name)
    (desk_folder / "odd.py").write_text(JUDGE)
    kinds = {"harmless": 8, "harmful": 8, "benign": 40, "held": 8, "plain": 4, "asked": 4}
    for place, (kind, count) in enumerate(kinds.items()):
        asked = (f"w{i % 40} w{(7 * i + place) % 40} w{place}" for i in range(count))
        (desk_folder / f"{kind}.txt").write_text("\n".join(asked))
    (desk_folder / "study.yaml").write_text(yaml.safe_dump(study(name, settings)))
    given = " ".join(f"--set {key}={value}" for key, value in settings.items())
    with Desk(desk_folder) as desk:
        for kind in ("harmless", "harmful", "benign"):
            label = "harmful" if kind == "harmful" else "harmless"
            desk.shell(
                f"demur trace {kind}.txt --model {name} {given} --label {label} --out {kind}"
            )
        desk.shell(
            "demur --plugin odd.py anchors harmless harmful --judge odd --allow-few --out a --json"
        )
        about = json.loads(desk.log.read_text())
        assert about["steps"] == steps
        assert about["harmful traces"] == "4 refused are used, 4 answered are not"
        assert "4 harmless and 4 harmful traces" in about["caution"]
        assert "held-out AUROC" in about
        desk.shell("demur signal harmful --anchors a --out sigma.csv")
        assert "Caution: anchors of 4 harmless" in desk.log.read_text()
        for kind in ("", "--streaming"):
            desk.shell(f"demur guard fit benign --anchors a --out g{kind} --alpha 0.2 {kind}")
            assert "4 harmful traces" in desk.log.read_text()
        desk.run("demur guard score harmful --guard g --json")
        assert "4 harmful traces" in json.loads(desk.log.read_text())["caution"]
        desk.shell(
            f"demur --plugin odd.py report harmful --anchors a --guard g--streaming --model {name} "
            "--judge odd --out page.html"
        )
        assert "Caution: anchors of 4 harmless" in (desk_folder / "page.html").read_text()
        desk.shell("demur --plugin odd.py study run study.yaml --out study")
    mark = demur.Store.open(desk_folder / "harmful").manifest.fingerprint
    assert most_steps(mark) == steps
    assert max(t.n_steps for t in demur.Store.open(desk_folder / "harmful").traces()) <= steps
    found = json.loads((desk_folder / "study" / "results.json").read_text())
    assert not found["failures"]
    assert f"{name}: anchors of 4 harmless and 4 harmful traces" in found["note"]
    assert found["study"]["judges"]["harm"] == ""
    assert found["findings"][0]["text"].startswith("Harm: not judged")
    rates = next(t for t in found["tables"] if t["title"] == "Refusals and successful attacks")
    (success,) = (row for row in rates["rows"] if row[:2] == [name, "ASR"])
    assert not [cell for cell in success[3:] if isinstance(cell, dict)]
    assert "not judged" in success
