"""The command line: one verb, one library call.

Exit codes: 0 done; 1 done, and something was found (``guard score`` flagged a trace, ``ls`` saw a
damaged run); 2 not done, with one line that says why and what to do.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from itertools import tee
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from demur import __version__, console
from demur.errors import DemurError, InputError

app = typer.Typer(
    name="demur",
    help="Watch, measure and guard how a language model refuses, step by step.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
guard_app = typer.Typer(help="Fit SRI Guard on benign runs, and score runs with it.")
organism_app = typer.Typer(help="The built-in models.")
app.add_typer(guard_app, name="guard", no_args_is_help=True)
app.add_typer(organism_app, name="organism", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Run = Annotated[Path, typer.Argument(help="A run folder made by demur trace.")]
Runs = Annotated[list[Path], typer.Argument(help="Run folders made by demur trace.")]
AnchorFile = Annotated[Path, typer.Option("--anchors", help="File made by demur anchors.")]
GuardFile = Annotated[Path, typer.Option("--guard", help="File made by demur guard fit.")]
Layer = Annotated[str, typer.Option("--layer", help="Recorded layer to read.")]


def main() -> None:
    """Run the command line; no error leaves a traceback unless DEMUR_TRACEBACK is set."""
    # Threads that spin while they wait make a busy machine several times slower. Read when torch is
    # imported, so it must be set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except DemurError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("Interrupted. What was finished is kept; the same command goes on from there.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _fail("Out of memory. Use a smaller --batch-size; finished rows are kept.", 2)
    except Exception as error:
        if "DEMUR_TRACEBACK" in os.environ:
            raise
        kind = type(error).__name__
        _fail(
            f"Unexpected {kind}: {error}. Set DEMUR_TRACEBACK=1 to see where; please report it.", 2
        )


def one_of(value: str, known: tuple[Any, ...], what: str) -> Any:
    """The value, if it is one of the known ones."""
    if value not in known:
        raise InputError(f"Unknown {what} {value!r}. Use one of: {', '.join(known)}.")
    return value


def _fail(message: str, code: int) -> None:
    console.note(f"demur: {message}")
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        console.say(f"demur {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", help="CPU threads for the model; 0 leaves torch's choice.")
    ] = 0,
) -> None:
    """Options of every command."""
    if threads:
        # Before torch is imported, so that it needs no import here.
        os.environ["OMP_NUM_THREADS"] = str(threads)


@app.command()
def demo(out: Out = Path("demo")) -> None:
    """See it all on the built-in models: traces, signal, guard, tables and a page.

    Example: demur demo --out demo
    """
    from demur.study.demo import run_demo

    with console.progress() as tick:
        found = run_demo(out, tick=tick)
    from rich.console import Console

    terminal = Console()
    for table in found.tables:
        terminal.print(table.to_rich())
    terminal.print(found.page.note, style="italic")
    console.say(f"\nReport: {found.path} ({found.seconds:.0f} s). Open it in a browser.")


@app.command()
def trace(
    prompts: Annotated[
        str, typer.Argument(help="csv, tsv, jsonl, txt or parquet file, - for stdin, or a set.")
    ],
    model: Annotated[str, typer.Option("--model", help="Built-in name, folder or hub id.")],
    out: Out,
    column: Annotated[str | None, typer.Option(help="Column that holds the prompts.")] = None,
    label: Annotated[
        str, typer.Option(help="harmless, harmful, borderline or unknown, where no column says.")
    ] = "unknown",
    limit: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    sampler: Annotated[str | None, typer.Option(help="autoregressive, masked, ...")] = None,
    steps: Annotated[int | None, typer.Option(help="Generation steps T.")] = None,
    gen_length: Annotated[int | None, typer.Option(help="Response tokens (masked).")] = None,
    block_length: Annotated[int | None, typer.Option(help="Tokens a block (masked).")] = None,
    remasking: Annotated[str | None, typer.Option(help="Remasking rule (masked).")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus (autoregressive).")] = None,
    threshold: Annotated[float | None, typer.Option(help="Dynamic schedule (masked).")] = None,
    pooling: Annotated[str | None, typer.Option(help="Pooling of the states.")] = None,
    layers: Annotated[
        str, typer.Option(help="Comma-separated: last, first, middle or block numbers.")
    ] = "last",
    batch_size: Annotated[int, typer.Option(help="Prompts at a time; changes no result.")] = 8,
    seed: Annotated[int, typer.Option(help="Of temperature and random remasking.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda.")] = None,
    revision: Annotated[str | None, typer.Option(help="Hub revision to pin.")] = None,
    as_json: AsJson = False,
) -> None:
    """Generate a response to each prompt and record it step by step in a run folder.

    The same command goes on where it was interrupted.

    Example: demur trace prompts.csv --model organism-dlm --sampler masked
    --remasking low_confidence --out runs/x
    """
    from demur.models import load
    from demur.prompts import read_prompts
    from demur.runs import trace_to
    from demur.sampling import sampler_from
    from demur.types import Label

    known = one_of(label, get_args(Label), "label")
    rows = read_prompts(prompts, column=column, label=known, limit=limit)
    loaded = load(model, dtype=dtype, device=device, revision=revision)
    given = {
        "name": sampler,
        "steps": steps,
        "gen_length": gen_length,
        "block_length": block_length,
        "remasking": remasking,
        "temperature": temperature,
        "top_p": top_p,
        "threshold": threshold,
    }
    settings = _sampler_settings(loaded.traits.sampler, given)
    with console.progress() as tick:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            tick("tracing", done, len(rows))

        store = trace_to(
            out,
            loaded,
            rows,
            sampler=sampler_from(settings),
            pooling=pooling,
            layers=tuple(layers.split(",")),
            batch_size=batch_size,
            seed=seed,
            progress=advance,
        )
    summary = {"run": str(out), "traces": len(store), "sampler": settings, "model": loaded.name}
    console.say_json(summary) if as_json else console.say(f"{len(store)} traces in {out}")


def _sampler_settings(default: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The model's default sampler with what the user gave; its own defaults for another sampler."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen.get("name", default["name"]) != default["name"]:
        return chosen
    settings = {**default, **chosen}
    if "gen_length" in chosen and "block_length" not in chosen:
        settings["block_length"] = chosen["gen_length"]
    return settings


@app.command()
def anchors(
    runs: Runs,
    out: Out,
    layer: Layer = "last",
    judge: Annotated[str, typer.Option(help="Refusal judge.")] = "paper",
    as_json: AsJson = False,
) -> None:
    """Average answered harmless and refused harmful generations into anchors.

    Example: demur anchors runs/harmless runs/harmful --out anchors.safetensors
    """
    from demur.judges import refusal_judge
    from demur.sri import fit_anchors
    from demur.store import Store

    refused = refusal_judge(judge)
    # Two readers of one stream: no more than one trace is held at a time.
    traces, judged = tee(trace for run in runs for trace in Store.open(run).traces())
    verdicts = (refused(trace.prompt.goal, trace.response).hit for trace in judged)
    fitted = fit_anchors(traces, verdicts, layer=layer)
    fitted.save(out)
    about = {
        "anchors": str(out),
        "steps": fitted.steps,
        "harmless traces": fitted.counts[0],
        "harmful traces": fitted.counts[1],
        "alignment": fitted.alignment,
    }
    console.say_json(about) if as_json else console.say_pairs(about)


@app.command()
def signal(
    run: Run,
    anchors: AnchorFile,
    out: Annotated[Path | None, typer.Option("--out", help="A .csv file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compute the SRI signal of each trace: 1 = complying, 0 = refusing.

    Example: demur signal runs/x --anchors anchors.safetensors --out sigma.csv
    """
    from demur.files import write_csv
    from demur.sri import Anchors
    from demur.sri import signal as sigma_of
    from demur.store import Store
    from demur.types import Traces

    reference = Anchors.load(anchors)
    traces = Traces(tuple(Store.open(run).traces()))
    sigma = sigma_of(reference.states(traces), reference)
    rows = {trace.prompt.id: row.tolist() for trace, row in zip(traces, sigma, strict=True)}
    if out:
        header = ["id", *(f"step_{t}" for t in range(1, sigma.shape[1] + 1))]
        write_csv(out, header, ([name, *values] for name, values in rows.items()))
    if as_json:
        console.say_json({"alignment": reference.alignment, "sigma": rows})
    elif not out:
        for name, values in rows.items():
            console.say(f"{name}  {console.sparkline(values)}  {values[-1]:.3f}")


@guard_app.command("fit")
def guard_fit(
    runs: Runs,
    anchors: AnchorFile,
    out: Out,
    calibration: Annotated[
        list[Path] | None, typer.Option(help="Benign runs held out for the threshold.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="False-positive rate on benign traffic.")] = 0.01,
    method: Annotated[str, typer.Option(help="conformal or pac.")] = "conformal",
    standardise: Annotated[bool, typer.Option(help="Unit spread per step first.")] = False,
    seed: Annotated[int, typer.Option(help="Of the detector's fit.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit SRI Guard on benign runs alone and calibrate its threshold.

    Example: demur guard fit runs/benign --anchors anchors.safetensors --out guard.safetensors
    """
    from demur.guard import Method, fit_guard
    from demur.sri import Anchors

    fitted = fit_guard(
        _benign(runs),
        _benign(calibration) if calibration else None,
        anchors=Anchors.load(anchors),
        alpha=alpha,
        method=one_of(method, get_args(Method), "method"),
        standardise=standardise,
        seed=seed,
    )
    fitted.save(out)
    about = {
        "guard": str(out),
        "threshold": fitted.threshold,
        "alpha": fitted.alpha,
        "method": fitted.method,
        "calibration traces": len(fitted.calibration),
    }
    console.say_json(about) if as_json else console.say_pairs(about)


def _benign(runs: list[Path]) -> Any:
    from demur.store import Store
    from demur.types import Traces

    traces = [trace for run in runs for trace in Store.open(run).traces()]
    if harmful := [t.prompt.id for t in traces if t.prompt.label == "harmful"]:
        raise InputError(
            f"A guard is fitted on benign prompts only; {len(harmful)} of {len(traces)} are labelled "
            f"harmful, first {harmful[0]}. Give runs without them."
        )
    return Traces(tuple(traces))


@guard_app.command("score")
def guard_score(run: Run, guard: GuardFile, as_json: AsJson = False) -> None:
    """Score each trace of a run; exit code 1 when any is flagged.

    Example: demur guard score runs/x --guard guard.safetensors
    """
    from demur.guard import Guard
    from demur.store import Store
    from demur.types import Traces

    fitted = Guard.load(guard)
    traces = Traces(tuple(Store.open(run).traces()))
    scores = fitted.score(traces)
    flagged = scores > fitted.threshold
    rows = [
        {"id": t.prompt.id, "score": float(s), "p_value": float(p), "flagged": bool(f)}
        for t, s, p, f in zip(traces, scores, fitted.p_value(scores), flagged, strict=True)
    ]
    if as_json:
        console.say_json({"threshold": fitted.threshold, "alpha": fitted.alpha, "scores": rows})
    else:
        for row in rows:
            mark = "FLAGGED" if row["flagged"] else "passed"
            console.say(f"{row['id']}  {row['score']:.4g}  p={row['p_value']:.4f}  {mark}")
        console.say(f"{int(flagged.sum())} of {len(rows)} flagged")
    if flagged.any():
        raise typer.Exit(1)


@app.command()
def report(
    runs: Runs,
    anchors: AnchorFile,
    out: Out = Path("report.html"),
    guard: Annotated[Path | None, typer.Option("--guard", help="A fitted guard.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose tokenizer writes the replays.")
    ] = None,
    replays: Annotated[int, typer.Option(help="Generations to replay.")] = 3,
) -> None:
    """Write one self-contained page about runs: rates, signals, guard and replays.

    Example: demur report runs/x --anchors anchors.safetensors --model organism-dlm
    """
    from demur.models.checkpoint import find, load_tokenizer
    from demur.study.run_report import write_run_report

    tokenizer = load_tokenizer(find(model)) if model else None
    path = write_run_report(
        out, runs, anchors=anchors, guard=guard, tokenizer=tokenizer, replays=replays
    )
    console.say(f"Report: {path}")


@app.command("ls")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder that holds run folders.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the run folders below a folder: model, sampler, traces, and what is damaged.

    Example: demur ls runs
    """
    from demur.runs import list_runs

    found = list_runs(folder)
    if as_json:
        console.say_json([asdict(run) for run in found])
    else:
        for run in found:
            console.say(f"{run.folder}  {run.written}/{run.count}  {run.model}  {run.sampler}")
            if run.problem:
                console.say(f"  {run.problem}")
    if any(run.problem for run in found):
        raise typer.Exit(1)


@app.command()
def models() -> None:
    """List the model families that demur knows.

    Example: demur models
    """
    from demur.models import known_families

    console.say_pairs({family.NAME: family.EXAMPLES for family in known_families()})


@organism_app.command("train")
def organism_train(
    out: Out, seed: Annotated[int, typer.Option(help="Of everything random.")] = 0
) -> None:
    """Make the built-in models again, in under 30 minutes on two cores; resumable.

    Example: demur organism train --out organism
    """
    from demur.organism.train import Recipe, train

    with console.progress() as tick:
        train(
            out,
            recipe=Recipe(seed=seed),
            progress=lambda phase, step, steps, loss: tick(phase, step, steps),
        )
    console.say(f"Models in {out}")
