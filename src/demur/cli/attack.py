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

from demur.cli import console, options
from demur.errors import InputError


@options.app.command()
def attacks(as_json: options.AsJson = False) -> None:
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
    needs = {True: "  (needs --model)", False: ""}
    console.say_list(
        rows, as_json, lambda r: (r["description"] + needs[r["needs_target"]], r["source"])
    )


@options.app.command()
def attack(
    name: Annotated[str, typer.Argument(help="Name of the attack; see demur attacks.")],
    prompts: options.Prompts,
    out: options.Out,
    attack_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--attack-set", metavar="NAME=VALUE", help="A setting of the attack; repeatable."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The model under attack, as for demur trace.")
    ] = None,
    sampler: options.SamplerName = None,
    settings: options.SamplerSettings = None,
    system: options.SystemPrompt = None,
    template: options.TemplateArguments = None,
    adapter: options.AdapterName = None,
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
    key_variable: options.KeyVariable = "OPENAI_API_KEY",
    cache: options.CacheFolder = None,
    timeout: options.Timeout = 60.0,
    reasoning_tokens: options.ReasoningTokens = 0,
    limit: options.Limit = None,
    seed: options.Seed = 0,
) -> None:
    """Attack prompts and write them as .jsonl, which demur trace reads.

    Example: demur attack flip prompts.csv --attack-set mode=FWO --out flipped.jsonl
    """
    from demur.attacks import attack_from
    from demur.guard import load_guard
    from demur.prompts import prompts_with_summary, write_prompts

    server = {"key_variable": key_variable, "cache": cache, "timeout": timeout}
    server["reasoning_tokens"] = reasoning_tokens
    roles = {
        role: options.assistant(str(where), server)
        for role, where in options.assignments(asked).items()
    }
    values: dict[str, Any] = {**options.assignments(attack_settings), **roles, "name": name}
    if guard:
        values["guard"] = load_guard(guard)
    chosen = attack_from(values)
    if out.suffix != ".jsonl":
        raise InputError(
            f"Prompts are written as JSON lines, so {out} must end in .jsonl. Rename it."
        )
    rows, read = prompts_with_summary(prompts, limit=limit)
    console.note(str(read))
    asked_for = options.model_options(system, template, adapter)
    target = options.load_model(model, sampler, settings, **asked_for) if model else None
    if target is not None:
        options.note_unknown_words(target, rows)
    with _progress_noted():
        made = chosen(rows, target=target, seed=seed)
    options.note_usage(roles.values())
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
