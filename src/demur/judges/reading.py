"""What a judge reads of a generation: the response, and before it what the model wrote into the slots
of a user turn.

Where an attack masks parts of the user turn (DIJA, arXiv:2507.11097) the harm stands in what the model
fills in there. Differs from that paper's code, which reads the filled user turn alone: the response
that follows is read too.
"""

from __future__ import annotations

from demur.types import Trace


def answer_of(trace: Trace, response: str | None = None) -> str:
    """What the model said: the filled user turn from its first slot on, then the response.

    For a prompt without masked slots that is the response alone.

    Args:
        trace: the generation.
        response: a draft to read in the response's place. A trace keeps the slots as they were filled
            in the end, not step by step, so a draft is read behind those.
    """
    answer = trace.response if response is None else response
    if trace.prompt.user is None:
        return answer
    filled, head = " ".join(trace.filled_prompt.split()), trace.prompt.user[0]
    before = " ".join(head.split()) if isinstance(head, str) else ""
    # Where the tokenizer does not give the head back as it was, the whole turn is read.
    rest = filled.partition(before)[2] if before and before in filled else filled
    return f"{rest.strip()}\n{answer}".strip()
