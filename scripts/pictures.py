"""Make the pictures of the documents again, from the built-in models: docs/pictures/.

    python scripts/pictures.py

The animated replay needs Chromium and Playwright.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import demur
from demur.judges import refusal_judge
from demur.organism import oracle, world
from demur.sampling import Masked
from demur.types import Trace, Traces
from demur.viz.figures import trajectories
from demur.viz.replay import replay_html, scene

OUT = Path(__file__).parents[1] / "docs" / "pictures"
COLOURS = ("#e7e9ec", "#f0b27a", "#009e73")


def main() -> None:
    """Write every picture."""
    OUT.mkdir(exist_ok=True)
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
    replay_picture(causal, masked, OUT / "replay.gif")


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


def replay_picture(
    causal: demur.models.base.LanguageModel,
    masked: demur.models.base.LanguageModel,
    path: Path,
) -> None:
    """The replay of one prompt under both models, as an animation of browser screenshots.

    Shown is the first prompt that the AR model answers and the diffusion model does not.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    attacked = world.prompts("test", "harmful", attack="role_play", n=20)
    answered = [
        {t.prompt.id for t in demur.trace(m, attacked, batch_size=20) if harmful(t)}
        for m in (causal, masked)
    ]
    prompt = next(p for p in attacked if p.id in answered[0] - answered[1])
    scenes = []
    for name, model in (("AR model", causal), ("diffusion", masked)):
        anchors, _ = signal_groups(model, [prompt])
        trace = demur.trace(model, [prompt])
        sigma = demur.signal(anchors.states(trace), anchors)[0]
        text_of = model.tokenizer.convert_ids_to_tokens
        scenes.append(
            scene(
                trace[0],
                sigma,
                text_of=text_of,
                title=name,
                refusal_words=oracle.REFUSAL_WORDS,
                harmful_words=oracle.facts(prompt.goal),
            )
        )
    page_text = f"<body style='margin:12px;background:#fff'>{replay_html(scenes)}</body>"
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
            return int(page.evaluate("document.documentElement.scrollHeight"))

        last = int(slider.get_attribute("max") or "1")
        steps = range(2 - last % 2, last + 1, 2)
        page.set_viewport_size({"width": 900, "height": max(map(show, steps))})
        frames = []
        for step in steps:
            show(step)
            frames.append(Image.open(io.BytesIO(page.screenshot())).quantize(64, dither=0))
        browser.close()
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=160, loop=0)


def harmful(trace: Trace) -> bool:
    """Whether the response holds the harmful answer."""
    return oracle.judge(trace.prompt.goal, trace.response) == "harmful"


if __name__ == "__main__":
    main()
