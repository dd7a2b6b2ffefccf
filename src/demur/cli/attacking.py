"""Attacks: what there is, and prompts put through one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import console
from demur.cli.app import AsJson, Out, app, assignment
from demur.cli.asking import Cache, KeyVariable, ReasoningTokens, Timeout, note_cost
from demur.errors import InputError

if TYPE_CHECKING:
    from demur.endpoint import Assistant
    from demur.models.base import LanguageModel


@app.command()
def attacks(as_json: AsJson = False) -> None:
    """List the attacks: what each does, where it is from, its settings, whether it needs a target.

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
    name: Annotated[str, typer.Argument(help="See demur attacks.")],
    prompts: Annotated[str, typer.Argument(help="Prompts, as for demur trace.")],
    out: Out,
    model: Annotated[str | None, typer.Option("--model", help="The model under attack.")] = None,
    other: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the attack, as name=value.")
    ] = None,
    guard: Annotated[
        Path | None, typer.Option(help="Guard that adaptive knows; made by demur guard fit.")
    ] = None,
    asked: Annotated[
        list[str] | None,
        typer.Option(
            "--ask",
            help="A model that the attack asks, as attacker=MODEL, judge=MODEL or refiner=MODEL: one "
            "to load, or NAME@http://... on an OpenAI-compatible server (extra judges).",
        ),
    ] = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    cache: Cache = None,
    timeout: Timeout = 60.0,
    reasoning_tokens: ReasoningTokens = 0,
    sampler: Annotated[
        list[str] | None,
        typer.Option("--sampler-set", help="How the model under attack generates, as name=value."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Put prompts through an attack and write them as .jsonl, which demur trace reads.

    Example: demur attack flip prompts.csv --set mode=FWO --out flipped.jsonl
    """
    from demur.attacks import attack_from
    from demur.guard import load_guard
    from demur.prompts import read_prompts, write_prompts

    settings: dict[str, Any] = dict(assignment(text) for text in other or ())
    server = {"key_variable": key_variable, "cache": cache, "timeout": timeout}
    server["reasoning_tokens"] = reasoning_tokens
    assistants = {role: _assistant(w, server) for role, w in map(assignment, asked or ())}
    settings |= assistants
    if guard:
        settings["guard"] = load_guard(guard)
    chosen = attack_from({**settings, "name": name})
    if out.suffix != ".jsonl":
        raise InputError(f"{out} does not end in .jsonl, which prompts are written as. Rename it.")
    rows = read_prompts(prompts, limit=limit)
    with _progress_noted():
        made = chosen(rows, target=_target(model, sampler) if model else None, seed=seed)
    note_cost(assistants.values())
    write_prompts(out, made)
    console.say(f"{len(made)} prompts in {out}")


def _target(name: str, sampler: list[str] | None) -> LanguageModel:
    """The model under attack, what was asked for of its sampler its own."""
    from dataclasses import replace

    from demur.models import load
    from demur.sampling import sampler_from, spec

    model = load(name)
    changed = {**model.traits.sampler, **dict(map(assignment, sampler or ()))}
    return replace(model, traits=replace(model.traits, sampler=spec(sampler_from(changed))))


def _assistant(where: str, server: Mapping[str, Any]) -> Assistant:
    """A model to ask: on a server when the name says so, loaded otherwise."""
    from demur.endpoint import Endpoint
    from demur.judges.local_model import LocalAssistant
    from demur.models import load

    name, at, url = str(where).partition("@")
    return Endpoint(url=url, model=name, **server) if at else LocalAssistant(load(name))


@contextmanager
def _progress_noted() -> Iterator[None]:
    """Show on standard error what a search reports of itself."""
    log, handler = logging.getLogger("demur.attacks"), logging.StreamHandler(sys.stderr)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
