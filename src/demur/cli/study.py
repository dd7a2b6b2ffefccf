"""``demur study`` and ``demur demo``: plan a study, run it, and remake its report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from demur.cli import console, options

study_app = typer.Typer(help="Make every table and figure of the paper for your models.")
options.app.add_typer(study_app, name="study", no_args_is_help=True)

StudyFile = Annotated[
    str, typer.Argument(help="A YAML file, or one that ships with demur: organism, paper.")
]
QuickOnly = Annotated[bool, typer.Option("--quick", help="Run only the file's quick section.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Worker processes, each with its own copy of the models. Default: the study's number, "
        "at most one per core.",
    ),
]


@study_app.command("init")
def study_init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file to write.")] = Path(
        "study.yaml"
    ),
    model: Annotated[
        list[str] | None,
        typer.Option(help="Built-in model, folder or hub id; repeatable. Default: organism-ar."),
    ] = None,
) -> None:
    """Write a commented study file to begin with.

    Example: demur study init small.yaml --model organism-ar --model organism-dlm
    """
    from demur.study.plan.new_study import new_study

    written = new_study(path, model or ["organism-ar"])
    console.say(f"Study: {written}. Next: demur study plan {written}")


@study_app.command("plan")
def study_plan(
    study: StudyFile,
    out: options.Out = Path("study"),
    quick: QuickOnly = False,
    workers: Workers = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the cells of a study, their expected cost, and what is done already.

    Example: demur study plan organism --out study
    """
    from demur.study.plan.prompt_sets import missing_files
    from demur.study.plan.spec_file import read_study
    from demur.study.run import plan_study, workers_of

    read, folder = read_study(study)
    read = read.quickened() if quick else read
    estimates = plan_study(read, folder, out)
    if as_json:
        rows = [
            {"kind": e.cell.kind, "of": e.cell.name, "units": e.cell.units, "state": e.state}
            | {"seconds": round(e.seconds, 1), "measured": e.measured}
            for e in estimates
        ]
        console.say_json(rows)
        return
    for e in estimates:
        kept = {"done": "done", "failed": "failed before"}.get(e.state, f"~{e.seconds:.0f} s")
        console.say(f"{e.cell.kind:<10} {e.cell.units:>6}  {kept:<14} {e.cell.name}")
    left = [*{e.cell.key: e for e in estimates if e.state != "done"}.values()]
    there = sum(e.state == "done" for e in estimates)
    guessed = sum(not e.measured for e in left)
    workers = workers or workers_of(read)
    minutes = sum(e.seconds for e in left) / 60 / workers
    console.say(
        f"{there} of {len(estimates)} cells are done; about {minutes:.0f} minutes are left with "
        f"{workers} workers"
        + (f" ({guessed} estimates are not measured on this machine)." if guessed else ".")
    )
    if missing := missing_files(read, folder):
        console.note(
            f"Missing files: {', '.join(missing)}. Put them into {folder.resolve()} or {Path.cwd()} "
            "before the run."
        )


@study_app.command("run")
def study_run(
    study: StudyFile,
    out: options.Out = Path("study"),
    quick: QuickOnly = False,
    workers: Workers = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Trace on a Ray cluster (extra ray), at most --workers models at once: local starts "
            "one here, auto, or host:port.",
        ),
    ] = None,
) -> None:
    """Run what is not done yet and write the report. Interrupted studies resume.

    Exit code 1 if a cell failed; the report lists what failed.

    Example: demur study run organism --out study
    """
    from demur.study.plan.spec_file import read_study
    from demur.study.report.study_page import write_study_report
    from demur.study.run import failures, run_study

    read, folder = read_study(study)
    command = shlex.join(["demur", *sys.argv[1:]])
    with console.progress() as tick:
        outcomes = run_study(
            read.quickened() if quick else read,
            folder,
            out,
            command=command,
            workers=workers,
            ray=ray,
            progress=tick,
        )
    failed = failures(outcomes)
    for one in failed:
        console.note(f"failed: {one.kind} of {one.name}: {one.error}")
    written = write_study_report(out)
    for finding in written.findings:
        console.say(f"- {finding.text}")
    console.say(written.report.note)
    console.say(f"Report: {written.page}")
    if failed:
        raise typer.Exit(1)


@study_app.command("report")
def study_report(
    folder: Annotated[Path, typer.Argument(help="A folder made by demur study run.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write to another folder.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the report again from the results; loads no model.

    Example: demur study report study
    """
    from demur.study.report.study_page import write_study_report

    written = write_study_report(folder, out)
    if as_json:
        console.say_json([asdict(finding) for finding in written.findings])
    else:
        console.say(f"Report: {written.page}, numbers: {written.results}")


@options.app.command()
def demo(out: options.Out = Path("demo")) -> None:
    """Run a small study of built-in models.

    The same as: demur study run organism --quick --out demo

    Example: demur demo --out demo
    """
    study_run("organism", out=out, quick=True)
