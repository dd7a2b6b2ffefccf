"""The report of a study's folder: one page, every table and figure as files, and results.json.

Made from finished cells alone; no model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.files import write_atomically
from demur.study.evidence import FEWEST
from demur.study.figures import (
    budget,
    causality,
    delay,
    dynamics,
    plane,
    recovery,
    trajectories,
)
from demur.study.finding import SAID, Finding
from demur.study.replaying import RULE, scenes_from
from demur.study.results import Results, read_results
from demur.study.results_file import results_file
from demur.study.summary import findings
from demur.study.tables import (
    ablation,
    defenses,
    detection,
    failed,
    false_positives,
    judges,
    rates,
    same_weights,
    second_opinion,
    surrogate,
)
from demur.study.tables import delay as delays
from demur.study.tables import recovery as recovered
from demur.viz.figures import Figure
from demur.viz.latex import to_latex
from demur.viz.report import Report, Said, Section, write_report
from demur.viz.tables import Table, file_name


@dataclass(frozen=True)
class Written:
    """Where the report is, and what is on it."""

    page: Path
    results: Path
    report: Report
    findings: Sequence[Finding]


def write_study_report(root: str | Path, out: str | Path | None = None) -> Written:
    """Write ``report.html``, ``results.json``, ``tables/*`` and ``figures/*``.

    Args:
        root: folder that a study was run into.
        out: where to; the same folder when None.

    Raises:
        InputError: no study was run there.
        StoreError: a cell is damaged, or the folder cannot be written.
    """
    results, folder = read_results(root), Path(out or root)
    found = findings(results)
    page = study_report(results, found)
    for section in page.sections:
        for table in section.tables:
            name = file_name(table.title, "csv")
            write_atomically(folder / "tables" / name, table.to_csv().encode())
            tex = folder / "tables" / file_name(table.title, "tex")
            write_atomically(tex, to_latex(table).encode())
        for figure in section.figures:
            for ending, content in (("svg", figure.svg.encode()), ("pdf", figure.pdf)):
                write_atomically(folder / "figures" / file_name(figure.title, ending), content)
            name = file_name(figure.title, "csv")
            write_atomically(folder / "figures" / name, figure.data.to_csv().encode())
    file = results_file(results, found, page)
    path = write_atomically(
        folder / "results.json", file.model_dump_json(indent=1).encode() + b"\n"
    )
    return Written(write_report(folder / "report.html", page), path, page, found)


def study_report(results: Results, found: Sequence[Finding]) -> Report:
    """The page: what happened in words, then what supports it."""
    about = results.manifest["study"]
    return Report(
        title=about["title"],
        lead="" if found else "Nothing could be measured: see what failed.",
        findings=[
            Said(one.about, f"{one.text} {SAID[one.agreement]}".strip(), one.shown_in)
            for one in found
        ],
        note=about["note"],
        sections=[
            part for part in _sections(results) if part.tables or part.figures or part.scenes
        ],
        methods=methods(results),
    )


def _sections(results: Results) -> Iterator[Section]:
    broken = failed.failures_table(results)
    if broken:
        yield Section("What failed", "The rest of the study went on without it.", tables=[broken])
    if not results.main:
        return
    scenes = [
        s for cell in results.measured.get("replay", ()) for s in cell.value.get("scenes", ())
    ]
    yield Section(
        "Watch it",
        "The same prompt under several samplers, step by step. Chosen by a rule: see Methods.",
        scenes=scenes_from(scenes),
    )
    yield Section(
        "What the text shows",
        "Refusals and successful attacks, model by model and attack by attack.",
        tables=_filled(rates.rates_table(results), rates.answers_table(results)),
        figures=_drawn(dynamics.dynamics_figure(one) for one in results.main),
    )
    yield Section(
        "The sampler alone",
        "The same weights under other samplers: what changes is the order and the number of commits.",
        tables=_filled(
            same_weights.same_weights_table(results),
            rates.remasking_table(results),
            causality.causality_table(results),
        ),
        figures=_causality(results),
    )
    yield Section(
        "Recovery",
        "Whether a harmful draft is later taken back, and whether the state inside is.",
        tables=_filled(recovered.recovery_table(results), recovered.internal_table(results)),
        figures=_drawn((recovery.models_figure(results), recovery.samplers_figure(results))),
    )
    yield Section(
        "The signal",
        "Sigma is 1 where the state is close to answered harmless generations and 0 where it is close "
        "to refused harmful ones.",
        tables=[trajectories.groups_table(results.main)],
        figures=_drawn(
            draw(one)
            for draw in (trajectories.trajectory_figure, plane.plane_figure)
            for one in results.main
        ),
    )
    yield from _guards(results)


def _guards(results: Results) -> Iterator[Section]:
    yield Section(
        "Detection",
        "SRI Guard's autoencoder and threshold are fitted on benign prompts only; the anchors of its "
        "signal are over refused harmful prompts too. Detectors fitted on attacks are marked, and are "
        "also shown on attacks that were left out of their fit.",
        tables=_filled(
            detection.detectors_table(results),
            detection.detection_table(results),
            detection.outcomes_table(results),
            detection.left_out_table(results),
            false_positives.false_positives_table(results),
            delays.delay_table(results),
        ),
        figures=_drawn(delay.delay_figure(results, one.name) for one in results.main),
    )
    yield Section(
        "Settings",
        "What the paper's detector owes to each of its settings.",
        tables=_filled(ablation.ablation_table(results)),
    )
    arms = dict.fromkeys(str(cell.about["arm"]) for cell in results.measured.get("adaptive", ()))
    yield Section(
        "Attackers who know the guard",
        "Random search over a suffix, weighing the target's likelihood against the guard's score.",
        tables=_filled(budget.budget_table(results)),
        figures=_drawn(budget.budget_figure(results, arm) for arm in arms),
    )
    yield Section(
        "Defenses",
        "What users read, and what it costs, measured in the same run.",
        tables=_filled(
            *(defenses.defenses_table(results), defenses.infilling_table(results)),
            *(defenses.times_table(results), surrogate.surrogate_table(results)),
        ),
    )
    yield Section(
        "Judges",
        "How far the verdicts depend on who gives them.",
        tables=_filled(judges.judges_table(results), second_opinion.second_opinion_table(results)),
    )


def methods(results: Results) -> dict[str, str]:
    """What made the page, from the manifest."""
    manifest, study = results.manifest, results.manifest["study"]
    made, seconds = manifest["made with"], manifest.get("seconds", {})
    arms = {
        f"arm {one.name}": ", ".join(
            f"{k} {v}" for k, v in one.fingerprint["sampler"].items() if v is not None
        )
        + f"; pooling {one.fingerprint['pooling']}; revision {one.fingerprint['revision']}; "
        f"{one.fingerprint['dtype']}; {len(one.goals)} test prompts of "
        f"{len(set(one.goals.tolist()))} goals"
        for one in results.evidence
    }
    return {
        "command": manifest["command"],
        "demur": made["demur"],
        "python": made["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in made["packages"].items()),
        "machine": f"{made['machine']}; threads: {made['threads']}",
        "time": ", ".join(f"{name} {value} s" for name, value in seconds.items()),
        "seed": str(study["seed"]),
        "false-positive rate": f"{study['alpha']:g}, threshold by split conformal on held-out prompts",
        "intervals": "95%, counting goals: Wilson's on the effective number of rows for rates and "
        "AUROC, put together from both sides for differences, a bootstrap over goals for TPR and kappa",
        "smallest n": f"a number over fewer than {FEWEST} goals is not shown",
        "judges": f"refusal: {', '.join(study['judges']['refusal'])}; harm: {study['judges']['harm']}",
        "prompts": "\n".join(
            _set(role, one) for role, sets in study["sets"].items() for one in sets
        ),
        "replays": RULE,
        **arms,
    }


def _set(role: str, one: Mapping[str, Any]) -> str:
    each = f" for {', '.join(one['each'])}" if one["each"] else ""
    attacks = f" under {', '.join(a['name'] for a in one['attacks'])}" if one["attacks"] else ""
    return f"{role}: {one['source']}{each}{attacks}, {one['n']} each before a model's share"


def _filled(*tables: Table | None) -> list[Table]:
    """Those that are there and have rows."""
    return [table for table in tables if table is not None and table.rows]


def _causality(results: Results) -> list[Figure]:
    models = dict.fromkeys(one.model for one in results.group("continuum"))
    return _drawn(
        draw(results, model)
        for model in models
        for draw in (causality.blocks_figure, causality.commits_figure)
    )


def _drawn(figures: Iterable[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]
