"""``demur attacks`` and ``demur attack``: list attacks, and put prompts through one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from demur.cli import console
from demur.cli.options import (
    AdapterName,
    AsJson,
    CacheFolder,
    KeyVariable,
    Limit,
    Out,
    Prompts,
    ReasoningTokens,
    SamplerName,
    SamplerSettings,
    Seed,
    SystemPrompt,
    TemplateArguments,
    Timeout,
    app,
    assignments,
    assistant,
    load_model,
    loading,
    note_usage,
)
from demur.errors import InputError


@app.command()
def attacks(as_json: AsJson = False) -> None:
    """List the attacks, with source and settings.

    Example: demur attacks
    """
    from demur.attacks import known_attacks

    rows = [
        {
            "name": attack.name,
            "description": attack.description,
            "source": attack.source,
            "needs_target": attack.needs_target,
            "settings": [field.name for field in fields(attack)],  # type: ignore[arg-type]
        }
        for attack in known_attacks().values()
    ]
    if as_json:
        console.say_json(rows)
        return
    for row in rows:
        needs = "  (needs --model)" if row["needs_target"] else ""
        console.say(f"{row['name']:<20}  {row['description']}{needs}")
        console.say(f"{'':<20}  {row['source']}")


@app.command()
def attack(
    name: Annotated[str, typer.Argument(help="Name of the attack; see demur attacks.")],
    prompts: Prompts,
    out: Out,
    attack_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--attack-set", metavar="NAME=VALUE", help="A setting of the attack; repeatable."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The model under attack, as for demur trace.")
    ] = None,
    sampler: SamplerName = None,
    settings: SamplerSettings = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
    adapter: AdapterName = None,
    guard: Annotated[
        Path | None, typer.Option(help="The guard that the attack adaptive knows.")
    ] = None,
    asked: Annotated[
        list[str] | None,
        typer.Option(
            "--ask",
            metavar="ROLE=MODEL",
            help="A model that the attack asks, as attacker, judge or refiner: one to load, or "
            "NAME@URL for one behind an OpenAI-compatible server (extra judges).",
        ),
    ] = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    cache: CacheFolder = None,
    timeout: Timeout = 60.0,
    reasoning_tokens: ReasoningTokens = 0,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Attack prompts and write them as .jsonl, which demur trace reads.

    Example: demur attack flip prompts.csv --attack-set mode=FWO --out flipped.jsonl
    """
    from demur.attacks import attack_from
    from demur.guard import load_guard
    from demur.prompts import read_prompts, write_prompts

    server = {"key_variable": key_variable, "cache": cache, "timeout": timeout}
    server["reasoning_tokens"] = reasoning_tokens
    roles = {role: assistant(str(where), server) for role, where in assignments(asked).items()}
    values: dict[str, Any] = {**assignments(attack_settings), **roles, "name": name}
    if guard:
        values["guard"] = load_guard(guard)
    chosen = attack_from(values)
    if out.suffix != ".jsonl":
        raise InputError(
            f"Prompts are written as JSON lines, so {out} must end in .jsonl. Rename it."
        )
    rows = read_prompts(prompts, limit=limit)
    options = loading(system, template, adapter)
    target = load_model(model, sampler, settings, **options) if model else None
    with _progress_noted():
        made = chosen(rows, target=target, seed=seed)
    note_usage(roles.values())
    write_prompts(out, made)
    console.say(f"{len(made)} prompts in {out}")


@contextmanager
def _progress_noted() -> Iterator[None]:
    """Show the attacks' log messages on standard error."""
    log, handler = logging.getLogger("demur.attacks"), logging.StreamHandler(sys.stderr)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
