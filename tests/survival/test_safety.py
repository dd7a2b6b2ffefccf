"""Nothing that is read runs, leaves its place, commands a terminal or shows a secret."""

from __future__ import annotations

import ast
import json
import logging
import os
import pickle
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import demur
from conftest import save_llama
from demur.anchors import import_anchors
from demur.cli import console
from demur.endpoint import Endpoint, Message
from demur.errors import DemurError, InputError, StoreError
from demur.files import write_atomically
from demur.guard import Guard
from demur.serve.middleware import Keys
from demur.sri import Anchors
from demur.store import Store
from demur.study.report.run_report import write_run_report
from served import serving
from test_store import MARK, a_trace, write

SOURCES = Path(demur.__file__).parent
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
KEY = "sk-a-key-that-nobody-may-see"


# ------------------------------------------------------------------ nothing runs

FORBIDDEN = {
    *("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "joblib.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "marshal.loads", "shelve.open"),
    *("extractall", "np.load", "numpy.load"),
}


def calls(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every call of a file: its dotted name and its keywords that are constants."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            options = {
                k.arg: k.value.value
                for k in node.keywords
                if k.arg and isinstance(k.value, ast.Constant)
            }
            found.append((ast.unparse(node.func), options))
    return found


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return names | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}


def test_no_source_runs_what_it_reads() -> None:
    sources = sorted(SOURCES.rglob("*.py"))
    assert len(sources) > 100
    for path in sources:
        assert not {"pickle", "joblib", "marshal", "shelve", "dill", "cloudpickle"} & imported(path)
        for name, options in calls(path):
            assert name not in FORBIDDEN, f"{path}: {name}"
            assert not options.get("shell"), f"{path}: {name}(shell=True)"
            assert not options.get("trust_remote_code"), f"{path}: {name}"
            if name == "torch.load":
                assert options.get("weights_only") is True, path


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


def test_a_malicious_pickle_runs_nothing_wherever_a_file_is_read(tmp_path: Path) -> None:
    trap, bad = tmp_path / "ran", tmp_path / "bad.pt"
    bad.write_bytes(pickle.dumps([Runs(trap)]))
    folder = save_llama(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(bad.read_bytes())
    run = tmp_path / "run"
    write(run, [a_trace(0)])
    next((run / "traces").iterdir()).write_bytes(bad.read_bytes())
    for read in (
        lambda: import_anchors(bad),
        lambda: Anchors.load(bad),
        lambda: Guard.load(bad),
        lambda: demur.load(folder),
        lambda: demur.load(folder, allow_pickle=True),
        lambda: list(Store.open(run).traces()),
    ):
        with pytest.raises(DemurError):
            read()
    assert not trap.exists()
    pickle.loads(bad.read_bytes())  # noqa: S301 - the trap itself works
    assert trap.exists()


# ------------------------------------------------------------------ nothing leaves its place


def test_a_link_in_a_run_folder_reaches_no_other_file(tmp_path: Path) -> None:
    (mine := tmp_path / "mine.txt").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to(mine)
    with pytest.raises(StoreError, match=r"\.lock|run"):
        write(run, [a_trace(0)])
    (run / ".lock").unlink()
    (run / f".manifest.json.{os.getpid()}.tmp").symlink_to(mine)
    write(run, [a_trace(0)])
    (run / "manifest.json").rename(run / "kept")
    (run / "manifest.json").symlink_to(mine)
    write_atomically(run / "manifest.json", (run / "kept").read_bytes())
    assert mine.read_text() == "mine"
    assert not (run / "manifest.json").is_symlink()
    assert len(list(Store.open(run).traces())) == 1


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    traces = [a_trace(i, id=f"../../x{i}", attack="../y", goal="/etc/z") for i in range(2)]
    write(run, traces)
    (run / "traces" / "..%2fx-0000000000000000.parquet").write_bytes(b"x")
    assert Store.open(run).ids() == ["../../x0", "../../x1"]
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
    for name in ("../../x", "organism-ar/../../x"):
        with pytest.raises(DemurError):
            demur.load(name)


# ------------------------------------------------------------------ nothing commands a reader


class Tags(HTMLParser):
    """Elements of a page, and attributes that run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_a_report_of_a_hostile_run_shows_text(tmp_path: Path) -> None:
    def traced(name: str, text: str) -> Path:
        about = {"text": text, "goal": text, "attack": text}
        write(tmp_path / name, [a_trace(i, id=f"{text}{i}", **about) for i in range(3)])
        return tmp_path / name

    ones = np.ones((4, 5), np.float32)
    Anchors(ones, -ones, fingerprint=MARK).save(tmp_path / "a")
    pages = []
    for place, (name, text) in enumerate((("plain", "text"), (f"{HOSTILE[:17]}x", HOSTILE))):
        run = traced(name.replace("/", "_"), text)
        out = tmp_path / f"{place}.html"
        pages.append(write_run_report(out, [run], anchors=tmp_path / "a").read_text("utf-8"))
    plain, hostile = map(Tags, pages)
    assert not hostile.handlers
    assert hostile.tags.count("script") == plain.tags.count("script")
    assert "img" not in hostile.tags
    assert HOSTILE not in pages[1]


@pytest.mark.parametrize("end", ["\n", "\x1b[2J", "\x9b2J", "\r", "\u202e", "\u2028"])
def test_text_of_a_prompt_commands_no_terminal(
    end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"a{end}b"
    console.say(text)
    console.note(text)
    console.say_json({"id": text})
    found = capsys.readouterr()
    for line in (*found.out.splitlines(), *found.err.splitlines()):
        assert line.isprintable(), line
    assert len(found.err.splitlines()) == 1
    said, *document = found.out.splitlines()
    assert said.startswith("a\\")
    assert json.loads("\n".join(document)) == {"id": text}


def test_a_path_writes_no_line_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="demur.serve")
    with serving([demur.load("organism-ar")]) as server:
        httpx.get(f"{server.url}/x%0aINFO%20forged%1b[2J")
    (line,) = [r.getMessage() for r in caplog.records if "forged" in r.getMessage()]
    assert line.isprintable()


# ------------------------------------------------------------------ no secret is shown


def test_keys_are_in_no_message_and_in_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("DEMUR_API_KEYS", KEY)
    caplog.set_level(logging.DEBUG)
    asked = Endpoint("http://127.0.0.1:9", "m", cache=tmp_path, retries=0, timeout=1)
    with pytest.raises(DemurError) as raised:
        asked.answer([[Message("user", KEY[:3])]], max_tokens=1)
    with pytest.raises(InputError) as short:
        Keys(["short-secret"])
    shown = [repr(asked), str(raised.value), str(short.value), repr(Keys([KEY])), caplog.text]
    shown += [str(vars(Keys([KEY])))]
    assert not [text for text in shown if KEY in text or "short-secret" in text]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text()]
