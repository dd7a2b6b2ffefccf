"""Plug-ins: models, families, samplers, detectors, attacks, defenses and judges from outside demur.

Three ways in, each with the same effect everywhere:

- an installed package names the value under an entry point group (``demur.samplers`` and so on);
- a file registers it with ``demur.register``, and the command line reads it: ``--plugin my_file.py``,
  or the environment variable DEMUR_PLUGINS (several files are separated as in PATH);
- a program calls ``demur.register`` itself.

A package that fails to import is listed by ``demur plugins``; the others still work. If a file
that the user named fails, that is an error.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeVar, overload

from demur.errors import DemurError, InputError

#: Environment variable with the plug-in files to read.
VARIABLE = "DEMUR_PLUGINS"

#: Axis -> the attributes that its values must have. The entry point group is ``demur.AXIS``.
AXES: Mapping[str, tuple[str, ...]] = {
    "models": ("__name__", "__call__"),
    "families": ("NAME", "EXAMPLES", "TESTED", "recognises", "load"),
    "samplers": ("name", "run"),
    "detectors": ("name", "detector", "fit"),
    "attacks": ("name", "description", "source", "needs_target"),
    "defenses": ("name", "description", "source"),
    "judges": ("name", "what", "about", "source"),
}

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """One value from outside demur, on an axis of ``AXES``.

    Attributes:
        source: the package and its version, or the file.
        value: what was registered; None where it could not be imported.
        problem: why it cannot be used, empty when it can.
        identity: changes with the version of the package, or with the text of the file.
    """

    axis: str
    name: str
    source: str
    value: Any = None
    problem: str = ""
    identity: str = ""


_registered: dict[tuple[str, str], Plugin] = {}
_read: set[str] = set()


@overload
def register(axis: str) -> Callable[[T], T]: ...
@overload
def register(axis: str, value: T) -> T: ...
def register(axis: str, value: Any = None) -> Any:
    """Add a value to an axis: ``register("detectors", METHOD)``, or ``@register("samplers")``.

    Registering a name again replaces the earlier value.

    Args:
        axis: models, families, samplers, detectors, attacks, defenses or judges.
        value: what to add; None makes a decorator. A model is a function without arguments that returns
            what ``demur.load`` returns; its name is the model's.

    Raises:
        InputError: an unknown axis, or a value that lacks what the axis needs.
    """
    if axis not in AXES:
        raise InputError(_unknown("axis", axis, AXES))
    if value is None:
        return lambda given: register(axis, given)
    if problem := _missing(axis, value):
        raise InputError(f"This cannot be one of the {axis}: {value!r} {problem}.")
    # The file or module that calls this, past the decorator.
    frame = sys._getframe(1)
    while frame.f_globals["__name__"] == __name__ and frame.f_back:
        frame = frame.f_back
    source = frame.f_globals.get("__file__", "this program")
    path, name = Path(source), _name_of(value)
    text = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
    _registered[axis, name] = Plugin(axis, name, source, value, identity=text)
    return value


def known(axis: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Our own values and those of plug-ins, by name.

    Raises:
        InputError: a plug-in file failed, or a plug-in has the name of one of ours.
    """
    found = {plugin.name: plugin for plugin in plugins(axis) if not plugin.problem}
    if both := sorted(found.keys() & own.keys()):
        raise InputError(
            f"The plug-in {both[0]!r} of {found[both[0]].source} has the name of one of demur's own "
            f"{axis}. Rename it."
        )
    return {**own, **{name: plugin.value for name, plugin in found.items()}}


def plugins(axis: str | None = None) -> list[Plugin]:
    """The plug-ins of one axis or of all, including those that failed.

    Raises:
        InputError: a file in DEMUR_PLUGINS failed.
    """
    for file in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        read(file)
    axes = AXES if axis is None else (axis,)
    installed = [plugin for one in axes for plugin in _installed(one)]
    return [*installed, *(p for (one, _), p in _registered.items() if one in axes)]


def read(file: str | Path) -> None:
    """Run a plug-in file, once in this process.

    Raises:
        InputError: no such file, an exception while it ran, or nothing was registered.
    """
    path = Path(file).resolve()
    if str(path) in _read:
        return
    before = len(_registered)
    spec = spec_from_file_location(f"demur_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"No plug-in file at {file}. Give the path of a Python file.")
    module = module_from_spec(spec)
    # Dataclasses and pickle look their module up by name.
    sys.modules[spec.name] = module
    _read.add(str(path))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        _read.discard(str(path))
        if isinstance(error, DemurError):
            raise type(error)(f"The plug-in file {file} failed: {error}") from error
        raise InputError(
            f"The plug-in file {file} failed: {type(error).__name__}: {error}. Correct it, or leave "
            f"it out (--plugin, {VARIABLE})."
        ) from error
    if len(_registered) == before:
        raise InputError(
            f'The plug-in file {file} registers nothing. Add demur.register("samplers", ...) or the '
            f"like; the axes are {', '.join(AXES)}."
        )


def unknown(what: str, name: object, names: Iterable[str]) -> str:
    """The message for an unknown name of ``what``, such as ``sampler``, with plug-ins that failed."""
    broken = [p for p in plugins(f"{what}s") if p.problem]
    more = "".join(f" The plug-in {p.name} of {p.source} failed: {p.problem}." for p in broken)
    return _unknown(what, name, names) + more


def _unknown(what: str, name: object, names: Iterable[str]) -> str:
    names = list(names)
    close = get_close_matches(str(name), names, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {what} {name!r}.{meant} Known: {', '.join(names)}."


def made(known: Mapping[str, Any], values: Mapping[str, Any], *, what: str) -> Any:
    """Make the frozen dataclass of settings that ``values["name"]`` names from the other values.

    ``known`` maps names to dataclasses; ``values`` are such as ``{"name": "masked", "steps": 32}``;
    ``what`` is sampler, attack or defense, for the errors.

    Raises:
        InputError: an unknown name or setting, a missing setting, a value of the wrong type, or
            settings that do not fit together.
    """
    from pydantic import TypeAdapter, ValidationError

    settings = {**values}
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


@cache
def _installed(axis: str) -> tuple[Plugin, ...]:
    return tuple(_loaded(axis, point) for point in entry_points(group=f"demur.{axis}"))


def _loaded(axis: str, point: EntryPoint) -> Plugin:
    source = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    try:
        value = point.load()
    except Exception as error:
        return Plugin(axis, point.name, source, problem=f"{type(error).__name__}: {error}")
    if problem := _missing(axis, value):
        return Plugin(axis, point.name, source, value, problem)
    return Plugin(axis, _name_of(value), source, value, identity=source)


def _missing(axis: str, value: Any) -> str:
    absent = [name for name in AXES[axis] if not hasattr(value, name)]
    return f"has no {', '.join(absent)}" if absent else ""


def _name_of(value: Any) -> str:
    for attribute in ("NAME", "name", "__name__"):
        if isinstance(found := getattr(value, attribute, None), str):
            return found
    raise InputError(f"{value!r} has no name. Give it one.")
