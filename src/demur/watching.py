"""Watch a generation while it happens: each step's draft and signal as soon as they are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from demur.errors import InputError, SignalError
from demur.generation import fingerprint, steps, trace
from demur.judges import refusal_judge
from demur.models.base import LanguageModel
from demur.organism import NAMES, world
from demur.sampling import Sampler, sampler_from
from demur.sri import Anchors, fit_anchors, signal
from demur.types import Prompt, Record

#: Prompts of each class behind the anchors of a built-in model.
FEW = 48


@dataclass(frozen=True)
class Sight:
    """What one step shows of one generation.

    Attributes:
        step: 1-based.
        pieces: the response from left to right, each piece with whether it is committed; the others
            are drafts, which may still change.
        sigma: the SRI signal in [0, 1], 1 = complying.
    """

    step: int
    pieces: tuple[tuple[str, bool], ...]
    sigma: float

    @property
    def text(self) -> str:
        """Committed and drafted text as one."""
        return "".join(text for text, _ in self.pieces)


def watch(
    model: LanguageModel, prompt: Prompt | str, *, anchors: Anchors, seed: int = 0
) -> Iterator[Sight]:
    """Generate an answer as the anchors' traces were generated, and show every step of it.

    Steps beyond the anchors' T are compared with their last.

    Args:
        model: from ``demur.load``.
        prompt: what is asked.
        anchors: fitted on this model; they name the sampler, the pooling and the layer.
        seed: of temperature and random remasking.

    Raises:
        SignalError: anchors that do not say what they were made with, or that need to know a
            generation's length.
        FingerprintError: they were made with another model.
    """
    mark = anchors.fingerprint
    if mark is None or anchors.alignment == "resample":
        raise SignalError(
            "These anchors cannot read a stream: "
            + ("they carry no fingerprint." if mark is None else "they are aligned by 'resample'.")
            + " Fit anchors for this model: demur anchors."
        )
    sampler = sampler_from(mark.sampler)
    record = Record(layers=(anchors.layer,), pooling=mark.pooling, seed=seed)
    mark.require(
        fingerprint(model, sampler, record),
        what="These anchors were not made with this model",
        fix="Fit anchors for it: demur anchors.",
    )
    for step in steps(model, [prompt], sampler=sampler, record=record):
        place = min(step.index, anchors.steps) - 1
        now = replace(
            anchors,
            harmless=anchors.harmless[place : place + 1],
            harmful=anchors.harmful[place : place + 1],
        )
        sigma = signal(step.phi[anchors.layer].float().cpu().numpy(), now)[-1]
        committed, draft = step.tokens[0].tolist(), step.draft[0].tolist()
        yield Sight(step.index, _pieces(model, committed, draft), float(sigma))


def _pieces(
    model: LanguageModel, committed: list[int], draft: list[int]
) -> tuple[tuple[str, bool], ...]:
    """Runs of tokens that are committed or not, as text."""
    known = [place for place, token in enumerate(draft) if token >= 0]
    ids, pieces, said = list[int](), [], ""
    for settled, run in groupby(known, key=lambda place: committed[place] >= 0):
        # The text of a run depends on what comes before it: decoding goes on from the beginning.
        ids += [draft[place] for place in run]
        text = model.decode(ids)
        pieces.append((text[len(said) :], settled))
        said = text
    return tuple((text, settled) for text, settled in pieces if text)


def built_in_anchors(model: LanguageModel, sampler: Sampler | None = None) -> Anchors:
    """Anchors of a built-in model, made in seconds from a few prompts of its world.

    Args:
        model: one of the built-in models.
        sampler: the model's default when None.

    Raises:
        InputError: not a built-in model, whose harmless and harmful prompts are not known here.
    """
    if model.name not in NAMES:
        raise InputError(
            f"No anchors for {model.name}. Trace harmless and harmful prompts, run: demur anchors "
            "RUN RUN --out FILE, and pass it with --anchors."
        )
    sides = [world.prompts("anchors", kind, n=FEW) for kind in ("harmless", "harmful")]
    harmless, harmful = (trace(model, side, sampler=sampler, batch_size=FEW) for side in sides)
    traces = harmless + harmful
    judge = refusal_judge("paper")
    return fit_anchors(traces, (judge(t.prompt.goal, t.response).hit for t in traces))
