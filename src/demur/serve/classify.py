"""Prompts judged for others: the model answers each one, and the guard says what it saw.

Fails closed: what could not be judged is blocked, with the reason that other routes give as an error
(see ``rails``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demur.serve.asking import prompt_job
from demur.serve.engine import Engine
from demur.serve.job import Failed, Finished, Job
from demur.serve.limits import Limits
from demur.serve.refusals import Refusal
from demur.serve.wire import GuardrailRequest

#: Why a request is blocked.
FLAGGED = "The model's states while answering look like those of a jailbreak."
UNFINISHED = "The answer could not be judged to its end."


def judging(engines: Mapping[str, Engine]) -> Engine:
    """The first engine that has a guard.

    Raises:
        Refusal: none has.
    """
    for engine in engines.values():
        if engine.guard:
            return engine
    raise Refusal(503, "no_guard", "This server has no guard that could judge.")


def jobs(engine: Engine, texts: Sequence[str], limits: Limits, client: str) -> list[Job]:
    """One answer to each text.

    Raises:
        Refusal: a text is too long.
    """
    made = [prompt_job(engine, text, limits, client) for text in texts]
    for job in made:
        job.events = made[0].events
    return made


async def judged(jobs: Sequence[Job]) -> str:
    """Why any of the answers was flagged or could not be judged; empty where all passed."""
    open_ = set(jobs)
    while open_:
        job, said = await jobs[0].events.get()
        if isinstance(said, Failed):
            return UNFINISHED
        if isinstance(said, Finished):
            if reason := _objection(job, said):
                return reason
            open_.discard(job)
    return ""


def _objection(job: Job, end: Finished) -> str:
    """Empty where the guard read the whole answer and saw nothing."""
    if end.evidence is None or end.evidence["guard_failed"]:
        return UNFINISHED
    if end.evidence["flagged"]:
        return FLAGGED
    cut = end.reason == "length" and end.tokens < job.most
    return UNFINISHED if cut or end.reason == "content_filter" else ""


def require_readable(asked: GuardrailRequest) -> None:
    """Raise Refusal for what cannot be judged: all but texts that ask."""
    if asked.images:
        raise Refusal(400, "unsupported_field", "Images cannot be judged.", "images")
    if asked.tool_calls:
        raise Refusal(400, "unsupported_field", "Tool calls cannot be judged.", "tool_calls")
    if asked.input_type == "response":
        about = "Only requests can be judged: the guard reads this model's own states."
        raise Refusal(400, "unsupported_field", about, "input_type")
