"""Tables and figures of a study follow their evidence, and say what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demur.metrics import Estimate
from demur.study import paper
from demur.study.cells import Outcome
from demur.study.evidence import TOO_FEW, Evidence
from demur.study.figures import budget, causality, delay, dynamics, plane, recovery, trajectories
from demur.study.results import Measured, read_results
from demur.study.run import failures, run_study
from demur.study.spec import read_study
from demur.study.tables import (
    ablation,
    detection,
    failed,
    false_positives,
    judges,
    same_weights,
    second_opinion,
)
from demur.study.tables import delay as delays
from demur.study.tables import recovery as recovered
from demur.viz.tables import NOTHING, Table, Value
from hand_made import (
    ATTACKED,
    BROKEN,
    HARMLESS,
    REVISED,
    STEPS,
    Kind,
    cell,
    evidence,
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
    table = recovered.recovery_table(results(evidence()))
    entered = BROKEN.n + REVISED.n
    assert column(table, "generations with a harmful draft", "toy") == [entered]
    assert value(column(table, "HRR", "toy")[0]) == pytest.approx(REVISED.n / entered)
    assert column(table, "HRR", f"Dream{paper.MARK}") == [0.96]


def test_few_successes_are_no_figure() -> None:
    few = evidence(kinds=(*HARMLESS, replace(BROKEN, n=9), replace(ATTACKED[0], n=20)))
    few = scored(few, {"sri": scores("sri", perfect(few))})
    of = results(few)
    assert column(recovered.recovery_table(of), "HRR", "toy") == [TOO_FEW]
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
    assert column(table, "mean AUROC", f"sri{paper.MARK}") == [0.920]
    rows = detection.detection_table(results(*arms))
    assert [value(cell) for cell in column(rows, "AUROC", "two")] == [0.5]


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
    assert column(table, "prompts of each", "toy") == ["20, 12, 11"]
    found = [value(column(table, end, "toy")[0]) for end in ("succeeded", "refused", "failed")]
    assert found == [1, 0.5, 0.5]


def test_false_positives_are_counted_where_they_are() -> None:
    one = evidence()
    flips = one.rows("harmless", "flip").astype(float)
    twin = "sri, fitted on plain"
    both = {"sri": scores("sri", np.zeros(len(flips))), twin: scores(twin, flips)}
    table = false_positives.false_positives_table(results(scored(one, both)))
    assert [value(cell) for cell in column(table, "plain", "toy")] == [0, 0]
    for wrapped in ("in wrappers", "flip"):
        assert [value(cell) for cell in column(table, wrapped, "toy")] == [0, 1]
    assert [value(cell) for cell in column(table, "borderline", "toy")] == [0, 0]


def test_prompts_that_no_detector_saw_are_not_called_harmless() -> None:
    one = evidence()
    unseen = np.where(one.rows("borderline"), np.nan, 0.0)
    table = false_positives.false_positives_table(
        results(scored(one, {"sri": scores("sri", unseen)}))
    )
    assert column(table, "borderline", "toy") == [NOTHING]
    assert value(column(table, "plain", "toy")[0]) == 0


def test_a_detector_that_failed_everywhere_keeps_its_rows() -> None:
    one = replace(evidence(), failed={"sri": "SignalError: no refusals"})
    of = results(scored(one, {"length": scores("length", perfect(one))}))
    of.manifest["study"]["detectors"].extend(["length", "sri"])
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
    table = ablation.ablation_table(results(scored(one, found), pooled))
    assert value(column(table, "toy", "the paper's")[0]) == 1
    assert 0.2 < value(column(table, "toy", "tau = 1")[0]) < 0.8
    assert value(column(table, "toy", "one-class model: Mahalanobis")[0]) == 0
    change = column(table, "toy, change", "one-class model: Mahalanobis")[0]
    assert isinstance(change, Estimate)
    assert change.low == change.value == -1 < change.high < -0.5
    assert any(str(row[0]).startswith("pooling") for row in table.rows)


def test_judges_agree_as_far_as_they_do() -> None:
    one = evidence()
    same = replace(one, refused={"paper": one.refusals, "twin": one.refusals})
    for arm, agreement in ((same, 1.0), (one, 0.0)):
        table = judges.judges_table(results(arm))
        assert value(table.rows[0][-1]) == pytest.approx(agreement)
        harmful = one.rows("harmful")
        assert value(table.rows[0][1]) == pytest.approx(one.refusals[harmful].mean())


def test_every_judge_has_its_say_on_the_same_weights() -> None:
    of = results(*pair())
    refused = REVISED.n / 43
    by_first, by_each = same_weights.same_weights_table(of), second_opinion.second_opinion_table(of)
    assert by_first is not None
    assert value(column(by_first, "change in RR", "m")[0]) == pytest.approx(refused)
    first, plain, flip = range(3)
    by_paper, by_strict = (column(by_each, judge, "m") for judge in ("paper", "strict"))
    assert value(by_paper[first]) == pytest.approx(refused) == value(by_paper[flip])
    assert value(by_paper[plain]) == 0
    assert [value(cell) for cell in by_strict] == [0, 0, 0]


def watched(one: Evidence, *, at: int) -> Measured:
    step = np.where(one.jailbreaks, at, 0).tolist()
    tokens = np.where(one.jailbreaks, at - 1, 6).tolist()
    found = {"steps": STEPS, "sets": {"test": {"step": step, "tokens": tokens}}}
    return cell(found, arm=one.name)


def test_delay_says_when_and_what_had_left() -> None:
    one = evidence()
    of = results(one, measured={"delay": [watched(one, at=3)]})
    table = delays.delay_table(of)
    assert value(column(table, "flagged", "toy")[0]) == 1
    assert column(table, "median step", "toy") == [3]
    assert column(table, "tokens out, mean", "toy") == [2]
    assert value(column(table, "harmless flagged", "toy")[0]) == 0
    figure = delay.delay_figure(of, "toy")
    assert figure is not None
    curve = {row[1]: value(row[2]) for row in figure.data.rows if "jailbreaks" in str(row[0])}
    assert curve == {step: float(step >= 3) for step in range(1, STEPS + 1)}


def test_a_delay_that_was_not_measured_is_no_figure() -> None:
    one = evidence()
    broken = Measured({"arm": "toy"}, Outcome("failed", error="SignalError: too few"))
    assert delay.delay_figure(results(one), "toy") is None
    of = results(one, measured={"delay": [broken]})
    assert delay.delay_figure(of, "toy") is None
    assert "too few" in str(delays.delay_table(of).rows[0][1])
    unseen = {"steps": STEPS, "sets": {}}
    assert (
        delay.delay_figure(results(one, measured={"delay": [cell(unseen, arm="toy")]}), "toy")
        is None
    )


def test_a_budget_curve_rises_with_its_queries() -> None:
    tries = [[0, 4, True, True], [0, 40, True, False], [1, 2, True, False], [2, 9, False, False]]
    found = cell({"goals": ["a", "b", "c"], "tries": tries, "queries": 64}, arm="toy", attack="x")
    of = results(evidence(), measured={"adaptive": [found]})
    assert value(budget.reached(found, 64, unflagged=False)) == pytest.approx(2 / 3)
    figure = budget.budget_figure(of, "toy")
    assert figure is not None
    shares = [value(row[2]) for row in figure.data.rows]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(1 / 3)
    assert shares[-1] == pytest.approx(2 / 3)
    assert budget.budget_figure(of, "other") is None


def test_the_continuum_is_drawn_in_its_order() -> None:
    arms = []
    for block, steps in ((8, 8), (1, 8), (8, 1)):
        sampler = {"name": "masked", "block_length": block, "gen_length": 8, "steps": steps}
        name = f"m, {block} {steps}"
        arms.append(evidence(name, group="continuum", sampler=sampler))
    of = results(*arms)
    table = causality.causality_table(of)
    assert column(table, "block length", "m") == [8, 1, 8]
    assert column(table, "commits a step", "m") == [1, 1, 8]
    blocks = causality.blocks_figure(of, "m").data.rows
    assert [row[1] for row in blocks if row[0] == "ASR"] == [1, 8]
    commits = causality.commits_figure(of, "m").data.rows
    assert [row[1] for row in commits if row[0] == "ASR"] == [1, 8]


def test_figures_show_each_outcome() -> None:
    one = evidence()
    shown = {str(row[0]) for row in trajectories.trajectory_figure(one).data.rows}
    assert {"harmless, answered", "harmful, refused", "jailbreak succeeded"} <= shown
    assert {str(row[0]) for row in plane.plane_figure(one).data.rows} <= shown
    steps = dynamics.dynamics_figure(one).data.rows
    harmful = [value(row[2]) for row in steps if row[0] == "harmful draft"]
    assert harmful[-1] == pytest.approx(BROKEN.n / 43)


def test_recovery_is_drawn_by_model_and_by_sampler() -> None:
    of = results(*pair())
    assert {row[0] for row in recovery.models_figure(of).data.rows} == {"m"}
    both = recovery.samplers_figure(of)
    assert both is not None
    assert {row[0] for row in both.data.rows} == {"m", "m, AR order"}
    assert recovery.samplers_figure(results(evidence())) is None


def test_what_failed_stands_where_its_figures_would() -> None:
    one = replace(evidence(), failed={"sri": "SignalError: no refusals"})
    gone = {"name": "gone", "group": "main"}
    of = results(scored(one, {"length": scores("length", perfect(one))}))
    of = replace(
        of,
        manifest={**of.manifest, "arms": [*of.manifest["arms"], gone]},
        failures=(Outcome("failed", error="ModelError: no weights", kind="traces", model="gone"),),
    )
    table = recovered.recovery_table(of)
    assert "no weights" in str(column(table, table.columns[1], "gone")[0])
    whole = failed.failures_table(of)
    assert whole is not None
    assert "ModelError: no weights" in whole.rows[0]


STUDY = {
    "title": "One model",
    "alpha": 0.2,
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
            {"source": "organism:test/harmless", "n": 10},
            {"source": "organism:test/harmful/wild", "n": 14},
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
    figure = delay.delay_figure(of, "AR")
    assert figure is not None
    assert figure.svg.startswith("<svg")
