"""The report of a study: one page, every table and figure as files, and results.json.

It is made from finished cells alone. No model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.files import write_atomically
from demur.study.plan.spec import PromptSetSpec
from demur.study.report import detection, protection, rates, samplers
from demur.study.report.evidence import FEWEST, Evidence
from demur.study.report.extra_rows import failures_table
from demur.study.report.findings import SAID, Finding, findings
from demur.study.report.results import Results, read_results
from demur.study.report.results_file import results_file
from demur.study.work.scenes import RULE, ReplayCell
from demur.study.work.suffix_attack import SuffixAttackCell
from demur.study.work.verdicts import AnchorsCell
from demur.viz.figures import Figure
from demur.viz.report_page import Report, Section, Statement, write_report
from demur.viz.tables import Table, file_name, to_latex


@dataclass(frozen=True)
class WrittenReport:
    """Paths of the report, and its content."""

    page: Path
    results: Path
    report: Report
    findings: Sequence[Finding]


def write_study_report(root: str | Path, out: str | Path | None = None) -> WrittenReport:
    """Write ``report.html``, ``results.json``, ``tables/*`` and ``figures/*``.

    Args:
        root: folder of a study that was run.
        out: output folder; ``root`` if None.

    Raises:
        InputError: no study was run there.
        StoreError: a cell is damaged, or the folder cannot be written.
    """
    results, folder = read_results(root), Path(out or root)
    found = findings(results)
    page = study_report(results, found)
    for section in page.sections:
        for table in section.tables:
            for ending, text in (("csv", table.to_csv()), ("tex", to_latex(table))):
                path = folder / "tables" / file_name(table.title, ending)
                write_atomically(path, text.encode())
        for figure in section.figures:
            files = {"svg": figure.svg.encode(), "pdf": figure.pdf}
            files["csv"] = figure.data.to_csv().encode()
            for ending, content in files.items():
                write_atomically(folder / "figures" / file_name(figure.title, ending), content)
    file = results_file(results, found, page)
    path = write_atomically(
        folder / "results.json", file.model_dump_json(indent=1).encode() + b"\n"
    )
    return WrittenReport(write_report(folder / "report.html", page), path, page, found)


def study_report(results: Results, found: Sequence[Finding]) -> Report:
    """The page: findings in words, then the tables and figures behind them."""
    about = results.manifest.study
    return Report(
        title=about.title,
        lead="" if found else "Nothing could be measured. See what failed.",
        findings=[
            Statement(one.about, f"{one.text} {SAID[one.agreement]}".strip(), one.shown_in)
            for one in found
        ],
        note=" ".join(filter(None, (about.note, _few(results)))),
        sections=[
            part for part in _sections(results) if part.tables or part.figures or part.scenes
        ],
        methods=methods(results),
    )


def _few(results: Results) -> str:
    """Which arms have anchors of few traces."""
    found = {cell.subject.arm: cell.result for cell in results.of(AnchorsCell)}
    said = [f"{arm}: {one.few}." for arm, one in found.items() if one is not None and one.few]
    return " ".join(said)


def _sections(results: Results) -> Iterator[Section]:
    if broken := failures_table(results):
        yield Section("What failed", "The rest of the study continued without it.", tables=[broken])
    if not results.main:
        return
    scenes = [one for cell in results.of(ReplayCell) if cell.result for one in cell.result.scenes]
    yield Section(
        "Watch it",
        "The same prompt under several samplers, step by step. Selected by a rule; see Methods.",
        scenes=scenes,
    )
    yield Section(
        "What the text shows",
        "Refusals and successful attacks, by model and attack.",
        tables=_filled(rates.rates_table(results), rates.answers_table(results)),
        figures=_drawn(rates.dynamics_figure(one) for one in results.main),
    )
    yield Section(
        "The sampler alone",
        "The same weights under other samplers, which change the order of tokens and how many are "
        "committed per step.",
        tables=_filled(
            samplers.same_weights_table(results),
            samplers.remasking_table(results),
            samplers.causality_table(results),
        ),
        figures=_drawn(
            draw(results, model)
            for model in dict.fromkeys(one.model for one in results.group("continuum"))
            for draw in (samplers.blocks_figure, samplers.commits_figure)
        ),
    )
    yield Section(
        "Recovery",
        "Whether a harmful draft is taken back later, and whether the hidden states return to refusal.",
        tables=_filled(rates.recovery_table(results), rates.internal_table(results)),
        figures=_drawn((rates.models_figure(results), samplers.samplers_figure(results))),
    )
    signals = (rates.trajectory_figure, rates.plane_figure)
    yield Section(
        "The signal",
        "Sigma is 1 if the state is close to answered harmless generations, and 0 if it is close to "
        "refused harmful ones.",
        tables=[rates.groups_table(results.main)],
        figures=_drawn(draw(one) for draw in signals for one in results.main),
    )
    yield from _guards(results)


def _guards(results: Results) -> Iterator[Section]:
    yield Section(
        "Detection",
        "SRI Guard's autoencoder and threshold are fitted on benign prompts only; the anchors of its "
        "signal also use refused harmful prompts. Detectors fitted on attacks are marked, and are also "
        "shown on attacks that were left out of their fit.",
        tables=_filled(
            detection.detectors_table(results),
            detection.detection_table(results),
            detection.outcomes_table(results),
            detection.left_out_table(results),
            detection.false_positives_table(results),
            protection.delay_table(results),
        ),
        figures=_drawn(protection.delay_figure(results, one.name) for one in results.main),
    )
    yield Section(
        "Settings",
        "How the paper's detector depends on each of its settings.",
        tables=_filled(detection.ablation_table(results)),
    )
    arms = dict.fromkeys(cell.subject.arm for cell in results.of(SuffixAttackCell))
    yield Section(
        "Attackers who know the guard",
        "Random search for a suffix that raises the target's likelihood and lowers the guard's score.",
        tables=_filled(protection.budget_table(results)),
        figures=_drawn(protection.budget_figure(results, arm) for arm in arms),
    )
    yield Section(
        "Defenses",
        "What users read with each defense, and its cost in the same run.",
        tables=_filled(
            protection.defenses_table(results),
            protection.infilling_table(results),
            protection.times_table(results),
            protection.surrogate_table(results),
        ),
    )
    yield Section(
        "Judges",
        "How much verdicts depend on the judge.",
        tables=_filled(rates.judges_table(results), samplers.second_opinion_table(results)),
    )


def methods(results: Results) -> dict[str, str]:
    """What made the page, from the manifest."""
    manifest, study = results.manifest, results.manifest.study
    made, judges = manifest.made_with, manifest.study.judges
    return {
        "command": manifest.command,
        "demur": made["demur"],
        "python": made["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in made["packages"].items()),
        "machine": f"{made['machine']}; threads: {made['threads']}",
        "time": ", ".join(f"{name} {value} s" for name, value in manifest.seconds.items()),
        "seed": str(study.seed),
        "false-positive rate": f"{study.alpha:g}, threshold by split conformal on held-out prompts",
        "intervals": "95%, clustered by goal: Wilson's with the effective number of rows for rates and "
        "AUROC, combined from both sides for differences, a bootstrap over goals for TPR and kappa",
        "smallest n": f"a number over fewer than {FEWEST} goals is not shown",
        "judges": f"refusal: {', '.join(judges.refusal)}; harm: {judges.harm or 'not judged'}",
        "prompts": "\n".join(_set(role, one) for role, sets in study.sets.items() for one in sets),
        "replays": RULE,
        **{f"arm {one.name}": _arm(one) for one in results.evidence},
    }


def _arm(one: Evidence) -> str:
    mark = one.fingerprint
    settings = ", ".join(f"{k} {v}" for k, v in mark.sampler.items() if v is not None)
    return (
        f"{settings}; pooling {mark.pooling}; revision {mark.revision}; {mark.dtype}; "
        f"{len(one.goals)} test prompts of {len(set(one.goals.tolist()))} goals"
    )


def _set(role: str, one: PromptSetSpec) -> str:
    each = f" for {', '.join(one.each)}" if one.each else ""
    attacks = f" under {', '.join(a['name'] for a in one.attacks)}" if one.attacks else ""
    return f"{role}: {one.source}{each}{attacks}, {one.n} each before a model's share"


def _filled(*tables: Table | None) -> list[Table]:
    """Tables that exist and have rows."""
    return [table for table in tables if table is not None and table.rows]


def _drawn(figures: Iterable[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]
