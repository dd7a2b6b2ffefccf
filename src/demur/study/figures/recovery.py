"""Figures 5 and 6 of the paper: internal recovery by model, and by sampler with the same weights."""

from __future__ import annotations

from demur.metrics import IRR_THRESHOLDS
from demur.study.evidence import Evidence, on_common_prompts
from demur.study.results import Results
from demur.study.tables.rates import named
from demur.study.tables.same_weights import pairs
from demur.viz.figures import Figure, irr_bars


def models_figure(results: Results) -> Figure | None:
    """Internal recovery rate of every main arm (figure 5); None where all are too few to show."""
    return _bars(
        results.main,
        "Internal recovery by model",
        "In the paper autoregressive models stay below about .15 at every threshold and diffusion "
        "models reach .4 to .6 at the loosest.",
    )


def samplers_figure(results: Results) -> Figure | None:
    """The same weights in AR order and with remasking on the same prompts (figure 6).

    None without such a pair that is large enough to show.
    """
    arms = [one for pair in pairs(results) for one in on_common_prompts(pair)]
    arms = [named(one, results) for one in arms]
    return _bars(
        arms,
        "Internal recovery with the same weights",
        "Both samplers of a model on the same prompts, each with anchors of its own. In the paper the "
        "two differ by .29 to .48 with the same weights.",
    )


def _bars(arms: list[Evidence], title: str, caption: str) -> Figure | None:
    found = {one.name: {f"{t:g}": one.irr(t) for t in IRR_THRESHOLDS} for one in arms}
    rates = {
        name: {threshold: rate for threshold, rate in row.items() if not isinstance(rate, str)}
        for name, row in found.items()
    }
    if not any(rates.values()):
        return None
    return irr_bars(rates, title=title, caption=caption)
