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
    """Fill a template of ``viz/templates``. Values are escaped unless they are ``Markup``."""
    return Markup(_environment().get_template(template).render(**values))


@cache
def read(name: str) -> Markup:
    """Text of a style sheet or script of this package, for a ``style`` or ``script`` element."""
    text = files("demur.viz").joinpath(name).read_text(encoding="utf-8")
    assert "</s" not in text, f"{name} would end its own element"
    return Markup(text)


def content_hash(text: str) -> str:
    """The content security policy source that allows one inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_uri(content: str | bytes, *, media_type: str) -> str:
    """Text or bytes as a ``data:`` link."""
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
