"""What results were made with: versions, commit, processor, threads; and ``study.json``, which lists
the arms and cells of a folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from demur._version import __version__
from demur.errors import InputError, StoreError
from demur.files import write_atomically
from demur.study.engine.cells import Subject
from demur.study.plan.arms import Arm
from demur.study.plan.spec import Study

#: This file is next to the cells in a study's folder.
MANIFEST = "study.json"

#: Packages whose version can change a result.
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scikit-learn", "scipy", "pyarrow")


@dataclass(frozen=True)
class CellEntry:
    """A cell as ``study.json`` lists it. ``place`` is its folder below ``cells``."""

    kind: str
    name: str
    place: str
    units: int
    subject: Subject


@dataclass(frozen=True)
class StudyManifest:
    """``study.json``: everything the report needs besides the cells' results.

    Attributes:
        arms: every arm, failed ones included.
        made_with: versions and machine; see ``made_with``.
        seconds: wall-clock times; empty until the run ends.
        layout: version of this file.
    """

    study: Study
    command: str
    arms: tuple[Arm, ...]
    cells: tuple[CellEntry, ...]
    made_with: Mapping[str, Any]
    seconds: Mapping[str, int] = field(default_factory=dict)
    layout: Literal[2] = 2

    def write(self, root: str | Path) -> None:
        """Write it into a study's folder."""
        plain = TypeAdapter(StudyManifest).dump_python(self, mode="json")
        text = json.dumps(plain, indent=1, ensure_ascii=False)
        write_atomically(Path(root) / MANIFEST, text.encode("utf-8", "replace") + b"\n")


def read_manifest(root: str | Path) -> StudyManifest:
    """Read ``study.json``.

    Raises:
        InputError: no study was run in this folder, or another version of demur ran it.
        StoreError: the file is damaged.
    """
    path = Path(root) / MANIFEST
    try:
        plain = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"No study in {root}. Make one with: demur study run STUDY.yaml --out {root}"
        ) from error
    except ValueError as error:
        raise StoreError(f"{path} is damaged. Run the study again.") from error
    try:
        return TypeAdapter(StudyManifest).validate_python(plain)
    except ValueError as error:
        raise InputError(
            f"{path} was written by another version of demur. Run the study again: "
            f"demur study run STUDY.yaml --out {root}"
        ) from error


@cache
def made_with() -> dict[str, Any]:
    """Plain data about this process. Kept with every cell, since a study may resume elsewhere."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "demur": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "processor": _processor(),
        "gpu": ", ".join(gpus),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in _PACKAGES},
        "byte order": sys.byteorder,
    }


def together(made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all cells were made with. Where they differ: each value with its number of cells."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in made for name in one):
        values = [one.get(name) for one in made]
        if isinstance(values[0], Mapping):
            found[name] = together([value for value in values if isinstance(value, Mapping)])
            continue
        different = [*dict.fromkeys(values)]
        counts = (f"{value} ({values.count(value)} cells)" for value in different)
        found[name] = different[0] if len(different) == 1 else "; ".join(counts)
    return found


def commit() -> str:
    """The commit of a checkout, with ``+`` if the package was changed since. Empty elsewhere."""
    package = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # installed inside another project's checkout
            return ""
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    """The processor's name, if the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
