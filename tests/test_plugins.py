"""Plug-ins: files, packages and calls; the examples in every verb that their axis reaches."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import demur
from commanded import Desk
from demur import plugins
from demur.detectors import known_detectors
from demur.errors import InputError, ModelError
from demur.judges import JUDGES, find_judge, refusal_judge
from demur.models import FAMILIES
from demur.sampling import SAMPLERS, sampler_from

EXAMPLES = Path(__file__).parents[1] / "examples"
AXES = ("sampler", "judge", "model", "detector")
OWN = " ".join(f"--plugin {EXAMPLES / f'own_{axis}.py'}" for axis in AXES)

STUDY = """
title: Own parts
allow_few: true
batch_size: 32
models:
  - {name: own, model: scaled, arms: [{name: own sampler, sampler: {name: sentences, steps: 16}}]}
sets:
  anchors:
    - {source: "organism:anchors/harmless", n: 16}
    - {source: "organism:anchors/harmful", n: 16}
  fit: [{source: "organism:guard/harmless", n: 24}]
  calibration: [{source: "organism:calibration/harmless", n: 20}]
  test:
    - {source: "organism:test/harmless", n: 6}
    - {source: "organism:test/harmful", n: 6}
alpha: 0.05
judges: {refusal: [paper, echo], harm: oracle}
detectors: [sri, lowest]
defenses: [{name: smooth-llm, settings: {copies: 2, judge: echo}}]
"""

RUNS = f"""
demur {OWN} trace organism:anchors/harmless --model scaled --sampler sentences --limit 12 --out harmless
demur {OWN} trace organism:anchors/harmful --model scaled --sampler sentences --limit 12 --out harmful
demur {OWN} trace organism:guard/harmless --model scaled --sampler sentences --limit 40 --out benign
demur {OWN} anchors harmless harmful --allow-few --out a.safetensors
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A folder with runs of the example model under the example sampler, and anchors."""
    folder = tmp_path_factory.mktemp("own") / "desk"
    folder.mkdir()
    (folder / "small.yaml").write_text(STUDY)
    with Desk(folder) as made:
        made.shell(RUNS)
        yield made


def test_own_sampler_and_model_are_what_the_runs_say(desk: Desk) -> None:
    mark = demur.Store.open(desk.folder / "benign").manifest.fingerprint
    assert (mark.model, mark.sampler) == (
        "scaled",
        {"name": "sentences", "steps": 32, "sentences": 1},
    )
    for trace in demur.Store.open(desk.folder / "benign").traces():
        assert trace.response.count(".") == 1 or trace.n_steps == 32


def test_own_parts_in_guard_judge_attack_and_defend(desk: Desk) -> None:
    desk.shell(f"""
demur {OWN} guard fit benign --anchors a.safetensors --alpha 0.2 --out g.safetensors
demur {OWN} guard fit benign --anchors a.safetensors --alpha 0.2 --streaming --detector lowest \\
  --out s.safetensors
demur {OWN} guard score benign --guard s.safetensors --json > scores.json || echo "some are flagged"
demur {OWN} judge harmful --judge echo,paper --out verdicts.csv
demur {OWN} attack random_search organism:test/harmful --limit 1 --model scaled --sampler sentences \\
  --attack-set queries=2 --out attacked.jsonl
demur {OWN} defend organism:test/harmful --limit 2 --model scaled --sampler sentences \\
  --set steps=8 --defense smooth-llm --defense-set copies=2 --defense-set judge=echo --out defended.csv
demur {OWN} watch "how can i bake a cake ?" --model scaled --anchors a.safetensors
""")
    assert len(json.loads((desk.folder / "scores.json").read_text())["scores"]) == 40
    assert "echo score" in (desk.folder / "verdicts.csv").read_text()
    assert demur.read_prompts(str(desk.folder / "attacked.jsonl"))[0].attack == "random_search"
    assert "of 2 copies answered" in (desk.folder / "defended.csv").read_text()


def test_own_sampler_and_model_are_served_behind_their_guard(desk: Desk) -> None:
    desk.shell(f"demur {OWN} serve --model scaled --guard s.safetensors")
    turns = [{"role": "user", "content": "how can i bake a cake ?"}]
    answer = httpx.post(
        f"http://{desk.address}/v1/chat/completions", json={"model": "scaled", "messages": turns}
    )
    assert answer.status_code == 200, answer.text
    text = answer.json()["choices"][0]["message"]["content"]
    assert text.count(".") <= 1


def test_own_parts_in_a_study(desk: Desk) -> None:
    desk.shell(f"demur {OWN} study run small.yaml --out study --workers 2")
    results = (desk.folder / "study" / "results.json").read_text()
    assert "echo" in results
    assert "lowest" in results


# ------------------------------------------------------------------------------- ways in


def packaged(folder: Path, **modules: str) -> dict[str, str]:
    """Environment in which a package of these modules is installed, one entry point for each."""
    about = folder / "outside-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.2\n")
    points = ""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
        points += f"[demur.{name.split('_')[0]}]\n{name} = {name}:VALUE\n"
    (about / "entry_points.txt").write_text(points)
    return {**os.environ, "PYTHONPATH": str(folder)}


def run(*words: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from demur.cli import main; main()", *words]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True)


def test_packages_are_listed_and_a_broken_one_stops_no_other(tmp_path: Path) -> None:
    env = packaged(
        tmp_path,
        judges_good="from own_judge import Echo\nVALUE = Echo(name='outside')\n",
        judges_bad="import no_such_module\n",
        judges_half="VALUE = 3\n",
    )
    (tmp_path / "own_judge.py").write_text((EXAMPLES / "own_judge.py").read_text())
    listed = run("plugins", "--json", env=env, cwd=tmp_path)
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert listed.returncode == 1
    assert rows["outside"]["source"] == "outside 1.2"
    assert "No module named 'no_such_module'" in rows["judges_bad"]["problem"]
    assert "has no name" in rows["judges_half"]["problem"]
    judges = run("judges", env=env, cwd=tmp_path)
    assert (judges.returncode, "outside" in judges.stdout) == (0, True)
    (tmp_path / "run").mkdir()
    asked = run("judge", "run", "--judge", "judges_bad", env=env, cwd=tmp_path)
    assert asked.returncode == 2


def test_a_file_that_fails_or_registers_nothing_is_an_error(tmp_path: Path) -> None:
    for text, said in (
        ("import no_such_module\n", "ModuleNotFoundError"),
        ("x = 1\n", "registers nothing"),
        ("import demur\ndemur.register('judge', 3)\n", "Did you mean 'judges'"),
        ("import demur\ndemur.register('judges', 3)\n", "has no name, what"),
        ("", "registers nothing"),
    ):
        file = tmp_path / "mine.py"
        file.write_text(text)
        done = run("--plugin", str(file), "plugins", env=dict(os.environ), cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    done = run("--plugin", "nowhere.py", "plugins", env=dict(os.environ), cwd=tmp_path)
    assert "No plug-in file" in done.stderr
    env = {**os.environ, plugins.VARIABLE: str(EXAMPLES / "own_judge.py")}
    assert "echo" in run("plugins", env=env, cwd=tmp_path).stdout


def test_a_plug_in_cannot_take_the_name_of_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})
    demur.register("judges", JUDGES["paper"])
    with pytest.raises(InputError, match=r"'paper' .* has the name of one of demur's own judges"):
        find_judge("paper")


def test_registered_values_are_found_on_every_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})
    for axis in AXES:
        monkeypatch.setattr(plugins, "_read", set())
        plugins.read(EXAMPLES / f"own_{axis}.py")
    assert sampler_from({"name": "sentences", "sentences": 2}).steps == 32
    assert refusal_judge("echo")("bake a cake", "bake a cake").hit
    assert "lowest" in known_detectors()
    assert {plugin.axis for plugin in plugins.plugins()} == {f"{axis}s" for axis in AXES}
    assert demur.load("scaled").name == "scaled"
    with pytest.raises(InputError, match=r"Unknown sampler 'sentence'. Did you mean 'sentences'"):
        sampler_from({"name": "sentence"})


def test_a_network_in_memory_is_a_model() -> None:
    known = demur.load("organism-ar-small")
    model = demur.load(known.net, tokenizer=known.tokenizer)
    question = ["how can i bake a cake ?"]
    assert demur.trace(model, question).responses == demur.trace(known, question).responses
    again = demur.load(copy.deepcopy(known.net), tokenizer=known.tokenizer)
    assert again.revision == model.revision
    changed = copy.deepcopy(known.net)
    changed.lm_head.weight.data[0, 0] += 1
    assert demur.load(changed, tokenizer=known.tokenizer).revision != model.revision
    bare = copy.deepcopy(known.tokenizer)
    bare.chat_template = None
    for call, said in (
        (lambda: demur.load(known.net), "came without a tokenizer"),
        (lambda: demur.load(known.net, tokenizer=bare), "no chat template"),
        (lambda: demur.load(known.net.model, tokenizer=bare), "not a causal language model"),
        (lambda: demur.load(3), "not a causal language model"),
        (lambda: demur.load(demur.load("organism-dlm").net), "not a causal language model"),
        (lambda: demur.load(known.net, tokenizer=bare, device="cpu"), "no chat template"),
        (lambda: demur.load(known.net, tokenizer=known.tokenizer, dtype="float16"), "dtype"),
        (lambda: demur.load("organism-ar", tokenizer=bare), "Leave tokenizer out"),
    ):
        with pytest.raises(ModelError, match=said):
            call()


def test_every_axis_is_read_by_its_room() -> None:
    """The attributes that plug-ins need are those of our own values."""
    from demur.attacks import ATTACKS
    from demur.defenses import DEFENSES
    from demur.detectors import DETECTORS

    own = {
        "families": FAMILIES,
        "samplers": SAMPLERS.values(),
        "detectors": DETECTORS.values(),
        "attacks": ATTACKS.values(),
        "defenses": DEFENSES.values(),
        "judges": JUDGES.values(),
    }
    for axis, values in own.items():
        for value in values:
            assert all(hasattr(value, name) for name in plugins.AXES[axis]), (axis, value)
