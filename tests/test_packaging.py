"""What users install: contents of the wheel, types of the README's snippets, extras left alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

import demur

ROOT = Path(__file__).parents[1]
MEGABYTES = 30


def run(*arguments: str, cwd: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_everything_and_little_else(tmp_path: Path) -> None:
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    wheel = tmp_path / run("-c", build).splitlines()[-1]
    assert wheel.stat().st_size < MEGABYTES * 2**20
    assert wheel.name == f"demur-{demur.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    there = {path.relative_to(ROOT / "src") for path in (ROOT / "src/demur").rglob("*.*")}
    assert {str(path) for path in there if "__pycache__" not in path.parts and path.suffix} <= names
    assert "demur/organism/weights/organism-ar/model.safetensors" in names
    assert not [name for name in names if re.search(r"__pycache__|\.pyc|(^|/)\.|tests/", name)]


def test_sdist_holds_what_its_tests_and_make_read(tmp_path: Path) -> None:
    build = f"from hatchling.build import build_sdist; print(build_sdist({str(tmp_path)!r}))"
    with tarfile.open(tmp_path / run("-c", build).splitlines()[-1]) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    needed = (
        "Makefile",
        "mkdocs.yml",
        ".ci/run",
        "benchmarks/__main__.py",
        "constraints-oldest.txt",
    )
    assert {*needed, "scripts/sbom.py", "tests/conftest.py", "docs/hooks.py"} <= names


def test_the_version_stands_in_one_place() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in text
    assert not re.search(r'^version = "', text, flags=re.MULTILINE)


def test_no_extra_is_imported_before_it_is_used() -> None:
    """Every module but those of an extra imports where none of the extras is installed."""
    extras = "inspect_ai ray fastapi uvicorn sse_starlette prometheus_client openai datasets s3fs"
    extras += " bitsandbytes accelerate gguf peft moto"
    code = f"""
import pkgutil, sys, importlib
for name in {extras.split()!r}:
    sys.modules[name] = None
import demur, demur.cli
for public in demur.__all__:
    getattr(demur, public)
for room in ("adapters", "hub", "integrations.notebook", "integrations.tracking", "attacks",
             "defenses", "detectors", "guard", "judges", "store", "study", "viz"):
    importlib.import_module("demur." + room)
try:
    importlib.import_module("demur.integrations.inspect_ai")
except demur.errors.MissingExtraError as error:
    assert "demur[inspect]" in str(error)
else:
    raise SystemExit("inspect_ai was imported")
"""
    run("-c", code)


def test_the_readme_type_checks_for_its_users(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert snippets
    for number, snippet in enumerate(snippets):
        (tmp_path / f"snippet_{number}.py").write_text(snippet)
    # The cache of `make lint` spares the minutes that reading torch takes.
    options = (f"--config-file={ROOT}/pyproject.toml", f"--cache-dir={ROOT}/.mypy_cache")
    files = [path.name for path in tmp_path.glob("*.py")]
    checked = run("-m", "mypy", *options, *files, cwd=tmp_path)
    assert "Success" in checked


@pytest.mark.parametrize("extra", ["hub", "serve"])
def test_bill_of_materials(extra: str, tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    run("scripts/sbom.py", "--extra", extra, "--out", str(out))
    first = out.read_bytes()
    bill = json.loads(first)
    names = {component["name"] for component in bill["components"]}
    needed = [text for text in requires("demur") or [] if "extra" not in text]
    assert {re.split(r"[<>=;\[ ]", text)[0].lower() for text in needed} <= names
    assert ("fastapi" in names) == (extra == "serve")
    assert bill["metadata"]["component"]["version"] == demur.__version__
    references = {component["bom-ref"] for component in bill["components"]}
    assert {need for row in bill["dependencies"] for need in row["dependsOn"]} <= references
    run("scripts/sbom.py", "--extra", extra, "--out", str(out))
    assert out.read_bytes() == first
