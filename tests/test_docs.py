"""Every command and every piece of Python in the documents runs, page by page, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

import hooks  # noqa: E402

FENCE = re.compile(
    r"^```(sh|python|yaml title=\S+|csv title=\S+|python title=\S+)\n(.*?)^```", re.M | re.S
)
PAGES = sorted(p for p in DOCS.rglob("*.md") if FENCE.search(p.read_text("utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_page_runs(page: Path, tmp_path: Path) -> None:
    """``title="name"`` makes a file; ``sh`` is run line by line, ``python`` as a program."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for kind, text in FENCE.findall(page.read_text("utf-8")):
        if "title=" in kind:
            (tmp_path / kind.split("title=")[1].strip('"')).write_text(text)
            continue
        commands = [[sys.executable, "-c", text]]
        if kind == "sh":
            commands = [["bash", "-c", line] for line in text.strip().splitlines()]
        for command in commands:
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, f"{command[-1]}\n{done.stderr}"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (DOCS.parent / "mkdocs.yml").read_text()))
    pages = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    errors = [f"reference/errors/{name}.md" for name in ("index", *hooks.ERROR_PAGES)]
    made = {"reference/cli.md", "reference/python.md", *errors}
    assert pages | made == listed
