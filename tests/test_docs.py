"""Every fence of the documents is checked, each in a way that ``way`` names.

``sh`` and ``python`` run page by page in an empty folder, or in the folder that another page left
where they say so; ``title=NAME.ending`` makes a file first. Servers run until the end of their page,
the hub is a stand-in on loopback. A fence whose title says what it needs (``on a machine with ...``)
is not run: its ``demur`` commands are parsed by the real command line, its Python by the compiler.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml

from commanded import Desk
from demur.plugins import AXES
from demur.prompts.sets import SETS
from hub_standin import hub

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import hooks  # noqa: E402

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```", re.M | re.S)
NAMED = re.compile(r'title="([\w-]+\.\w+)"')

#: Page -> the page whose folder it goes on in, as its text says.
AFTER = {
    "howto/attack.md": "howto/guard.md",
    "howto/serve.md": "howto/guard.md",
    "howto/share.md": "howto/guard.md",
    "integrations.md": "howto/guard.md",
}

#: Titles of fences that are not run here, and what stands in for running them.
ELSEWHERE = {
    "from a clone": "its targets are the Makefile's, which the README's test knows too",
    "on a machine with the weights": "parsed by the command line",
    "on a cluster": "parsed by the command line; test_cluster.py runs it",
    "from a clone, with garak installed": "the script is there",
    "from a clone, with lm_eval installed": "the script is there; the server is parsed",
    "on a machine with vLLM": "compiled; what it gives is read from a recorded file below",
    "on a machine with SGLang": "compiled; what it gives is read from a recorded answer below",
}

#: Titles of Python that runs with what an engine left, in the format that test_adapters.py records.
RECORDED = {"with an output of vLLM": "vllm", "with an answer of SGLang": "sglang"}

#: Fences without a language show something; nothing in them can run.
SHOWN = {
    ("architecture.md", "prompts ──> encode"),
    ("concepts/signal.md", "sigma = sigmoid"),
}

#: Words other than demur that unrun fences may begin with, each checked in ``test_elsewhere``.
OTHERS = ("make", "python", "scripts/")


@dataclass(frozen=True)
class Fence:
    """One fenced block.

    Attributes:
        page: below ``docs``.
        info: what stands behind the backticks.
        text: what is inside.
    """

    page: str
    info: str
    text: str

    @property
    def language(self) -> str:
        """First word of the info."""
        return self.info.split(" ")[0]

    @property
    def title(self) -> str:
        """Its title, empty where it has none."""
        found = re.search(r'title="([^"]+)"', self.info)
        return found[1] if found else ""

    @property
    def way(self) -> str:
        """How it is checked."""
        if any(self.page == page and self.text.strip().startswith(w) for page, w in SHOWN):
            return "shown"
        if NAMED.search(self.info):
            return "file"
        if self.title in ELSEWHERE:
            return "elsewhere"
        if self.title in RECORDED and self.language == "python":
            return "recorded"
        if self.language in ("sh", "python") and not self.title:
            return "run"
        if self.language == "toml":
            return "entry point"
        return ""


@cache
def fences() -> tuple[Fence, ...]:
    """All of the documents, page by page."""
    return tuple(
        Fence(path.relative_to(DOCS).as_posix(), info.strip(), text)
        for path in sorted(DOCS.rglob("*.md"))
        for info, text in FENCE.findall(path.read_text("utf-8"))
    )


RUNNING = sorted({fence.page for fence in fences() if fence.way in ("run", "recorded")})


def test_every_fence_has_its_way() -> None:
    assert not [(f.page, f.info, f.text[:40]) for f in fences() if not f.way]
    assert {f.title for f in fences() if f.way == "elsewhere"} == set(ELSEWHERE)
    assert {f.title for f in fences() if f.way == "recorded"} == set(RECORDED)
    ways = [f.way for f in fences()]
    assert ways.count("run") > 40
    assert ways.count("elsewhere") < ways.count("run") / 3


def test_nothing_stands_in_a_block_that_is_only_indented() -> None:
    for path in DOCS.rglob("*.md"):
        text = FENCE.sub("", path.read_text("utf-8"))
        for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
            code = line.startswith("    ") and not before.strip()
            assert not code, f"{path}: {line}"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with ExitStack() as stack:
        place = stack.enter_context(hub())
        environment = {
            "HF_ENDPOINT": place.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "hf_not-a-real-token-0123456789",
        }
        yield Workshop(tmp_path_factory.mktemp("docs"), environment)


class Workshop:
    """The folders of the pages, each page run once."""

    def __init__(self, place: Path, hub: dict[str, str]) -> None:
        self.place, self.hub = place, hub
        self.done: dict[str, Path] = {}

    def run(self, page: str) -> Path:
        """Run a page, after the one it goes on from; its folder."""
        if page in self.done:
            return self.done[page]
        folder = self.place / page.replace("/", "-").removesuffix(".md")
        if before := AFTER.get(page):
            shutil.copytree(self.run(before), folder)
        else:
            folder.mkdir()
        with Desk(folder, **self.hub) as desk:
            for fence in (f for f in fences() if f.page == page):
                if named := NAMED.search(fence.info):
                    (folder / named[1]).write_text(fence.text, "utf-8")
                elif fence.way == "recorded":
                    desk.python(recorded(RECORDED[fence.title]) + fence.text)
                elif fence.way == "run":
                    desk.shell(fence.text) if fence.language == "sh" else desk.python(fence.text)
        self.done[page] = folder
        return folder


@pytest.mark.parametrize("page", RUNNING)
def test_page_runs(page: str, workshop: Workshop) -> None:
    workshop.run(page)


def recorded(engine: str) -> str:
    """Python that makes what an engine gives, in its recorded format, from the built-in model."""
    return RECORDING + {"vllm": VLLM, "sglang": SGLANG}[engine]


RECORDING = """
from types import SimpleNamespace
import torch
from safetensors.torch import save_file
import demur
from demur.organism import path
from demur.sampling import Autoregressive

MODEL, SYSTEM, text = str(path("organism-ar")), "", "how can i bake a cake ?"
model = demur.load("organism-ar")
end_ids = model.traits.end_ids
made = demur.trace(model, [text], sampler=Autoregressive(steps=32))[0]
ids = model.encode([demur.Prompt(text)]).ids
whole = torch.cat([ids, torch.tensor(made.response_ids[None].astype("int64"))], 1)
with torch.inference_mode():
    states = model.states(whole, None, layers=("last", "4"))
"""

VLLM = """
hidden = states["4"][0, :-1, None].contiguous()
save_file({"hidden_states": hidden, "token_ids": whole[0, :-1].contiguous()}, "states.safetensors")
output = SimpleNamespace(
    kv_transfer_params={"hidden_states_path": "states.safetensors"},
    outputs=[SimpleNamespace(token_ids=made.response_ids.tolist(), text=made.response)],
)
"""

SGLANG = """
rows, count = states["last"][0, :-1].tolist(), ids.shape[1]
answer = {
    "text": made.response,
    "output_ids": made.response_ids.tolist(),
    "meta_info": {"prompt_tokens": count, "hidden_states": [rows[:count], *rows[count:]]},
}
"""


@pytest.mark.parametrize(
    "fence",
    [f for f in fences() if f.way == "elsewhere"],
    ids=lambda f: f"{f.page}, {f.title}".replace(" ", "-"),
)
def test_elsewhere(fence: Fence) -> None:
    if fence.language == "python":
        ast.parse(fence.text)
        return
    for line in fence.text.strip().splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "demur":
            parsed(words[1:])
        elif words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        else:
            assert words[0].startswith(OTHERS), line
            scripts = [ROOT / word for word in words if word.startswith("scripts/")]
            assert all(os.access(script, os.R_OK) for script in scripts)
            for script in scripts:
                options = [word for word in words if word.startswith("--")]
                assert all(option in script.read_text() for option in options)


def parsed(words: list[str]) -> None:
    """Let demur's command line parse a command, and not run it."""
    from demur.cli import app

    command = typer.main.get_command(app)
    while words[0] == "--plugin":
        words = words[2:]
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("demur", list(words))


def test_indented_commands_of_the_readme_are_commands() -> None:
    text = FENCE.sub("", (ROOT / "README.md").read_text())
    lines = re.findall(r"^    (\S.*)$", text, re.M)
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[0] == "demur":
            parsed(words[1:])
        else:
            assert words[0] == "make", line
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()


def test_gateways_are_sent_to_routes_that_are_there() -> None:
    from demur.serve.rails import router

    routes = {route.path for route in router.routes}
    files = {
        NAMED.search(f.info)[1]: f.text
        for f in fences()
        if f.page == "howto/serve.md" and f.way == "file"
    }
    nemo = yaml.safe_load(files["config.yml"])["rails"]
    rail = nemo["config"]["jailbreak_detection"]
    assert rail["nim_server_endpoint"] in routes
    assert nemo["input"]["flows"] == ["jailbreak detection model"]
    (lite,) = yaml.safe_load(files["config.yaml"])["guardrails"]
    assert lite["litellm_params"]["guardrail"] == "generic_guardrail_api"
    assert "/beta/litellm_basic_guardrail_api" in routes
    assert lite["litellm_params"]["api_base"] == rail["nim_base_url"] == "http://localhost:8000"


@pytest.mark.parametrize(
    "fence", [f for f in fences() if f.way == "entry point"], ids=lambda f: f.page
)
def test_entry_points_name_a_group_that_is_looked_up(fence: Fence) -> None:
    ((group, names),) = tomllib.loads(fence.text)["project"]["entry-points"].items()
    assert group.removeprefix("demur.") in AXES
    (target,) = names.values()
    module, _, attribute = target.partition(":")
    (file,) = [f for f in fences() if f.page == fence.page and f.way == "file"]
    assert NAMED.search(file.info)[1] == f"{module.split('.')[-1]}.py"
    assert not attribute or attribute in file.text


def test_prompt_sets_and_the_paper_s_files_are_told() -> None:
    told = (DOCS / "howto" / "trace.md").read_text()
    assert all(f"`{name}`" in told for name in SETS)
    study = yaml.safe_load((ROOT / "src/demur/study/paper.yaml").read_text())
    needed = {part["source"] for parts in study["sets"].values() for part in parts}
    page = (DOCS / "paper.md").read_text()
    assert {name for name in needed if name.endswith(".csv")} == set(
        re.findall(r"`(\w+\.csv)`", page)
    )


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    pages = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    assert pages | {"reference/cli.md", "reference/python.md"} == listed


def test_pages_from_the_code_name_every_command_and_public_name() -> None:
    import demur

    commands = hooks.command_page()
    assert all(
        f"## demur {verb}" in commands for verb in ("watch", "trace", "plugins", "study run")
    )
    names = hooks.python_page()
    assert all(f"::: demur.{name}\n" in names for name in demur.__all__)
    assert "::: demur.errors.InputError\n" in names
