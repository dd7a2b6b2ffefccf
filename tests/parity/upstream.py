"""What the freezing scripts share: a checkout's commit, its modules, and a run written down."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

HERE = Path(__file__).parent


def commit(checkout: Path) -> str:
    """The commit a checkout stands at."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def module(folder: Path, name: str) -> Any:
    """Import one file of a package without running the package's own ``__init__``."""
    package = types.ModuleType(f"upstream_{folder.name}_{folder.parent.name}")
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.{name}")


class Watch:
    """Keeps the inputs and the final-norm states of every forward pass."""

    def __init__(self) -> None:
        self.inputs: list[torch.Tensor] = []
        self.states: list[torch.Tensor] = []

    @contextmanager
    def over(self, network: torch.nn.Module, norm: torch.nn.Module) -> Iterator[Watch]:
        """Watch a network, whose last norm is ``norm``, while the block runs."""
        hooks = [
            network.register_forward_pre_hook(
                lambda _, args, kwargs: self.inputs.append(
                    (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).clone()
                ),
                with_kwargs=True,
            ),
            norm.register_forward_hook(lambda _, __, out: self.states.append(out.clone())),
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def row(self, start: int, final: torch.Tensor) -> dict[str, Any]:
        """Response tokens after each pass, and the mean state of its response positions."""
        after = [*self.inputs[1:], final]
        return {
            "x": [x[0, start:].tolist() for x in after],
            "phi": [rounded(s[0, start:].mean(0)) for s in self.states],
        }


def rounded(values: torch.Tensor) -> list[float]:
    """Numbers short enough to keep, exact to about 1e-7."""
    return [round(v, 7) for v in values.float().tolist()]


def write(path: Path, cases: Mapping[str, Any], **commits: str) -> None:
    """Write a fixture: where it comes from, and its cases, one a line."""
    about = {**commits, "torch": torch.__version__, "transformers": transformers.__version__}
    lines = ",\n".join(f'  "{name}": {json.dumps(case)}' for name, case in cases.items())
    path.write_text(f'{{"from": {json.dumps(about)},\n "cases": {{\n{lines}\n }}}}\n')
    print(path, path.stat().st_size, "bytes")  # noqa: T201
