"""``demur detectors``, ``demur defenses`` and ``demur defend``: list them, and run a defense."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, get_args

import typer

from demur.cli import console, options


@options.app.command()
def detectors(as_json: options.AsJson = False) -> None:
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
    marks = ("supervised", "streaming")
    console.say_list(
        rows,
        as_json,
        lambda r: (r["description"], "; ".join([r["source"], *(m for m in marks if r[m])])),
    )


@options.app.command()
def defenses(as_json: options.AsJson = False) -> None:
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
    console.say_list(
        rows,
        as_json,
        lambda r: (r["description"], "; settings: ".join([r["source"], ", ".join(r["settings"])])),
    )


@options.app.command()
def defend(
    prompts: options.Prompts,
    model: options.ModelName,
    defense: Annotated[
        str, typer.Option("--defense", help="Name of the defense; see demur defenses.")
    ],
    out: options.Out,
    defense_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--defense-set", metavar="NAME=VALUE", help="A setting of the defense; repeatable."
        ),
    ] = None,
    sampler: options.SamplerName = None,
    settings: options.SamplerSettings = None,
    system: options.SystemPrompt = None,
    template: options.TemplateArguments = None,
    adapter: options.AdapterName = None,
    column: options.Column = None,
    limit: options.Limit = None,
    batch_size: Annotated[
        int, typer.Option(help="Prompts per batch; does not change results.")
    ] = 8,
    seed: options.Seed = 0,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Answer prompts with and without a defense.

    Both answers to each prompt, and what the defense cost, are written to a .csv file.

    Example: demur defend prompts.csv --model organism-ar --defense self-examine --out defended.csv
    """
    from demur.defenses import Action, defense_from
    from demur.files import write_csv
    from demur.prompts import prompts_with_summary
    from demur.types import Record

    chosen = defense_from({**options.assignments(defense_settings), "name": defense})
    rows, read = prompts_with_summary(prompts, column=column, label="unknown", limit=limit)
    console.note(str(read))
    asked_for = options.model_options(system, template, adapter)
    loaded = options.load_model(model, sampler, settings, device=device, **asked_for)
    options.note_unknown_words(loaded, rows)
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
