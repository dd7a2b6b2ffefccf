"""`demur demo`: the shipped study on two built-in models, which is what --quick leaves of it."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from demur.cli import study as command
from demur.study.plan.spec_file import read_study


def test_the_demo_is_the_quick_study(tmp_path: Path) -> None:
    with mock.patch.object(command, "study_run") as run:
        command.demo(tmp_path)
    run.assert_called_once_with("organism", out=tmp_path, quick=True)
    study = read_study("organism")[0].quickened()
    assert {model.model for model in study.models} == {"organism-ar", "organism-dlm"}
