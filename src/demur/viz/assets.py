"""The templates, style sheets and scripts that ship with the package."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def fill(template: str, **values: Any) -> Markup:
    """Fill a template of ``viz/templates``; every value that is not ``Markup`` is escaped."""
    return Markup(_environment().get_template(template).render(**values))


@cache
def read(name: str) -> Markup:
    """Text of a style sheet or script of this package, to stand inside ``style`` or ``script``."""
    text = files("demur.viz").joinpath(name).read_text(encoding="utf-8")
    assert "</s" not in text, f"{name} would end its own element"
    return Markup(text)


def content_hash(text: str) -> str:
    """The source expression that lets one inline style or script pass a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_uri(content: str | bytes, *, media_type: str) -> str:
    """Text or bytes as a link target that needs no file."""
    text = isinstance(content, str)
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    charset = ";charset=utf-8" if text else ""
    return f"data:{media_type}{charset};base64,{base64.b64encode(raw).decode()}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("demur.viz"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
