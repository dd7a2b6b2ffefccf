"""What samplers and kinds of models do, in words."""

from __future__ import annotations

from collections.abc import Iterator

from demur.study.evidence import FEWEST, Evidence, Shown
from demur.study.figures.causality import block_length, one_a_step
from demur.study.finding import Finding, agreement, estimates, kinds, over_pairs, span, told
from demur.study.results import Results
from demur.study.tables.same_weights import changes, pairs
from demur.viz.tables import show


def same_weights(results: Results) -> Iterator[Finding]:
    """AR order against remasking, model by model."""
    for ordered, remasked in pairs(results):
        about = f"The sampler alone, model “{remasked.model}”"
        shown_in = ("Same weights: from AR order to remasking",)
        refusals, cut = changes(ordered, remasked, "all")
        if isinstance(cut, str) or isinstance(refusals, str):
            text = "Too few prompts were put to both samplers to tell them apart."
            yield Finding(about, text, "cannot be told", shown_in)
            continue
        found = agreement(cut)
        verb = {
            "appears": "fewer attacks succeed",
            "does not appear": "more attacks succeed, against the paper",
        }.get(found, "no difference in attack success can be told apart from chance")
        yield Finding(
            about,
            f"With the same weights, from AR order to remasking {verb} (cut in ASR {show(cut)}), and "
            f"the refusal rate changes by {show(refusals)}.",
            found,
            shown_in,
        )


def continuum(results: Results) -> Iterator[Finding]:
    """ASR along block lengths."""
    arms = [one for one in results.group("continuum") if one_a_step(one)]
    for model in dict.fromkeys(one.model for one in arms):
        found = {block_length(one): asr(one) for one in arms if one.model == model}
        said = "; ".join(f"{block}: {show(rate)}" for block, rate in sorted(found.items()))
        yield Finding(
            f"Between AR order and remasking, model “{model}”",
            "One token a step, the attack success rate by block length, from AR order to the whole "
            f"response: {said}.",
            "no claim",
            (
                "The same weights from AR order to full-parallel remasking",
                f"From AR order to one block: {model}",
            ),
        )


def attacks(results: Results) -> Iterator[Finding]:
    """ASR of both kinds of models."""
    causal, diffusion = (estimates(map(asr, arms)) for arms in kinds(results))
    if not causal or not diffusion:
        return
    found, said = over_pairs(causal, diffusion)
    yield Finding(
        "Kinds of models under attack",
        f"The attack success rate is {span(one.value for one in causal)} for {len(causal)} "
        f"autoregressive arms and {span(one.value for one in diffusion)} for {len(diffusion)} "
        f"diffusion arms (an arm is a model with a sampler): {said}.",
        found,
        ("Refusals and successful attacks",),
    )


def recovery(results: Results) -> Iterator[Finding]:
    """HRR of diffusion models."""
    few = []
    for one in kinds(results)[1]:
        rate = one.recovery()[0]
        if isinstance(rate, str):
            few.append(f"“{one.name}” ({one.entered.sum()})")
            continue
        most = rate.low > 0.5
        yield Finding(
            f"Drafts taken back, model “{one.name}”",
            f"Of {rate.n} generations with a harmful draft {show(rate)} take it back at some "
            f"step{'' if most else '; the paper finds most of them'}.",
            told(most, rate.high < 0.5),
            ("Recovery from harmful drafts",),
        )
    if few:
        yield Finding(
            "Drafts taken back",
            f"Too few generations have a harmful draft (of {FEWEST} goals) to say how often one is "
            f"taken back: {', '.join(few)}.",
            "cannot be told",
            ("Recovery from harmful drafts",),
        )


def internal(results: Results) -> Iterator[Finding]:
    """IRR of both kinds of models."""
    causal, diffusion = (estimates(one.irr(0.5) for one in arms) for arms in kinds(results))
    if not causal or not diffusion:
        return
    found, said = over_pairs(diffusion, causal)
    yield Finding(
        "Recovery inside",
        f"The internal recovery rate at theta = .5 is {span(one.value for one in causal)} for "
        f"autoregressive arms and {span(one.value for one in diffusion)} for diffusion arms: "
        f"{said}.",
        found,
        (
            "Recovery from harmful drafts",
            "Internal recovery by how the generation ended",
            "Internal recovery by model",
        ),
    )


def asr(one: Evidence) -> Shown:
    """Attack success rate over every attack together."""
    return one.rate(one.succeeded, one.rows("harmful", "wrapped"))
