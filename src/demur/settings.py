"""Frozen dataclasses of settings, made from plain data: samplers, attacks and defenses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from demur.errors import InputError


def made(known: Mapping[str, Any], values: Mapping[str, Any], *, what: str) -> Any:
    """Make the dataclass that ``values["name"]`` names out of the other values.

    Args:
        known: name -> dataclass.
        values: its name and settings, such as ``{"name": "masked", "steps": 32}``.
        what: what it is, for the errors.

    Raises:
        InputError: an unknown name or setting, one that is missing, a value of a wrong kind, or
            settings that do not fit each other.
    """
    from pydantic import TypeAdapter, ValidationError

    settings = dict(values)
    name = settings.pop("name", None)
    if name not in known:
        raise InputError(f"Unknown {what} {name!r}. Known: {', '.join(known)}.")
    there = sorted(field.name for field in fields(known[name]))
    if unknown := sorted(set(settings) - set(there)):
        raise InputError(
            f"The {name} {what} has no setting {', '.join(unknown)}. "
            f"It has: {', '.join(there) or 'none'}."
        )
    try:
        return TypeAdapter(known[name]).validate_python(settings)
    except ValidationError as error:
        said: dict[str, list[str]] = {}
        for e in error.errors():
            # A value may be of several kinds, each with its own complaint; the kinds are no places.
            inside = [str(part) for part in e["loc"][1:] if isinstance(part, int)]
            where = ".".join([str(e["loc"][0]), *inside]) if e["loc"] else "this"
            said.setdefault(f"{where} is {e['input']!r}", []).append(e["msg"])
        wrong = [f"{value}: {' or '.join(why)}" for value, why in said.items()]
        raise InputError(f"The {name} {what} cannot use this: {'; '.join(wrong)}.") from error
