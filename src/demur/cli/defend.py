"""``demur detectors``, ``demur defenses`` and ``demur defend``: list them, and run a defense."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, get_args

import typer

from demur.cli import console
from demur.cli.options import (
    AdapterName,
    AsJson,
    Column,
    Device,
    Limit,
    ModelName,
    Out,
    Prompts,
    SamplerName,
    SamplerSettings,
    Seed,
    SystemPrompt,
    TemplateArguments,
    app,
    assignments,
    load_model,
    loading,
)


@app.command()
def detectors(as_json: AsJson = False) -> None:
    """List the detectors, with source and what they need.

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
    """List the defenses, with source and settings.

    Example: demur defenses
    """
    from demur.defenses import known_defenses

    rows = [
        {
            "name": defense.name,
            "description": defense.description,
            "source": defense.source,
            "settings": [field.name for field in fields(defense)],  # type: ignore[arg-type]
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
    prompts: Prompts,
    model: ModelName,
    defense: Annotated[
        str, typer.Option("--defense", help="Name of the defense; see demur defenses.")
    ],
    out: Out,
    defense_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--defense-set", metavar="NAME=VALUE", help="A setting of the defense; repeatable."
        ),
    ] = None,
    sampler: SamplerName = None,
    settings: SamplerSettings = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
    adapter: AdapterName = None,
    column: Column = None,
    limit: Limit = None,
    batch_size: Annotated[
        int, typer.Option(help="Prompts per batch; does not change results.")
    ] = 8,
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Answer prompts with and without a defense.

    Both answers to each prompt, and what the defense cost, are written to a .csv file.

    Example: demur defend prompts.csv --model organism-ar --defense self-examine --out defended.csv
    """
    from demur.defenses import Action, defense_from
    from demur.files import write_csv
    from demur.prompts import read_prompts
    from demur.types import Record

    chosen = defense_from({**assignments(defense_settings), "name": defense})
    rows = read_prompts(prompts, column=column, label="unknown", limit=limit)
    loaded = load_model(
        model, sampler, settings, device=device, **loading(system, template, adapter)
    )
    found = chosen(loaded, rows, record=Record(seed=seed), batch_size=batch_size)
    header = ["id", "prompt", "response", "undefended", "action", "reason", "extra_passes"]
    write_csv(
        out,
        header,
        (
            [o.prompt.id, o.prompt.text, *(getattr(o, field) for field in header[2:])]
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
