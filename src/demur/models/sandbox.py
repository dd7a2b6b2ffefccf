"""Render chat templates with limits.

A chat template is code that comes with a checkpoint. It runs in Jinja's sandbox, as in transformers.
Here it also cannot run forever or fill the memory with the results of its operators.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template as Compiled
from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

#: A fixed date for all prompts, so that tokens are the same each day: Llama 3's own default.
_TODAY = datetime(2024, 7, 26, 12)

#: Most loop turns and calls of one rendering, and most characters of one value.
MAX_STEPS, MAX_TEXT = 1_000_000, 10_000_000


class Sandbox(ImmutableSandboxedEnvironment):
    """transformers' environment of chat templates, with a fixed date and with limits.

    Every turn of a loop and every call counts as a step; a template that takes more than
    ``MAX_STEPS`` of them or makes a text longer than ``MAX_TEXT`` is stopped.
    """

    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        self.filters |= {"tojson": _to_json, "counted": _counted, "measured": _measured}
        self.globals |= {"raise_exception": _refuse, "strftime_now": _TODAY.strftime}
        self.globals |= {"dict": _to_dict, "namespace": Names}

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        return super()._generate(Limited().visit(source), *args, **options)

    def call(self, context: Context, obj: Any, /, *args: Any, **options: Any) -> Any:
        _step(context)
        return super().call(context, obj, *args, **options)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for many, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(many, str | list | tuple) and isinstance(times, int):
                _check_size(len(many) * times)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_size(left.bit_length() * right)
        return _measured(super().call_binop(context, operator, left, right))


class Limited(NodeTransformer):
    """Counts the turns of loops, and measures joined text."""

    def visit_For(self, node: nodes.For, *args: Any) -> nodes.Node:
        """Count the turns of a loop."""
        self.generic_visit(node, *args)
        node.iter = _filtered(node.iter, "counted")
        return node

    def visit_Concat(self, node: nodes.Concat, *args: Any) -> nodes.Node:
        """Measure what ``~`` makes."""
        self.generic_visit(node, *args)
        return _filtered(node, "measured")


class Generation(Extension):
    """The tag ``generation``, which marks an assistant's tokens and shows its content as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        """Keep the body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Names(Namespace):
    """A template's namespace, without names that reach into Python."""

    def __init__(*args: Any, **options: Any) -> None:
        """Check the initial names."""
        for name in dict(*args[1:], **options):
            _check_name(name)
        Namespace.__init__(*args, **options)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: str) -> None:
    if name.startswith("_"):
        raise TemplateError(f"a namespace cannot have the name {name!r}")


def _to_dict(*args: Any, **options: Any) -> dict[Any, Any]:
    return dict(*args, **options)


def _filtered(node: Any, name: str) -> nodes.Filter:
    made = nodes.Filter(node, name, [], [], None, None)
    made.set_lineno(node.lineno)
    return made


def _step(context: Context) -> None:
    if next(context.parent["_steps"]) > MAX_STEPS:
        raise TemplateError(f"the template takes more than {MAX_STEPS:,} steps")


@pass_context
def _counted(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _step(context)
        yield value


def _measured(value: Any) -> Any:
    if isinstance(value, str | list | tuple):
        _check_size(len(value))
    elif isinstance(value, int):
        _check_size(value.bit_length())
    return value


def _check_size(size: int) -> None:
    if size > MAX_TEXT:
        raise TemplateError(f"the template makes a value longer than {MAX_TEXT:,}")


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
    sort_keys: bool = False,
) -> str:  # fmt: skip
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


_SANDBOX = Sandbox()


@lru_cache(maxsize=64)
def _compiled(source: str) -> Compiled:
    return _SANDBOX.from_string(source)


def rendered(source: str, **values: Any) -> str:
    """Render a chat template with these values.

    Raises:
        jinja2.TemplateError: the template is broken, refuses the values or passes a limit.
    """
    return _compiled(source).render(_steps=itertools.count(1), **values)


def arguments(source: str) -> set[str]:
    """Names that a chat template reads and does not set itself."""
    return find_undeclared_variables(_SANDBOX.parse(source)) - _SANDBOX.globals.keys()


def literals(source: str) -> list[str]:
    """Every text that a chat template writes as it stands."""
    parsed = _SANDBOX.parse(source)
    data = [node.data for node in parsed.find_all(nodes.TemplateData)]
    constants = [node.value for node in parsed.find_all(nodes.Const)]
    return data + [each for each in constants if isinstance(each, str)]
