"""``demur trace``, ``demur ls`` and ``demur models``: make and list run folders; list families."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from demur.cli import console, options
from demur.errors import InputError


@options.app.command()
def trace(
    prompts: options.Prompts,
    model: options.ModelName,
    out: Annotated[str, typer.Option(help="Folder to write, or a URL such as s3://bucket/run.")],
    column: options.Column = None,
    label: Annotated[
        Literal["harmless", "harmful", "borderline", "unknown"],
        typer.Option(help="What the prompts are, unless a column says."),
    ] = "unknown",
    limit: options.Limit = None,
    sampler: options.SamplerName = None,
    settings: options.SamplerSettings = None,
    pooling: Annotated[
        str | None, typer.Option(help="How the states of a step are averaged.")
    ] = None,
    layers: Annotated[
        str, typer.Option(help="Comma-separated: last, first, middle or block numbers.")
    ] = "last",
    batch_size: Annotated[
        str, typer.Option(help="Prompts per batch, or auto; does not change results.")
    ] = "8",
    seed: options.Seed = 0,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: Annotated[
        str | None, typer.Option(help="Device map, such as auto (extra quant).")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Bits per weight: 8 or 4 (extra quant).")] = None,
    attention: Annotated[
        str | None, typer.Option(help="Attention implementation: sdpa or eager.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights that you trust.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Hub revision of the model.")] = None,
    system: options.SystemPrompt = None,
    template: options.TemplateArguments = None,
    adapter: options.AdapterName = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Trace on a Ray cluster (extra ray): local starts one here, auto, or host:port.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Maximum Ray workers.")] = None,
    cores: Annotated[int, typer.Option(help="CPU cores per Ray worker.")] = 1,
    gpus: Annotated[
        int | None, typer.Option(help="GPUs per Ray worker; one if the model needs any.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Record responses to prompts, step by step, in a run folder.

    Interrupted runs resume when you run the same command again.

    Example: demur trace prompts.csv --model organism-dlm --set remasking=random --out runs/x
    """
    from demur import cluster, runs
    from demur.prompts import prompts_with_summary
    from demur.sampling import sampler_with
    from demur.sampling.fitting import peak_memory
    from demur.types import Record

    rows, read = prompts_with_summary(prompts, column=column, label=label, limit=limit)
    console.note(str(read))
    loading: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "bits": bits,
        "attention": attention,
        "allow_pickle": allow_pickle,
        "revision": revision,
        **options.model_options(system, template, adapter),
    }
    given = options.sampler_settings(sampler, settings)
    with console.progress() as tick:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            tick("prompts traced", done, len(rows))

        run: dict[str, Any] = {
            "record": Record(layers=tuple(layers.split(",")), pooling=pooling, seed=seed),
            "batch_size": _batch_size(batch_size),
            "progress": advance,
        }
        memory = {}
        if ray:
            pool: dict[str, Any] = {"workers": workers, "cores": cores, "gpus": gpus}
            store = cluster.trace_to(
                out, model, rows, address=ray, options=loading, sampler=given, **pool, **run
            )
        else:
            loaded = options.load_model(model, **loading)
            options.note_unknown_words(loaded, rows)
            chosen = sampler_with(loaded.traits.sampler, given)
            store = runs.trace_to(out, loaded, rows, sampler=chosen, **run)
            memory = {"peak memory in GiB": round(peak_memory(loaded.device), 2)}
    if as_json:
        mark = store.manifest.fingerprint
        summary = {"run": out, "traces": len(store), "sampler": mark.sampler, "model": mark.model}
        console.say_json({**summary, **memory})
    else:
        most = "".join(f"; peak memory {value} GiB" for value in memory.values())
        console.say(f"{len(store)} traces in {out}{most}")


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.lstrip("-").isdecimal():
        raise InputError(f"batch_size is {text!r}; give a number of prompts, or auto.")
    return int(text)


@options.app.command("ls")
def list_runs(
    folder: Annotated[str, typer.Argument(help="Folder or URL that holds run folders.")] = "runs",
    as_json: options.AsJson = False,
) -> None:
    """List run folders.

    Shows model, sampler, number of traces and damage. Exit code 1 if any is damaged.

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


@options.app.command()
def models() -> None:
    """List the model families.

    Shows what was compared with upstream code in each family.

    Example: demur models
    """
    from demur.models import known_families

    console.say_pairs({f.NAME: f"{f.EXAMPLES}. Compared: {f.TESTED}." for f in known_families()})
