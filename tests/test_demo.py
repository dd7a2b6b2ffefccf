"""The demonstration, small: the whole path on the built-in models."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from demur.study import demo, detection, rates, recovery
from demur.study.demo import Demo, Sizes, run_demo

SMALL = Sizes(anchors=12, guard=4, calibration=17, harmless=2, harmful=2)


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Demo, Path, list[tuple[str, int, int]]]:
    ticks: list[tuple[str, int, int]] = []
    out = tmp_path_factory.mktemp("demo")
    return run_demo(out, sizes=SMALL, tick=lambda *tick: ticks.append(tick)), out, ticks


def test_page_is_one_file_without_references(found: tuple[Demo, Path, object]) -> None:
    page = found[0].path.read_text()
    outside = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert all("w3.org" in address for address in outside), outside
    assert demo.NOTE.split(":")[0] in page
    for table in found[0].tables:
        assert table.title in page


def test_progress_ends_full(found: tuple[Demo, Path, list[tuple[str, int, int]]]) -> None:
    last = {stage: (done, total) for stage, done, total in found[2]}
    assert set(last) == {arm.name for arm in demo.ARMS} | {"writing the report"}
    assert all(done == total for done, total in last.values())


def test_second_run_computes_nothing_and_says_the_same(
    found: tuple[Demo, Path, object],
) -> None:
    shards = {p: p.stat().st_mtime_ns for p in found[1].rglob("*.parquet")}
    again = run_demo(found[1], sizes=SMALL)
    assert {p: p.stat().st_mtime_ns for p in found[1].rglob("*.parquet")} == shards
    assert [t.to_csv() for t in again.tables] == [t.to_csv() for t in found[0].tables]


def test_tables_have_every_arm_and_attack(found: tuple[Demo, Path, object]) -> None:
    titles = {table.title: table for table in found[0].tables}
    rates_table = titles["Refusal rate and attack success rate on harmful prompts"]
    assert next(row[0] for row in rates_table.rows) == "none"
    assert len(rates_table.columns) == 1 + 2 * len(demo.ARMS)
    guards = next(t for name, t in titles.items() if name.startswith("SRI Guard"))
    assert len(guards.rows) == 2 * sum(arm.guarded for arm in demo.ARMS)


def test_sets_share_no_goal() -> None:
    sets = demo.prompt_sets(SMALL)
    goals = {name: {p.goal for p in prompts} for name, prompts in sets.items()}
    names = list(goals)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not goals[first] & goals[second], (first, second)


def test_modules_are_pure_functions_of_evidence() -> None:
    for module in (rates, recovery, detection):
        assert "models" not in vars(module)
    assert np.isnan(demo.signals.volatility(np.zeros((0, 4), np.float32)))
