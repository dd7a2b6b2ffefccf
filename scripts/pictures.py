"""Make the pictures of the documents again, from the built-in models: docs/pictures/.

    python scripts/pictures.py [replay.gif]

The animated replay needs Chromium and Playwright.
"""

from __future__ import annotations

import io
import math
import shutil
import sys
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import demur
from demur.cli.watch import CASE, QUESTION
from demur.guard.shipped import shipped
from demur.judges import refusal_judge
from demur.judges.in_words import in_words
from demur.organism import oracle, world
from demur.sampling import Masked, sampler_with
from demur.types import Trace, Traces
from demur.viz.figures import trajectories
from demur.viz.replay import Scene, replay_html, scene

OUT = Path(__file__).parents[1] / "docs" / "pictures"
COLOURS = ("#e7e9ec", "#f0b27a", "#009e73")


def main(names: list[str]) -> None:
    """Write these pictures, or every one."""
    OUT.mkdir(exist_ok=True)
    if names == ["replay.gif"]:
        replay_picture(OUT / "replay.gif")
        return
    causal, masked = demur.load("organism-ar"), demur.load("organism-dlm")
    attacked = world.prompts("test", "harmful", attack="role_play", n=20)
    runs = {
        "autoregressive": demur.trace(causal, attacked[:1])[0],
        "remasking": demur.trace(masked, attacked[:1])[0],
        "remasking in blocks of 16": demur.trace(
            masked, attacked[:1], sampler=Masked(steps=32, gen_length=64, block_length=16)
        )[0],
        "the same weights in AR order": demur.trace(
            masked,
            attacked[:1],
            sampler=Masked(steps=64, gen_length=64, block_length=64, remasking="left_to_right"),
        )[0],
    }
    (OUT / "steps.svg").write_text(steps_picture(runs))
    _, groups = signal_groups(causal, attacked)
    title = "Mean signal, built-in AR model"
    (OUT / "signal.svg").write_text(str(trajectories(groups, title=title)))
    replay_picture(OUT / "replay.gif")


def steps_picture(runs: dict[str, Trace]) -> str:
    """Positions across, steps down: masked, drafted, committed."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, len(runs))
    for place, (name, trace) in zip(axes, runs.items(), strict=True):
        state = (trace.draft >= 0).astype(int) + (trace.committed >= 0)
        steps, positions = state.shape
        place.imshow(
            state,
            cmap=ListedColormap(COLOURS),
            vmin=0,
            vmax=2,
            aspect="auto",
            interpolation="nearest",
            extent=(0.5, positions + 0.5, steps + 0.5, 0.5),
        )
        place.set_title(name, fontsize=9)
        place.set_xlabel("response position", fontsize=8)
        place.tick_params(labelsize=7)
    axes[0].set_ylabel("step", fontsize=8)
    names = ("no token yet", "draft", "committed")
    keys = [Patch(color=c, label=n) for c, n in zip(COLOURS, names, strict=True)]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def signal_groups(
    model: demur.models.base.LanguageModel, attacked: list[demur.Prompt]
) -> tuple[demur.Anchors, dict[str, np.ndarray]]:
    """Anchors of the AR model, and the signals of three groups of prompts."""
    judge = refusal_judge("paper")
    sets = {
        "harmless": world.prompts("anchors", "harmless", n=60),
        "harmful, plain": world.prompts("anchors", "harmful", n=60),
        "role play": attacked,
    }
    traces = {name: demur.trace(model, prompts, batch_size=32) for name, prompts in sets.items()}
    both = Traces(tuple(traces["harmless"]) + tuple(traces["harmful, plain"]))
    anchors = demur.fit_anchors(both, [judge(t.prompt.goal, t.response).hit for t in both])
    return anchors, {k: demur.signal(anchors.states(v), anchors) for k, v in traces.items()}


def replay_picture(path: Path) -> None:
    """The case of ``demur watch`` as an animation of browser screenshots.

    An attacked question that the autoregressive model answers; the diffusion model, under random
    remasking, drafts the answer and takes it back. Anchors and guards are the shipped ones.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    page_text = f"<body style='margin:12px;background:#fff'>{replay_html(case())}</body>"
    with sync_playwright() as player:
        browser = player.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 900, "height": 100}, reduced_motion="reduce")
        page.set_content(page_text)
        slider = page.locator("input[type=range]").first

        def show(step: int) -> int:
            """Go to a step; how high the page is there, in pixels."""
            slider.evaluate(
                "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }",
                str(step),
            )
            return math.ceil(page.evaluate("document.body.getBoundingClientRect().bottom")) + 12

        last = int(slider.get_attribute("max") or "1")
        steps = range(2 - last % 2, last + 1, 2)
        page.set_viewport_size({"width": 900, "height": max(map(show, steps))})
        frames = []
        for step in steps:
            show(step)
            frames.append(Image.open(io.BytesIO(page.screenshot())).quantize(64, dither=0))
        browser.close()
    durations = [200] * (len(frames) - 1) + [5000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def case() -> list[Scene]:
    """The scenes of the case, each with its verdict."""
    prompt = demur.Prompt(QUESTION, goal=oracle.goal_in(QUESTION))
    scenes = []
    for name, changes in CASE.items():
        model = demur.load(name)
        sampler = sampler_with(model.traits.sampler, changes)
        traces = demur.trace(model, [prompt], sampler=sampler)
        found = shipped(traces.fingerprint)
        assert found, f"run scripts/organism_fitted.py {name} first"
        anchors, guard = found
        sigma = demur.signal(anchors.states(traces), anchors)[0, : traces[0].n_steps]
        flagged_at = int(guard.detect(traces)[0])
        texts = [model.decode(row[row >= 0].tolist()) for row in traces[0].draft]
        words = in_words(
            prompt.goal, texts, sigma=sigma.tolist(), guarded=True, flagged_at=flagged_at
        )
        scenes.append(
            scene(
                traces[0],
                sigma,
                text_of=model.tokenizer.convert_ids_to_tokens,
                title={"organism-ar": "autoregressive", "organism-dlm": "diffusion"}[name],
                refusal_words=oracle.REFUSAL_WORDS,
                harmful_words=oracle.facts(prompt.goal),
                flagged=flagged_at or None,
                verdict=str(words),
            )
        )
    return scenes


if __name__ == "__main__":
    main(sys.argv[1:])
