"""A CycloneDX bill of materials of what demur runs on, from the installed packages alone.

    python scripts/sbom.py --out sbom.json          # what `pip install demur` brings
    python scripts/sbom.py --extra serve --out ...   # and what an extra brings

CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/. Packages and licences are read from the metadata of
this environment; the serial number and the order depend on them alone, so that the same environment
gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import uuid
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(name: str, extras: frozenset[str]) -> dict[str, tuple[Distribution, set[str]]]:
    """Every installed distribution that a package needs -> itself and the names it needs."""
    found: dict[str, tuple[Distribution, set[str]]] = {}
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        key = canonicalize_name(one[0])
        try:
            package = distribution(key)
        except PackageNotFoundError:
            raise SystemExit(f"{key} is not installed. Run: pip install 'demur[...]'") from None
        _, needs = found.setdefault(key, (package, set()))
        for text in package.requires or ():
            wanted = Requirement(text)
            marker = wanted.marker
            if marker and not any(marker.evaluate({"extra": e}) for e in {"", *one[1]}):
                continue
            needs.add(canonicalize_name(wanted.name))
            waiting.append((wanted.name, frozenset(wanted.extras)))
    return found


def component(package: Distribution) -> dict[str, Any]:
    """One package as CycloneDX writes it."""
    about = package.metadata
    name, version = canonicalize_name(about["Name"]), package.version
    reference = f"pkg:pypi/{name}@{version}"
    licence = about.get("License-Expression") or about.get("License") or "NOASSERTION"
    return {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": reference,
        "licenses": [{"license": {"name": licence.splitlines()[0][:120]}}],
    }


def bill(extras: frozenset[str]) -> dict[str, Any]:
    """The bill of materials of demur with these extras."""
    found = needed("demur", extras)
    components = {name: component(package) for name, (package, _) in sorted(found.items())}
    own = components.pop("demur")
    text = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {"component": {**own, "type": "application"}},
        "components": list(components.values()),
        "dependencies": [
            {
                "ref": {"demur": own, **components}[name]["bom-ref"],
                "dependsOn": sorted(components[need]["bom-ref"] for need in needs),
            }
            for name, (_, needs) in sorted(found.items())
        ],
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="Write a CycloneDX bill of materials of demur.")
    options.add_argument("--out", type=Path, default=Path("sbom.json"))
    options.add_argument("--extra", action="append", default=[])
    given = options.parse_args()
    given.out.write_text(json.dumps(bill(frozenset(given.extra)), indent=2) + "\n")
