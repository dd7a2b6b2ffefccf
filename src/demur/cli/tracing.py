"""Make run folders, and see what is there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

import typer

from demur.cli import console
from demur.cli.app import AsJson, app, assignment, one_of
from demur.errors import InputError


@app.command()
def trace(
    prompts: Annotated[
        str,
        typer.Argument(
            help="csv, tsv, jsonl, txt or parquet file, - for stdin, hub:org/name, or a set of the "
            "built-in world: organism:SPLIT/KIND[/ATTACK]."
        ),
    ],
    model: Annotated[str, typer.Option("--model", help="Built-in name, folder or hub id.")],
    out: Annotated[str, typer.Option(help="Folder to write, or a URL such as s3://bucket/run.")],
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
    other: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting of the sampler, as name=value."),
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="Pooling of the states.")] = None,
    layers: Annotated[
        str, typer.Option(help="Comma-separated: last, first, middle or block numbers.")
    ] = "last",
    batch_size: Annotated[
        str, typer.Option(help="Prompts at a time, or auto for what fits; changes no result.")
    ] = "8",
    seed: Annotated[int, typer.Option(help="Of temperature and random remasking.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda.")] = None,
    device_map: Annotated[str | None, typer.Option(help="Such as auto (extra quant).")] = None,
    bits: Annotated[int | None, typer.Option(help="8 or 4 (extra quant).")] = None,
    attention: Annotated[str | None, typer.Option(help="Such as sdpa or eager.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights that you trust.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Hub revision to pin.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Trace on a Ray cluster (extra ray): local to begin one here, auto, or host:port.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="At most so many models at once (--ray).")
    ] = None,
    cores: Annotated[int, typer.Option(help="CPU cores of a worker (--ray).")] = 1,
    gpus: Annotated[
        int | None, typer.Option(help="GPUs of a worker (--ray); one where the model needs any.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Generate a response to each prompt and record it step by step in a run folder.

    The same command goes on where it was interrupted.

    Example: demur trace prompts.csv --model organism-dlm --sampler masked
    --remasking low_confidence --out runs/x
    """
    from demur import cluster, runs
    from demur.models import load
    from demur.prompts import read_prompts
    from demur.sampling import sampler_with
    from demur.sampling.fitting import peak_memory
    from demur.types import Label, Record

    known = one_of(label, get_args(Label), "label")
    rows = read_prompts(prompts, column=column, label=known, limit=limit)
    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "bits": bits,
        "attention": attention,
        "allow_pickle": allow_pickle,
        "revision": revision,
    }
    settings = {
        "name": sampler,
        "steps": steps,
        "gen_length": gen_length,
        "block_length": block_length,
        "remasking": remasking,
        "temperature": temperature,
        "top_p": top_p,
        "threshold": threshold,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    given |= dict(assignment(text) for text in other or ())
    with console.progress() as tick:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            tick("tracing", done, len(rows))

        run: dict[str, Any] = {
            "record": Record(layers=tuple(layers.split(",")), pooling=pooling, seed=seed),
            "batch_size": _batch_size(batch_size),
            "progress": advance,
        }
        memory = {}
        if ray:
            pool: dict[str, Any] = {"workers": workers, "cores": cores, "gpus": gpus}
            store = cluster.trace_to(
                out, model, rows, address=ray, options=options, sampler=given, **pool, **run
            )
        else:
            loaded = load(model, **options)
            chosen = sampler_with(loaded.traits.sampler, given)
            store = runs.trace_to(out, loaded, rows, sampler=chosen, **run)
            memory = {"peak memory in GiB": round(peak_memory(loaded.device), 2)}
    if as_json:
        mark = store.manifest.fingerprint
        summary = {"run": out, "traces": len(store), "sampler": mark.sampler, "model": mark.model}
        console.say_json({**summary, **memory})
    else:
        most = "".join(f"; at most {value} GiB of memory" for value in memory.values())
        console.say(f"{len(store)} traces in {out}{most}")


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.lstrip("-").isdecimal():
        raise InputError(f"batch_size is {text!r}; give a number of prompts, or auto.")
    return int(text)


@app.command("ls")
def list_runs(
    folder: Annotated[str, typer.Argument(help="Folder or URL that holds run folders.")] = "runs",
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
    """List the model families that demur knows, and what of each was compared with upstream.

    Example: demur models
    """
    from demur.models import known_families

    console.say_pairs({f.NAME: f"{f.EXAMPLES}. Compared: {f.TESTED}." for f in known_families()})
