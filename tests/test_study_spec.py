"""A study's file: what is read, and what a mistake in it is told."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import demur.study
from demur.errors import InputError
from demur.study.engine.provenance import read_manifest
from demur.study.plan.prompt_sets import prompt_sets
from demur.study.plan.spec import Judges, Study
from demur.study.plan.spec_file import read_study, shipped_names

GOOD = """\
title: a study
models:
  - {name: AR, model: organism-ar, share: 0.5}
sets:
  anchors:
    - {source: "organism:anchors/harmless", n: 4, few: 2}
  test:
    - source: "organism:test/harmful/{each}"
      each: [none, flip]
      n: 6
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_sets_are_cut_to_the_share_and_to_few(tmp_path: Path) -> None:
    study, folder = read_study(write(tmp_path, GOOD))
    whole = prompt_sets(study, folder, study.models[0], main=True)
    assert [(one.role, len(one.prompts)) for one in whole] == [
        ("anchors", 2),
        ("test", 3),
        ("test", 3),
    ]
    assert {p.attack for one in whole[1:] for p in one.prompts} == {"none", "flip"}
    few = prompt_sets(study, folder, study.models[0], main=False)
    assert [(one.role, len(one.prompts)) for one in few] == [("anchors", 2)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("n: 6", "n: 0"), r"line 10, sets\.test\.0\.n"),
        (("share: 0.5", "shares: 0.5"), r"line 3, models\.0\.shares: Extra"),
        (("title: a study\n", ""), r"line 1, title: Field required"),
        (("  test:", "  tests:"), r"line 7, sets\.tests"),
        (("title: a study", "title: [a study"), "cannot be read as YAML"),
        (("title: a study", "title: !!python/name:os.system x"), "cannot be read as YAML"),
        (("title: a study", "title: a study\nreader: nobody"), "reader names"),
        (("  anchors:", "  fit:"), "need at least anchors and test"),
        (("models:", "judges: {refusal: [nobody]}\nmodels:"), "Unknown judge 'nobody'"),
        (("models:", "judges: {harm: llama-guard}\nmodels:"), "llama-guard needs a model"),
        (("models:", "judges: {refusal: [asked-refusal]}\nmodels:"), "asked-refusal needs a model"),
        (
            ("models:", "judges: {endpoint: 'http://x/v1'}\nmodels:"),
            "judges.model is empty",
        ),
        (
            ("models:", "judges: {harm: wildguard, model: m, endpoint: 'http://x/v1'}\nmodels:"),
            "demur loads itself",
        ),
        (("models:", "detectors: [nobody]\nmodels:"), "Unknown detector 'nobody'"),
        (("models:", "defenses: [{name: nobody}]\nmodels:"), "Unknown defense 'nobody'"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_study(write(tmp_path, GOOD.replace(*change)))


def test_a_missing_file_names_the_studies_that_ship(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="organism"):
        read_study(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_studies_are_read(name: str) -> None:
    study, _ = read_study(name)
    assert study.quick is None or isinstance(study.quickened(), Study)


def test_quick_leaves_its_models_and_fewer_prompts() -> None:
    study, folder = read_study("organism")
    quick = study.quickened()
    assert [model.name for model in quick.models] == list(study.quick.models if study.quick else ())
    whole = prompt_sets(study, folder, study.models[0], main=True)
    part = prompt_sets(quick, folder, quick.models[0], main=True)
    assert sum(len(one.prompts) for one in part) < 0.3 * sum(len(one.prompts) for one in whole)


def test_how_a_server_is_reached_makes_no_result_stale() -> None:
    plain = Judges(harm="asked-harm", model="m", endpoint="http://localhost/v1")
    other = plain.model_copy(update={"cache": "answers", "timeout": 5.0, "concurrency": 2})
    assert plain.inputs == other.inputs
    assert plain.inputs != plain.model_copy(update={"model": "n"}).inputs


def test_packages_of_a_study_import_only_those_before_them() -> None:
    order = ("plan", "engine", "work", "report")
    root = Path(demur.study.__file__).parent
    for place, package in enumerate(order):
        for path in (root / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("demur.study"):
                    imported = str(node.module).split(".")[2]
                    assert imported in order[: place + 1], f"{path} imports {node.module}"


def test_a_folder_of_another_version_says_how_to_make_it_again(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Make one with: demur study run"):
        read_manifest(tmp_path)
    (tmp_path / "study.json").write_text('{"study": {}, "arms": [], "cells": [], "made with": {}}')
    with pytest.raises(InputError, match=r"another version of demur\. Run the study again"):
        read_manifest(tmp_path)
