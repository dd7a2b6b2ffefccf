"""Detectors and defenses: what there is, and a defended generation."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer

from demur.cli import console
from demur.cli.app import AsJson, Out, app, assignment


@app.command()
def detectors(as_json: AsJson = False) -> None:
    """List the detectors: what each reads, where it is from, what it needs.

    Example: demur detectors
    """
    from demur.detectors import known_detectors

    rows = [
        {
            "name": method.name,
            "description": method.description,
            "source": method.source,
            "supervised": method.supervised,
            "streaming": method.streaming,
            "layers": list(method.layers),
            "needs_model": method.needs_model,
        }
        for method in known_detectors().values()
    ]
    if as_json:
        console.say_json(rows)
        return
    for row in rows:
        marks = [mark for mark in ("supervised", "streaming") if row[mark]]
        _say_entry(row, marks)


@app.command()
def defenses(as_json: AsJson = False) -> None:
    """List the defenses: what each does, where it is from, its settings.

    Example: demur defenses
    """
    from dataclasses import fields

    from demur.defenses import known_defenses

    rows = [
        {
            "name": defense.name,
            "description": defense.description,
            "source": defense.source,
            "settings": [field.name for field in fields(defense)],
        }
        for defense in known_defenses().values()
    ]
    if as_json:
        console.say_json(rows)
        return
    for row in rows:
        settings = ", ".join(row["settings"])
        _say_entry(row, [f"settings: {settings}"] if settings else [])


def _say_entry(row: dict[str, Any], more: list[str]) -> None:
    console.say(f"{row['name']:<18}  {row['description']}")
    console.say(f"{'':<18}  {'; '.join([row['source'], *more])}")


@app.command()
def defend(
    prompts: Annotated[
        str, typer.Argument(help="As for demur trace: a file, -, hub:org/name or organism:...")
    ],
    model: Annotated[str, typer.Option("--model", help="Built-in name, folder or hub id.")],
    defense: Annotated[str, typer.Option("--defense", help="Its name; see demur defenses.")],
    out: Out,
    other: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the defense, as name=value.")
    ] = None,
    sampler: Annotated[
        list[str] | None, typer.Option("--sampler-set", help="One of the sampler, as name=value.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column that holds the prompts.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time; changes no result.")] = 8,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Annotated[str | None, typer.Option(help="Such as cuda.")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer each prompt behind a defense, beside the undefended answer, into a .csv file.

    Example: demur defend prompts.csv --model organism-ar --defense self-examine --out defended.csv
    """
    from demur.defenses import Action, defense_from
    from demur.files import write_csv
    from demur.models import load
    from demur.prompts import read_prompts
    from demur.sampling import sampler_from

    chosen = defense_from({"name": defense, **dict(map(assignment, other or ()))})
    rows = read_prompts(prompts, column=column, label="unknown", limit=limit)
    loaded = load(model, device=device)
    settings = {**loaded.traits.sampler, **dict(map(assignment, sampler or ()))}
    found = chosen(loaded, rows, sampler=sampler_from(settings), seed=seed, batch_size=batch_size)
    header = ["id", "prompt", "response", "undefended", "action", "reason", "extra_passes"]
    write_csv(
        out,
        header,
        (
            [
                o.prompt.id,
                o.prompt.text,
                o.response,
                o.undefended,
                o.action,
                o.reason,
                o.extra_passes,
            ]
            for o in found.outcomes
        ),
    )
    summary: dict[str, Any] = {
        "defense": found.defense,
        "file": str(out),
        **{action: found.count(action) for action in get_args(Action)},
        "forward passes": found.passes,
        "forward passes, undefended": found.undefended_passes,
        "seconds": round(found.seconds, 3),
        "seconds, undefended": round(found.undefended_seconds, 3),
    }
    console.say_json(summary) if as_json else console.say_pairs(summary)
