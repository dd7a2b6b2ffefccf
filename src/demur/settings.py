"""Frozen dataclasses of settings, made from plain data: samplers, attacks and defenses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from demur.errors import InputError
from demur.plugins import unknown


def made(known: Mapping[str, Any], values: Mapping[str, Any], *, what: str) -> Any:
    """Make the dataclass that ``values["name"]`` names from the other values.

    Args:
        known: name -> dataclass.
        values: its name and settings, such as ``{"name": "masked", "steps": 32}``.
        what: sampler, attack or defense, for the errors.

    Raises:
        InputError: an unknown name or setting, a missing setting, a value of the wrong type, or
            settings that do not fit together.
    """
    from pydantic import TypeAdapter, ValidationError

    settings = dict(values)
    name = settings.pop("name", None)
    if name not in known:
        raise InputError(unknown(what, name, known))
    there = sorted(field.name for field in fields(known[name]))
    if extra := sorted(set(settings) - set(there)):
        raise InputError(
            f"The {name} {what} has no setting {', '.join(extra)}. "
            f"It has: {', '.join(there) or 'none'}."
        )
    try:
        return TypeAdapter(known[name]).validate_python(settings)
    except ValidationError as error:
        said: dict[str, list[str]] = {}
        for e in error.errors():
            # For a union, pydantic reports each member's complaint; only indices are places.
            inside = [str(part) for part in e["loc"][1:] if isinstance(part, int)]
            where = ".".join([str(e["loc"][0]), *inside]) if e["loc"] else "this"
            said.setdefault(f"{where} is {e['input']!r}", []).append(e["msg"])
        wrong = [f"{value}: {' or '.join(why)}" for value, why in said.items()]
        raise InputError(f"The {name} {what} cannot use this: {'; '.join(wrong)}.") from error
