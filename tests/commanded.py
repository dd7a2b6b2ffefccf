"""Commands and programs of the documents, run as they stand there.

A plain ``demur`` command or a piece of Python runs in a fork of a process that has imported demur
already, which spares the seconds of each start; whatever needs a shell or the hub gets a real process.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: A server's default address in the documents; a test's server has a port of its own.
WRITTEN = "localhost:8000"

PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload(
    [
        "torch",
        "transformers.models.llama.modeling_llama",
        "demur.cli",
        "demur.guard",
        "demur.attacks",
        "demur.defenses",
        "demur.study.report.study_page",
        "demur.serve.app",
    ]
)


def _child(folder: str, log: str, program: list[str] | str) -> None:
    """A fork's work: a command's words for ``demur``, or a text of Python."""
    os.chdir(folder)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for place in (1, 2):
        os.dup2(written, place)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if isinstance(program, str):
        sys.argv, sys.path[:0] = ["-c"], [""]
        exec(compile(program, "<document>", "exec"), {"__name__": "__main__"})
        return
    from demur.cli import main

    sys.argv = ["demur", *program]
    main()


class Desk:
    """A folder in which the lines of a page run one after another."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        bin_ = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": bin_, **environment}
        self.servers: list[Any] = []
        self.address = WRITTEN

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.terminate()
            server.join()

    def shell(self, text: str) -> None:
        """Every line of a shell fence; each has to end well. ``demur serve`` runs on until the end."""
        for line in re.sub(r"\\\n\s*", "", text).strip().splitlines():
            line, comment = line.replace(WRITTEN, self.address), line.startswith("#")
            if re.match(r"demur (--\S+ \S+ )*serve ", line):
                self._serve(shlex.split(line)[1:])
            elif line and not comment:
                code = self.run(line)
                assert code == 0, f"{line}: exit code {code}\n{self.log.read_text()}"

    def python(self, text: str) -> None:
        """A piece of Python as a program of its own."""
        code = self._fork(text.replace(WRITTEN, self.address))
        assert code == 0, f"{text}\n{self.log.read_text()}"

    def run(self, line: str) -> int:
        """One line, whatever its exit code, which it returns."""
        first, otherwise, rest = line.partition(" || ")
        if otherwise:
            return self.run(first) and self.run(rest)
        if line.startswith("demur ") and not re.search(r"[|<>&;$`]|hub:", line):
            return self._fork(shlex.split(line)[1:])
        with self.log.open("w") as log:
            return subprocess.run(
                ["bash", "-c", line],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ).returncode

    def _fork(self, program: list[str] | str) -> int:
        child = PREPARED.Process(target=_child, args=(str(self.folder), str(self.log), program))
        child.start()
        child.join()
        return child.exitcode or 0

    def _serve(self, words: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = self.folder.with_suffix(f".{port}.log")
        words = [*words, "--port", str(port)]
        child = PREPARED.Process(target=_child, args=(str(self.folder), str(log), words))
        child.start()
        self.servers.append(child)
        while not (log.exists() and "startup complete" in log.read_text()):
            said = log.read_text() if log.exists() else ""
            assert child.is_alive(), f"{words}: {said}"
            time.sleep(0.05)
        self.address = f"127.0.0.1:{port}"
