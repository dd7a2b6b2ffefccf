"""Tables and figures of a study follow their evidence, and say what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.metrics import Estimate
from demur.study.engine.cells import CellOutcome
from demur.study.plan.arms import Arm, ArmGroup
from demur.study.plan.spec_file import read_study
from demur.study.report import detection, extra_rows, protection, rates, samplers
from demur.study.report.evidence import FEWEST, IMPOSSIBLE, Evidence
from demur.study.report.results import Measured, Results, read_results
from demur.study.run import failures, run_study
from demur.study.work.defense import Cost, DefendedRow, DefenseCell, DefenseResult, Ending
from demur.study.work.guards import DelayCell, Delays, SetDelay
from demur.study.work.suffix_attack import Attempt, SearchResult, SuffixAttackCell
from demur.viz.tables import NOTHING, TOO_FEW, Table, Value
from hand_made import (
    ATTACKED,
    BROKEN,
    HARMLESS,
    REVISED,
    STEPS,
    Kind,
    cell,
    evidence,
    fingerprint,
    pair,
    perfect,
    results,
    scored,
    scores,
    value,
)


def column(table: Table, name: str, first: str) -> list[Value]:
    """A column's values in the rows whose first cell is ``first``."""
    place = list(table.columns).index(name)
    return [row[place] for row in table.rows if row[0] == first]


def test_recovery_counts_drafts_that_were_taken_back() -> None:
    table = rates.recovery_table(results(evidence()))
    entered = BROKEN.n + REVISED.n
    assert column(table, "generations with a harmful draft", "toy") == [entered]
    assert value(column(table, "HRR", "toy")[0]) == pytest.approx(REVISED.n / entered)
    assert column(table, "HRR", f"Dream{extra_rows.MARK}") == [0.96]


def test_few_successes_are_no_figure() -> None:
    few = evidence(kinds=(*HARMLESS, replace(BROKEN, n=9), replace(ATTACKED[0], n=20)))
    few = scored(few, {"sri": scores("sri", perfect(few))})
    of = results(few)
    assert column(rates.recovery_table(of), "HRR", "toy") == [TOO_FEW]
    assert column(detection.detection_table(of), "AUROC", "toy") == [TOO_FEW]
    assert column(detection.detectors_table(of), "mean AUROC", "sri") == [TOO_FEW]


def test_detectors_are_summed_up_over_models() -> None:
    arms = []
    for name, right in (("one", True), ("two", False)):
        one = evidence(name)
        values = perfect(one) if right else np.zeros(len(one.goals))
        arms.append(scored(one, {"sri": scores("sri", values)}))
    table = detection.detectors_table(results(*arms))
    assert column(table, "mean AUROC", "sri") == [0.75]
    assert column(table, "standard deviation", "sri")[0] == pytest.approx(np.std([1, 0.5], ddof=1))
    assert column(table, "mean AUROC", f"sri{extra_rows.MARK}") == [0.920]
    table = detection.detection_table(results(*arms))
    assert [value(cell) for cell in column(table, "AUROC", "two")] == [0.5]


def test_rates_that_so_few_harmless_prompts_cannot_show_are_not_shown() -> None:
    many = evidence(kinds=(Kind("harmless", n=100), *ATTACKED))
    table = detection.detection_table(results(scored(many, {"sri": scores("sri", perfect(many))})))
    assert value(column(table, "TPR at 1% FPR", "toy")[0]) == 1
    assert column(table, "TPR at 0.1% FPR", "toy") == [TOO_FEW]


def test_an_attack_left_out_has_its_own_scores() -> None:
    one = evidence()
    blind = {"flip": np.zeros(len(one.goals))}
    probe = scores("probe", perfect(one), supervised=True, left_out=blind)
    table = detection.left_out_table(results(scored(one, {"probe": probe})))
    assert value(column(table, "AUROC, attack seen", "toy")[0]) == 1
    assert value(column(table, "AUROC, attack left out", "toy")[0]) == 0.5


def test_outcomes_part_the_attacked_prompts() -> None:
    one = evidence()
    table = detection.outcomes_table(results(scored(one, {"sri": scores("sri", perfect(one))})))
    assert column(table, "prompts of each", "toy") == ["20, 22, 21"]
    found = [value(column(table, end, "toy")[0]) for end in ("succeeded", "refused", "failed")]
    assert found == [1, 0.5, 0.5]


def test_false_positives_are_counted_where_they_are() -> None:
    one = evidence()
    flips = one.where("harmless", "flip").astype(float)
    twin = "sri, fitted on plain"
    both = {"sri": scores("sri", np.zeros(len(flips))), twin: scores(twin, flips)}
    table = detection.false_positives_table(results(scored(one, both)))
    assert [value(cell) for cell in column(table, "plain", "toy")] == [0, 0]
    for wrapped in ("in wrappers", "flip"):
        assert [value(cell) for cell in column(table, wrapped, "toy")] == [0, 1]
    assert [value(cell) for cell in column(table, "borderline", "toy")] == [0, 0]


def test_prompts_that_no_detector_saw_are_not_called_harmless() -> None:
    one = evidence()
    unseen = np.where(one.where("borderline"), np.nan, 0.0)
    table = detection.false_positives_table(results(scored(one, {"sri": scores("sri", unseen)})))
    assert column(table, "borderline", "toy") == [NOTHING]
    assert value(column(table, "plain", "toy")[0]) == 0


def test_a_detector_that_failed_everywhere_keeps_its_rows() -> None:
    one = replace(evidence(), failed={"sri": "SignalError: no refusals"})
    of = results(
        scored(one, {"length": scores("length", perfect(one))}),
        study={"detectors": ["length", "sri"]},
    )
    assert [row[0] for row in detection.detectors_table(of).rows][:2] == ["length", "sri"]
    (row,) = [row for row in detection.detection_table(of).rows if row[1] == "sri"]
    assert "no refusals" in str(row[2])


def test_ablations_are_set_against_the_papers_setting() -> None:
    one = evidence()
    noise = np.random.default_rng(0).random(len(one.goals))
    found = {
        "sri": scores("sri", perfect(one)),
        "tau = 1": scores("tau = 1", noise, group="ablation"),
        "mahalanobis": scores("mahalanobis", -perfect(one)),
    }
    pooled = scored(
        evidence("toy, pooling content", group="pooling"), {"sri": scores("sri", perfect(one))}
    )
    table = detection.ablation_table(results(scored(one, found), pooled))
    assert value(column(table, "toy", "the paper's")[0]) == 1
    assert 0.2 < value(column(table, "toy", "tau = 1")[0]) < 0.8
    assert value(column(table, "toy", "one-class model: Mahalanobis")[0]) == 0
    change = column(table, "toy, change", "one-class model: Mahalanobis")[0]
    assert isinstance(change, Estimate)
    assert change.low == change.value == -1 < change.high < -0.5
    assert any(str(row[0]).startswith("pooling") for row in table.rows)


def test_judges_agree_as_far_as_they_do() -> None:
    one = evidence()
    first = one.rows.refused["paper"]
    same = replace(one, rows=replace(one.rows, refused={"paper": first, "twin": first}))
    for arm, agreement in ((same, 1.0), (one, 0.0)):
        table = rates.judges_table(results(arm))
        assert value(table.rows[0][-1]) == pytest.approx(agreement)
        harmful = one.where("harmful")
        assert value(table.rows[0][1]) == pytest.approx(one.refusals[harmful].mean())


def test_every_judge_has_its_say_on_the_same_weights() -> None:
    of = results(*pair())
    refused = REVISED.n / 63
    by_first, by_each = samplers.same_weights_table(of), samplers.second_opinion_table(of)
    assert by_first is not None
    assert value(column(by_first, "change in RR", "m")[0]) == pytest.approx(refused)
    first, plain, flip = range(3)
    by_paper, by_strict = (column(by_each, judge, "m") for judge in ("paper", "strict"))
    assert value(by_paper[first]) == pytest.approx(refused) == value(by_paper[flip])
    assert value(by_paper[plain]) == 0
    assert [value(cell) for cell in by_strict] == [0, 0, 0]


def watched(one: Evidence, *, at: int) -> Measured[Delays]:
    step = np.where(one.jailbreaks, at, 0).tolist()
    tokens = np.where(one.jailbreaks, at - 1, 6).tolist()
    found = SetDelay(tuple(step), tuple(tokens))
    return cell(Delays(STEPS, {"test": found}), arm=one.name)


def test_delay_says_when_and_what_had_left() -> None:
    one = evidence()
    of = results(one, measured={DelayCell: [watched(one, at=3)]})
    table = protection.delay_table(of)
    assert value(column(table, "flagged", "toy")[0]) == 1
    assert column(table, "median step", "toy") == [3]
    assert column(table, "tokens out, mean", "toy") == [2]
    assert value(column(table, "harmless flagged", "toy")[0]) == 0
    figure = protection.delay_figure(of, "toy")
    assert figure is not None
    curve = {row[1]: value(row[2]) for row in figure.data.rows if "jailbreaks" in str(row[0])}
    assert curve == {step: float(step >= 3) for step in range(1, STEPS + 1)}


def test_a_delay_that_was_not_measured_is_no_figure() -> None:
    one = evidence()
    broken = cell(None, "SignalError: too few", arm="toy")
    assert protection.delay_figure(results(one), "toy") is None
    of = results(one, measured={DelayCell: [broken]})
    assert protection.delay_figure(of, "toy") is None
    assert "too few" in str(protection.delay_table(of).rows[0][1])
    unseen = cell(Delays(STEPS, {}), arm="toy")
    of = results(one, measured={DelayCell: [unseen]})
    assert protection.delay_figure(of, "toy") is None


def test_a_budget_curve_rises_with_its_queries() -> None:
    attempts = (
        Attempt(0, 4, harmful=True, flagged=True),
        Attempt(0, 40, harmful=True, flagged=False),
        Attempt(1, 2, harmful=True, flagged=False),
        Attempt(2, 9, harmful=False, flagged=False),
    )
    found = SearchResult(tuple(f"goal {i}" for i in range(20)), attempts, queries=64)
    measured = {SuffixAttackCell: [cell(found, arm="toy", search="x")]}
    of = results(evidence(), measured=measured)
    assert value(protection.reached(found, 64, unflagged=False)) == pytest.approx(2 / 20)
    assert value(column(protection.budget_table(of), "harmful, no query", "toy")[0]) == 0
    figure = protection.budget_figure(of, "toy")
    assert figure is not None
    shares = [value(row[2]) for row in figure.data.rows]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(1 / 20)
    assert shares[-1] == pytest.approx(2 / 20)
    few = replace(found, goals=found.goals[:12])
    assert protection.reached(few, 64, unflagged=True) == TOO_FEW
    assert protection.budget_figure(of, "other") is None


def test_the_continuum_is_drawn_in_its_order() -> None:
    arms = []
    for block, steps in ((8, 8), (1, 8), (8, 1)):
        sampler = {"name": "masked", "block_length": block, "gen_length": 8, "steps": steps}
        name = f"m, {block} {steps}"
        arms.append(evidence(name, group="continuum", sampler=sampler))
    of = results(*arms)
    table = samplers.causality_table(of)
    assert column(table, "block length", "m") == [8, 1, 8]
    assert column(table, "commits a step", "m") == [1, 1, 8]
    blocks = samplers.blocks_figure(of, "m").data.rows
    assert [row[1] for row in blocks if row[0] == "ASR"] == [1, 8]
    commits = samplers.commits_figure(of, "m").data.rows
    assert [row[1] for row in commits if row[0] == "ASR"] == [1, 8]


def test_figures_show_each_outcome() -> None:
    one = evidence()
    shown = {str(row[0]) for row in rates.trajectory_figure(one).data.rows}
    assert {"harmless, answered", "harmful, refused", "jailbreak succeeded"} <= shown
    assert {str(row[0]) for row in rates.plane_figure(one).data.rows} <= shown
    steps = rates.dynamics_figure(one).data.rows
    harmful = [value(row[2]) for row in steps if row[0] == "harmful draft"]
    assert harmful[-1] == pytest.approx(BROKEN.n / 63)


def test_recovery_is_drawn_by_model_and_by_sampler() -> None:
    of = results(*pair())
    assert {row[0] for row in rates.models_figure(of).data.rows} == {"m"}
    both = samplers.samplers_figure(of)
    assert both is not None
    assert {row[0] for row in both.data.rows} == {"m", "m, AR order"}
    assert samplers.samplers_figure(results(evidence())) is None


def test_what_failed_stands_where_its_figures_would() -> None:
    one = replace(evidence(), failed={"sri": "SignalError: no refusals"})
    of = results(scored(one, {"length": scores("length", perfect(one))}))
    of = lost(of, "gone", "main")
    table = rates.recovery_table(of)
    assert "no weights" in str(column(table, table.columns[1], "gone")[0])


def lost(
    of: Results, name: str, group: ArmGroup, sampler: Mapping[str, Any] | None = None
) -> Results:
    """The results with one more arm, which failed."""
    arm = Arm(name, name.split(",")[0], "", "", sampler or {}, group=group)
    error = "ModelError: no weights"
    outcome = CellOutcome("failed", error=error, kind="traces", name=name, arm=name)
    return replace(
        of,
        manifest=replace(of.manifest, arms=(*of.manifest.arms, arm)),
        failures=(*of.failures, outcome),
    )


def test_failed_samplers_keep_their_rows() -> None:
    of = results(*pair())
    order = {"block_length": 1}
    tables: dict[ArmGroup, list[Any]] = {
        "variant": [samplers.same_weights_table, rates.recovery_table],
        "continuum": [samplers.causality_table],
    }
    for group, shown in tables.items():
        for draw in shown:
            table = draw(lost(of, "m, lost", group, order))
            assert table is not None
            assert "no weights" in str(column(table, table.columns[1], "m, lost")[0])
    alone = lost(results(evidence("m")), "m, lost", "variant", order)
    only = samplers.same_weights_table(alone)
    assert only is not None
    assert "no weights" in str(only.rows[0])


def test_an_attack_that_failed_is_not_shown_as_not_run() -> None:
    fails = {
        "test organism:test/harmful/pad": "needs attack of pad on toy, which failed: InputError: x"
    }
    table = rates.rates_table(
        results(replace(evidence("toy"), failed=fails), evidence("other", PAD))
    )
    assert column(table, "pad", "toy")[:2] == ["failed", "failed"]
    assert [row[1] for row in table.rows if row[0] == "toy"][-1] == (
        "test organism:test/harmful/pad: failed: InputError: x"
    )


PAD = (*HARMLESS, *ATTACKED, replace(BROKEN, attack="pad"))


def test_failures_are_grouped_by_their_cause() -> None:
    def broken(kind: str, error: str) -> CellOutcome:
        return CellOutcome("failed", error=error, kind=kind, name="AR, x", arm="AR")

    found = (
        broken("traces", "ModelError: no weights"),
        broken("verdicts", "needs traces of AR, x, which failed: ModelError: no weights"),
        broken("defense", "InputError: other"),
    )
    table = extra_rows.failures_table(results(evidence(), failures=found))
    assert table is not None
    assert [tuple(row[:3]) for row in table.rows] == [
        ("ModelError: no weights", "AR", 2),
        ("InputError: other", "AR", 1),
    ]
    assert table.rows[0][3] == "traces AR, x; verdicts AR, x"


def test_a_rate_needs_goals_and_not_successes() -> None:
    few, enough = (evidence(kinds=(Kind("harmful", "flip", n=n),)) for n in (FEWEST - 1, 60))
    for one, shown in ((few, False), (enough, True)):
        cell = column(rates.rates_table(results(one)), "flip", "toy")[1]
        assert isinstance(cell, Estimate) == shown
        if isinstance(cell, Estimate):
            assert (cell.value, cell.low) == (0, 0)
            assert 0.03 < cell.high < 0.1
        else:
            assert cell == TOO_FEW


def test_one_step_leaves_nothing_to_recover_from() -> None:
    sampler = {"name": "masked", "block_length": 8, "gen_length": 8, "steps": 1}
    of = results(evidence("m", group="continuum", sampler=sampler))
    table = samplers.causality_table(of)
    assert column(table, "IRR at 0.5", "m") == column(table, "HRR", "m") == [IMPOSSIBLE]


def test_internal_recovery_is_parted_by_the_response() -> None:
    turned = replace(BROKEN, sigma=0.9, ends=0.1)
    one = evidence(kinds=(*HARMLESS, turned, REVISED, Kind("harmful", "flip", sigma=0.9)))
    rows = {row[1]: row for row in rates.internal_table(results(one)).rows}
    assert {end: row[2] for end, row in rows.items()} == {
        "succeeded": 20,
        "refused": 22,
        "failed": 20,
    }
    assert [value(rows[end][3]) for end in ("succeeded", "refused", "failed")] == [1, 0, 0]


def test_samplers_are_compared_on_the_prompts_they_share() -> None:
    order = {"name": "masked", "block_length": 1, "gen_length": 8, "steps": 8}
    main = evidence("m", sampler={**order, "block_length": 8})
    fewer = main.only(np.arange(len(main.goals)) % 2 == 0)
    ordered = replace(fewer, name="m, AR order", group="variant", fingerprint=fingerprint(order))
    model = {"name": "m", "model": "m", "arms": [{"name": "greedy"}]}
    of = results(main, ordered, study={"models": [model]})
    rows = samplers.remasking_table(of).rows
    assert [row[0] for row in rows] == ["m, greedy", "m, greedy", "m, AR order", "m, AR order"]
    assert len({row[2] for row in rows}) == 1
    figure = samplers.samplers_figure(of)
    assert figure is not None
    assert len({cell.n for *_, cell in figure.data.rows if isinstance(cell, Estimate)}) == 1


def test_a_defense_is_measured_on_the_same_prompts() -> None:
    def row(goal: int, *, before: bool, after: bool) -> DefendedRow:
        ends = Ending(False, before), Ending(after != before, after)
        return DefendedRow(str(goal), "flip", "harmful", "kept", *ends)

    rows = tuple(row(i, before=i < 20, after=i < 5) for i in range(40))
    found = DefenseResult(rows, Cost(10, 1.0), Cost(10, 1.0))
    defended = cell(found, arm="toy", defense="sri-guard (sri)")
    of = results(evidence(), measured={DefenseCell: [defended]})
    table = protection.defenses_table(of)
    assert table is not None
    cut = column(table, "cut in ASR", "toy")[1]
    assert value(cut) == pytest.approx(15 / 40)
    assert isinstance(cut, Estimate)
    assert cut.low > 0.2


STUDY = {
    "title": "One model",
    "alpha": 0.2,
    "allow_few": True,
    "batch_size": 32,
    "layers": ["last"],
    "judges": {"refusal": ["rules", "oracle"], "harm": "oracle"},
    "models": [{"name": "AR", "model": "organism-ar"}],
    "sets": {
        "anchors": [
            {"source": "organism:anchors/harmless", "n": 4},
            {"source": "organism:anchors/harmful", "n": 4},
        ],
        "fit": [{"source": "organism:guard/harmless", "n": 20}],
        "calibration": [{"source": "organism:calibration/harmless", "n": 10}],
        "test": [
            {"source": "organism:test/harmless", "n": 24},
            {"source": "organism:test/harmful/wild", "n": 90},
        ],
    },
    "detectors": ["static", "length"],
}


def test_a_real_run_fills_the_tables(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(STUDY), "utf-8")
    study, folder = read_study(tmp_path / "study.yaml")
    assert not failures(run_study(study, folder, tmp_path / "out"))
    of = read_results(tmp_path / "out")
    (one,) = of.main
    assert list(one.refused) == ["rules", "oracle"]
    auroc = column(detection.detection_table(of), "AUROC", "AR")
    assert all(isinstance(cell, Estimate) and 0 <= cell.value <= 1 for cell in auroc)
    figure = protection.delay_figure(of, "AR")
    assert figure is not None
    assert figure.svg.startswith("<svg")
