"""How the rails of other tools are answered.

They take an error for a pass, so that on their routes what cannot be judged is blocked.
"""

from __future__ import annotations

from typing import Any

#: NeMo Guardrails' jailbreak classifier and LiteLLM's generic guardrail.
NEMO, LITELLM = "/classify", "/beta/litellm_basic_guardrail_api"

#: A wrong key, place or method says nothing of a prompt, and stays an error.
_ERRORS = (401, 404, 405)


def verdict(path: str, reason: str | None) -> dict[str, Any]:
    """What the rail on this route is told: blocked for a reason, or passed where there is none."""
    if path == NEMO:
        return {"jailbreak": bool(reason), **({"reason": reason} if reason else {})}
    return {"action": "BLOCKED", "blocked_reason": reason} if reason else {"action": "NONE"}


def blocks(path: str, status: int) -> bool:
    """Whether a refusal with this status is a blocked prompt on this route."""
    return path in (NEMO, LITELLM) and status not in _ERRORS
