"""Make matplotlib's SVG fit to stand inside a page.

A strict content security policy forbids ``style`` attributes, and two figures on one page must not
share ids. So styles become presentation attributes, ids nobody refers to go, the others get the
figure's own prefix, and ink follows the page's text colour.
"""

from __future__ import annotations

import hashlib
import re
from xml.etree import ElementTree

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

#: Colour that figures draw text and axes in; on the page it is the colour of the text around.
INK = "#1b1e24"

#: What XML cannot hold: controls and lone surrogates.
_UNPRINTABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def embed(source: str, *, title: str, description: str) -> str:
    """Rewrite one SVG document as an element for a page; the same input gives the same text."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(_UNPRINTABLE.sub("", source))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)
    for element in root.iter():
        _presentation(element)
    _own_ids(root, prefix=f"f{hashlib.sha256(source.encode('utf-8', 'replace')).hexdigest()[:8]}-")
    root.set("role", "img")
    root.set("aria-label", _UNPRINTABLE.sub("", f"{title}. {description}".strip()))
    root.set("stroke-linejoin", "round")
    return ElementTree.tostring(root, encoding="unicode")


def _presentation(element: ElementTree.Element) -> None:
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        if name.strip() == "font-family":
            value = "system-ui, sans-serif"
        if value:
            element.set(name.strip(), value.strip().replace(INK, "currentColor"))
    if element.tag == f"{{{SVG}}}text":
        element.attrib.setdefault("fill", "currentColor")


def _own_ids(root: ElementTree.Element, *, prefix: str) -> None:
    link = f"{{{XLINK}}}href"
    used = {e.attrib[link].lstrip("#") for e in root.iter() if link in e.attrib}
    for element in root.iter():
        for value in element.attrib.values():
            used.update(_REFERENCE.findall(value))
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{prefix}{identifier}")
        for name, value in element.attrib.items():
            element.set(name, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
        if link in element.attrib:
            element.set(link, f"#{prefix}{element.attrib[link].lstrip('#')}")
