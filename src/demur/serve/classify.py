"""Prompts judged for others: the model answers each one, and the guard says what it saw.

Fails closed: an answer that could not be judged counts as a jailbreak, since those who ask here take
an error for a pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.serve.asking import prompt_job
from demur.serve.engine import Engine
from demur.serve.job import Failed, Finished, Job
from demur.serve.limits import Limits
from demur.serve.refusals import Refusal
from demur.serve.wire import GuardrailRequest

#: Told to a gateway whose request is blocked.
REASON = "The model's states while answering look like those of a jailbreak."


def jobs(engine: Engine, texts: Sequence[str], limits: Limits, client: str) -> list[Job]:
    """One answer to each text.

    Raises:
        Refusal: the model has no guard (503), or a text is too long.
    """
    if engine.guard is None:
        raise Refusal(503, "no_guard", "This server has no guard that could judge.")
    if len(texts) > limits.choices:
        raise Refusal(400, "too_many_choices", "Too many texts.", "texts")
    made = [prompt_job(engine, text, limits, client) for text in texts]
    for job in made:
        job.events = made[0].events
    return made


async def flagged(jobs: Sequence[Job]) -> bool:
    """Whether any answer was flagged or could not be judged."""
    open_ = set(jobs)
    while open_:
        job, said = await jobs[0].events.get()
        if isinstance(said, Failed) or (isinstance(said, Finished) and not _passed(job, said)):
            return True
        if isinstance(said, Finished):
            open_.discard(job)
    return False


def _passed(job: Job, end: Finished) -> bool:
    """Whether the guard read the whole answer and saw nothing."""
    broken_off = end.reason == "content_filter" or (
        end.reason == "length" and end.tokens < job.most
    )
    return end.evidence is not None and not end.evidence["flagged"] and not broken_off


def require_readable(asked: GuardrailRequest) -> None:
    """Raise Refusal for what cannot be judged: images, and answers that another model gave."""
    if asked.images:
        raise Refusal(400, "unsupported_field", "Images cannot be judged.", "images")
    if asked.input_type == "response":
        about = "Only requests can be judged: the guard reads this model's own states."
        raise Refusal(400, "unsupported_field", about, "input_type")
