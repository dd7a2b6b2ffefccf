"""Push and pull by the real commands and the real client, against a stand-in of the hub's API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import demur
from demur.anchors import fit_anchors
from demur.errors import InputError, StoreError
from demur.guard import fit_guard
from demur.hub import card, pull, read_contents
from demur.models.base import LanguageModel
from demur.runs import trace_to
from demur.sampling import Autoregressive
from demur.sri import Anchors
from demur.store import Store
from demur.types import Prompt, Traces
from hub_standin import Hub, hub

TOKEN = "hf_not-a-real-token-0123456789"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_ar: LanguageModel) -> Path:
    """A run, anchors and a guard in one folder."""
    place = tmp_path_factory.mktemp("made")
    prompts = [
        Prompt(f"w{i} w{i + 1}", label="harmless" if i % 2 else "harmful", goal="|<b>*x*")
        for i in range(20)
    ]
    sampler = Autoregressive(steps=4)
    store = trace_to(place / "run", tiny_ar, prompts, sampler=sampler, shard_rows=8)
    traces = Traces(tuple(store.traces()))
    refused = [trace.prompt.label == "harmful" for trace in traces]
    anchors = fit_anchors(traces, refused, allow_few=True)
    anchors.save(place / "anchors.safetensors")
    guard = fit_guard(traces[:10], traces[10:], anchors=anchors, alpha=0.2)
    guard.save(place / "guard.safetensors")
    return place


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub() as running:
        yield running


def command(
    server: Hub, *arguments: str, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
    }
    done = subprocess.run(
        [str(Path(sys.executable).with_name("demur")), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_a_run_comes_back_byte_for_byte(made: Path, server: Hub, tmp_path: Path) -> None:
    options = ("--licence", "apache-2.0", "--data", "nonce words")
    pushed = command(server, "push", str(made / "run"), "hub:lab/run", *options)
    assert pushed.returncode == 0, pushed.stderr
    assert TOKEN in server.tokens  # the client did log in
    repository = server.repositories["dataset/lab/run"]
    assert repository.private
    pulled = command(server, "pull", "hub:lab/run", "--out", str(tmp_path / "run"), "--json")
    assert pulled.returncode == 0, pulled.stderr
    assert json.loads(pulled.stdout)["traces"] == "20"

    def content(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert content(tmp_path / "run") == content(made / "run")
    assert len(Store.open(tmp_path / "run")) == 20
    again = command(server, "pull", "hub:lab/run", "--out", str(tmp_path / "run"))
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_guard_comes_back_and_replaces_what_was_there(
    made: Path, server: Hub, tmp_path: Path
) -> None:
    options = ("--licence", "mit", "--public")
    for name in ("anchors", "guard"):
        path = made / f"{name}.safetensors"
        pushed = command(server, "push", str(path), "hub:lab/guard", *options)
        assert pushed.returncode == 0, pushed.stderr
    repository = server.repositories["model/lab/guard"]
    assert not repository.private
    assert set(repository.commits[-1]) == {".gitattributes", "README.md", "guard.safetensors"}
    out = tmp_path / "guard.safetensors"
    assert command(server, "pull", "hub:lab/guard", "--out", str(out)).returncode == 0
    assert out.read_bytes() == (made / "guard.safetensors").read_bytes()
    assert demur.Guard.load(out).alpha == 0.2


def test_what_is_damaged_or_foreign_is_not_put_in_place(
    made: Path, server: Hub, tmp_path: Path
) -> None:
    command(server, "push", str(made / "run"), "hub:lab/damaged", "--licence", "mit")
    files = server.repositories["dataset/lab/damaged"].commits[-1]
    shard = next(name for name in files if name.endswith(".parquet"))
    files[shard] = files[shard][:-20] + bytes(20)
    files["../../escaped"] = b"x"
    files["traces/payload.pkl"] = b"x"
    done = command(server, "pull", "hub:lab/damaged", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "damaged" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hub:lab/nothing",), "No repository 'lab/nothing'"),
        (("hub:forbidden/x",), "answered 403"),
    ],
)
def test_pull_says_what_is_wrong(
    server: Hub, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = command(server, "pull", *arguments, "--out", str(tmp_path / "x"))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["lab/run", "hub:../x", "hub:x", "hub:spaces/a/b"])
def test_only_addresses_on_the_hub(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Write hub:org/name"):
        pull(address, tmp_path / "x")


def test_push_says_what_is_wrong(made: Path, server: Hub) -> None:
    guard = str(made / "guard.safetensors")
    refused = command(server, "push", guard, "hub:forbidden/x", "--licence", "mit")
    assert (refused.returncode, "answered 403" in refused.stderr) == (2, True)
    away = command(server, "push", guard, "hub:lab/away", "--licence", "mit", offline=True)
    assert (away.returncode, "HF_HUB_OFFLINE" in away.stderr) == (2, True)


def test_only_what_demur_made_and_finished(
    made: Path, tmp_path: Path, tiny_ar: LanguageModel
) -> None:
    with pytest.raises(InputError, match="Nothing at"):
        read_contents(tmp_path / "none")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged or not a safetensors"):
        read_contents(tmp_path / "x.safetensors")
    shard = next((made / "run" / "traces").glob("*.parquet"))
    kept = shard.read_bytes()
    shard.unlink()
    try:
        with pytest.raises(StoreError, match="of 20 traces"):
            read_contents(made / "run")
    finally:
        shard.write_bytes(kept)


def test_card(made: Path) -> None:
    contents = read_contents(made / "guard.safetensors")
    text = card(contents, address="hub:lab/guard", licence="mit", data="a | <script> [x](y) _z_")
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "mit"
    assert "base_model" not in front  # the model was a folder
    assert "<script>" not in text
    assert "a &#124; &#60;script&#62; &#91;x&#93;(y) &#95;z&#95;" in text
    assert "demur pull hub:lab/guard --out guard.safetensors" in text
    calibration = demur.Guard.load(made / "guard.safetensors").calibration
    assert f"| all | 10 | 0.2 (this guard) | {np.sort(calibration)[-2]:.4g} |" in text
    assert "| 0.001 | too few benign generations |" in text


def test_card_names_the_base_model_on_the_hub(made: Path, tmp_path: Path) -> None:
    anchors = Anchors.load(made / "anchors.safetensors")
    assert anchors.fingerprint
    mark = replace(anchors.fingerprint, model="org/model", system="line\n---\nlicense: other")
    path = replace(anchors, fingerprint=mark).save(tmp_path / "anchors.safetensors")
    text = card(read_contents(path), address="hub:a/b", licence="mit")
    front = yaml.safe_load(text.split("---")[1])
    assert (front["base_model"], front["license"]) == ("org/model", "mit")
    assert "| system prompt | line --- license&#58; other |" in text
