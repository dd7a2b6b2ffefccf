"""Fuzz, by coverage, what reads files of others: prompts, manifests, saved tensors.

    python tests/fuzz/readers.py 60             # every target for so many seconds; make fuzz
    python tests/fuzz/readers.py TARGET FILE    # what a file that failed does

Whatever bytes a file holds, reading it gives a value or one DemurError. Needs atheris. A failing input
is written to where the command runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["demur.prompts", "demur.store", "demur.files"]):
    from demur.files import read_tensors, write_tensors
    from demur.prompts import read_prompts
    from demur.store.folder import LocalFolder
    from demur.store.manifest import Manifest, read_manifest

from demur.errors import DemurError
from demur.types import Fingerprint

HERE = Path(tempfile.mkdtemp())
TENSORS = HERE / "t.safetensors"


def _prompts(kind: str) -> Callable[[bytes], object]:
    path = HERE / f"p.{kind}"

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return read_prompts(path)

    return read


def _manifest(content: bytes) -> object:
    (HERE / "manifest.json").write_bytes(content)
    return read_manifest(LocalFolder(HERE))


def _tensors(content: bytes) -> object:
    TENSORS.write_bytes(content)
    return read_tensors(TENSORS, kind="anchors")


TARGETS: Mapping[str, Callable[[bytes], object]] = {
    "csv": _prompts("csv"),
    "jsonl": _prompts("jsonl"),
    "manifest": _manifest,
    "tensors": _tensors,
}


def _seeds() -> dict[str, bytes]:
    """A sound file of each kind, from which the fuzzer begins."""
    import numpy as np

    mark = Fingerprint("m", "r", {"name": "masked"}, "mean", "", "float32")
    ones = {"harmless": np.ones((2, 3), np.float32)}
    written = write_tensors(HERE / "seed", ones, kind="anchors", about={"layer": "last"})
    return {
        "csv": b'id,prompt,label\na,"w1, w2",harmless\n',
        "jsonl": b'{"id": 1, "prompt": "w1", "response_template": ["w", 3]}\n',
        "manifest": Manifest(mark, ("last",), 0, "x", 3, 2).to_json(),
        "tensors": written.read_bytes(),
    }


def fuzz(target: str, *options: str) -> None:
    """Run one target in this process; it ends the process."""

    def check(content: bytes) -> None:
        with suppress(DemurError):
            TARGETS[target](content)

    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()


def main() -> None:
    """Every target for so many seconds, each in a process of its own; or one target on a file."""
    first = sys.argv[1]
    if first in TARGETS:
        fuzz(first, *sys.argv[2:])
    with tempfile.TemporaryDirectory() as folder:
        for target, seed in _seeds().items():
            corpus = Path(folder, target)
            corpus.mkdir()
            (corpus / "seed").write_bytes(seed)
            print(f"{target}: {first} s", flush=True)
            limits = (f"-max_total_time={first}", "-timeout=10", "-rss_limit_mb=4096")
            command = [sys.executable, __file__, target, *limits, "-verbosity=0", str(corpus)]
            subprocess.run(command, check=True, env={**os.environ, "TMPDIR": folder})


if __name__ == "__main__":
    main()
