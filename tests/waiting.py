"""Wait for conditions, never for a time: a test that hangs is ended by ``faulthandler_timeout``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def until(met: Callable[[], Any], *, alive: subprocess.Popen[str] | None = None) -> Any:
    """Wait until a condition holds and return its value; fails if process ``alive`` ends first."""
    while not (found := met()):
        assert alive is None or alive.poll() is None, f"{alive} ended with {alive.returncode}"
        time.sleep(0.005)
    return found


@contextmanager
def child(*command: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed and reaped at the end of the block, even if the block fails."""
    with subprocess.Popen([*map(str, command)], text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()
