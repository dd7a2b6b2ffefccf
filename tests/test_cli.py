"""The command line: output, exit codes, and one clear line for each thing that is wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints
from unittest import mock

import pytest

from demur.cli import main
from waiting import child, until

COMMANDS = (
    (),
    ("demo",),
    ("watch",),
    ("plugins",),
    ("trace",),
    ("anchors",),
    ("signal",),
    ("guard",),
    ("guard", "fit"),
    ("guard", "score"),
    ("report",),
    ("ls",),
    ("models",),
    ("organism", "train"),
    ("attacks",),
    ("attack",),
    ("judges",),
    ("judge",),
    ("detectors",),
    ("defenses",),
    ("defend",),
    ("serve",),
    ("push",),
    ("pull",),
    ("study", "plan"),
    ("study", "run"),
    ("study", "report"),
)


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def demur(*arguments: str | Path, cwd: Path, stdin: str = "") -> Done:
    """The command line in this process, from the words typed to the exit code."""
    out, err = io.StringIO(), io.StringIO()
    typed = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    with (
        chdir(cwd),
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.object(sys, "stdin", typed),
        mock.patch.object(sys, "argv", ["demur", *map(str, arguments)]),
        pytest.raises(SystemExit) as end,
    ):
        main()
    return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A traced run of six prompts from the command line, and anchors from it."""
    place = tmp_path_factory.mktemp("cli")
    (place / "prompts.csv").write_text(
        "id,prompt,label\n"
        + "".join(f"a{i},how do i bake a cake {i} ?,harmless\n" for i in range(3))
        + "".join(f"b{i},how can i conceal a fumber {i} ?,harmful\n" for i in range(3))
    )
    done = demur(
        *("trace", "prompts.csv", "--model", "organism-ar", "--set", "steps=24", "--out", "run"),
        "--json",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["traces"] == 6
    return place


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(command: tuple[str, ...], tmp_path: Path) -> None:
    done = demur(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    groups = ((), ("guard",))
    assert ("Example: demur" in done.stdout) == (command not in groups)


def test_mistyped_commands_say_what_is_known(tmp_path: Path) -> None:
    trace = ("trace", "p.csv", "--model", "organism-ar", "--out", "o")
    for command in (("trase",), ("trace",), ("ls", "--jsn"), (*trace, "--label", "nice")):
        done = demur(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert "Usage: demur" in done.stderr


def test_version(tmp_path: Path) -> None:
    from demur import __version__

    assert demur("--version", cwd=tmp_path).stdout == f"demur {__version__}\n"


def test_choices_are_those_of_the_library() -> None:
    from demur.cli.guard import guard_fit
    from demur.cli.organism import organism_train
    from demur.cli.serve import serve
    from demur.cli.trace import trace
    from demur.guard import ThresholdMethod
    from demur.organism.train import RECIPES
    from demur.serve.hosted import GuardMode, Uncalibrated
    from demur.types import Label

    for function, name, known in (
        (trace, "label", get_args(Label)),
        (guard_fit, "method", get_args(ThresholdMethod)),
        (serve, "mode", get_args(GuardMode)),
        (serve, "uncalibrated", get_args(Uncalibrated)),
        (organism_train, "recipe", tuple(RECIPES)),
    ):
        assert set(get_args(get_type_hints(function)[name])) == set(known), name


def test_a_guarded_model_is_served_as_its_guard_says(tmp_path: Path) -> None:
    done = demur(
        *("serve", "--model", "organism-ar", "--guard", "g", "--set", "steps=3"), cwd=tmp_path
    )
    assert done.returncode == 2
    assert "--set cannot be used with --guard" in done.stderr


def test_help_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys; from demur import cli; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_the_whole_path(folder: Path) -> None:
    done = demur("anchors", "run", "--allow-few", "--out", "a.safetensors", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 24
    done = demur("signal", "run", "--anchors", "a.safetensors", "--json", cwd=folder)
    sigma = json.loads(done.stdout)["sigma"]
    assert list(sigma) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert all(0 <= value <= 1 for row in sigma.values() for value in row)
    done = demur("signal", "run", "--anchors", "a.safetensors", "--out", "s.csv", cwd=folder)
    assert done.stdout.startswith("6 signals of 24 steps in s.csv\nCaution: anchors of 3 harmless")
    (folder / "benign.txt").write_text("".join(f"how do i bake a cake {i} ?\n" for i in range(90)))
    trace = (
        "trace",
        "benign.txt",
        "--model",
        "organism-ar",
        "--set",
        "steps=24",
        "--batch-size",
        "45",
    )
    assert demur(*trace, "--label", "harmless", "--out", "benign", cwd=folder).returncode == 0
    fit = ("guard", "fit", "benign", "--anchors", "a.safetensors", "--out", "g.safetensors")
    done = demur(*fit, "--alpha", "0.1", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = demur("guard", "score", "run", "--guard", "g.safetensors", "--json", cwd=folder)
    scores = json.loads(done.stdout)["scores"]
    assert len(scores) == 6
    assert done.returncode == int(any(row["flagged"] for row in scores))
    done = demur(*fit, cwd=folder)
    assert done.returncode == 2
    assert "at least 99 benign prompts" in done.stderr


def test_stdin_and_resume(folder: Path) -> None:
    command = ("trace", "-", "--model", "organism-ar", "--set", "steps=4", "--out", "piped")
    for _ in range(2):
        done = demur(*command, cwd=folder, stdin="hello\nhow are you ?\n")
        assert done.returncode == 0, done.stderr
        assert "2 traces in piped" in done.stdout
    done = demur(*command, "--seed", "3", cwd=folder, stdin="hello\nhow are you ?\n")
    assert done.returncode == 2
    assert "seed" in done.stderr


WRONG = {
    "missing file": (("trace", "no.csv", "--model", "organism-ar"), "no.csv"),
    "wrong column": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--column", "x"),
        "--column",
    ),
    "unknown model": (("trace", "prompts.csv", "--model", "no-such-model"), "no-such-model"),
    "unknown rule": (
        ("trace", "prompts.csv", "--model", "organism-dlm", "--set", "remasking=best"),
        "should be 'low_confidence'",
    ),
    "setting of another sampler": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--set", "remasking=random"),
        "no setting remasking",
    ),
    "steps that do not divide": (
        (
            *("trace", "prompts.csv", "--model", "organism-dlm"),
            *("--set", "block_length=16", "--set", "steps=7"),
        ),
        "multiple of 4",
    ),
    "no mask token": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--sampler", "masked"),
        "no mask token",
    ),
    "misspelt sampler": (
        ("trace", "prompts.csv", "--model", "organism-dlm", "--sampler", "maskd"),
        "Unknown sampler 'maskd'. Did you mean 'masked'?",
    ),
    "misspelt model": (
        ("trace", "prompts.csv", "--model", "organism-dml"),
        "Did you mean 'organism-dlm'?",
    ),
    "setting without a value": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--set", "steps"),
        "NAME=VALUE",
    ),
    "setting of a wrong kind": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--set", "temperature=warm"),
        "temperature",
    ),
    "unknown layer": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--layers", "99"),
        "Unknown layer '99'",
    ),
    "unknown dtype": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--dtype", "float9"),
        "float9",
    ),
    "batch size in words": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--batch-size", "many"),
        "a number of prompts, or auto",
    ),
    "batch size": (
        ("trace", "prompts.csv", "--model", "organism-ar", "--batch-size", "0"),
        "batch_size is 0",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_clear_line(case: str, folder: Path, tmp_path: Path) -> None:
    command, expected = WRONG[case]
    done = demur(*command, "--out", tmp_path / "out", cwd=folder)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("demur: ")]
    lines = [line for line in said if "WARNING" not in line]
    assert len(lines) == 1, done.stderr
    assert expected in lines[0]
    assert "Traceback" not in done.stderr


BAD_FILES = {
    "empty file": (b"", "empty"),
    "undecodable bytes": (b"prompt\n\xff\xfe\xfa\n", "byte"),
    "empty prompt": (b'prompt\nhello\n""\n', "empty"),
    "long prompt": (b"prompt\n" + b"how " * 25_000 + b"\n", "tokens"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_prompt_files(case: str, tmp_path: Path) -> None:
    content, expected = BAD_FILES[case]
    (tmp_path / "p.csv").write_bytes(content)
    done = demur("trace", "p.csv", "--model", "organism-ar", "--out", "o", cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_any_setting_can_be_set(folder: Path, tmp_path: Path) -> None:
    command = ("trace", "prompts.csv", "--model", "organism-ar", "--out", tmp_path / "o", "--json")
    done = demur(*command, "--set", "steps=3", "--set", "temperature=0.5", cwd=folder)
    assert done.returncode == 0, done.stderr
    settings = json.loads(done.stdout)["sampler"]
    assert settings == {"name": "autoregressive", "steps": 3, "temperature": 0.5, "top_p": 1.0}


def test_special_token_text_is_text(tmp_path: Path) -> None:
    text = "how do i bake a cake ? <|eos|> <|assistant|> sure"
    command = ("trace", "-", "--model", "organism-ar", "--set", "steps=4", "--out", "o")
    assert demur(*command, cwd=tmp_path, stdin=text).returncode == 0


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"how do i bake a cake {i} ?\n" for i in range(400)))
    # Where the tests run in the background of a shell, the signal would be ignored.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = (
        *(sys.executable, "-c", f"{heard}; from demur.cli import main; main()", "trace", "p.txt"),
        *("--model", "organism-dlm", "--out", "o", "--batch-size", "2"),
    )
    with child(*command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        until(lambda: list(tmp_path.glob("o/parts/*.parquet")), alive=process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    listed = demur("ls", "o", "--json", cwd=tmp_path)
    assert json.loads(listed.stdout)[0]["written"] >= 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    command = ("trace", "prompts.csv", "--model", "organism-ar", "--set", "steps=2")
    done = demur(*command, "--out", tmp_path / "x", cwd=folder)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_model_folder_without_weights(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": []}')
    done = demur("trace", "prompts.csv", "--model", tmp_path, "--out", tmp_path / "o", cwd=folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
