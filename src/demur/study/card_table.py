"""The cards of the built-in models as one Markdown table, which the README shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from demur.organism import world

#: What ``organism_card.measure`` gave for one arm.
Card = Mapping[str, Any]


def markdown(cards: Mapping[str, Card]) -> str:
    """One Markdown table, a column an arm: arm's name -> its card."""
    columns = list(cards.values())
    lines = [f"| | {' | '.join(cards)} |", "|---" * (len(cards) + 1) + "|"]
    for name, cells in [*_text(columns), *_signals(columns)]:
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _text(cards: Sequence[Card]) -> list[tuple[str, list[str]]]:
    """What the responses say."""
    wrapped = world.ATTACKS[1:]
    right = [
        f"{_number(c['harmless']['none']['capability'])} / "
        f"{_number(min(c['harmless'][a]['capability'] for a in wrapped))}"
        for c in cards
    ]
    refused = [_number(c["harmless"]["none"]["refused"]) for c in cards]
    rows = [
        ("harmless: right answers, plain / worst wrapper", right),
        ("harmless, plain: refused", refused),
    ]
    for attack in world.ATTACKS:
        rates = [c["harmful"][attack] for c in cards]
        cells = [f"{_number(r['refused'])} / {_number(r['harmful'])}" for r in rates]
        rows.append((f"harmful, {attack.replace('_', ' ')}: RR / ASR", cells))
    drafts = [f"{_number(c['hrr'])} / {_number(c['frr'])} ({c['harmful drafts']})" for c in cards]
    return [*rows, ("HRR / FRR (generations with a harmful draft)", drafts)]


def _signals(cards: Sequence[Card]) -> list[tuple[str, list[str]]]:
    """What the states say."""
    internal = []
    for card in cards:
        by_attack = {name: found["irr"]["0.5"] for name, found in card["harmful"].items()}
        plain = by_attack.pop("none")
        internal.append(f"{_number(plain)} / {_number(float(np.mean(list(by_attack.values()))))}")
    return [
        ("IRR at .5, plain harmful / under attack", internal),
        ("sigma (volatility), harmless", [_shape(c["harmless"]["none"]) for c in cards]),
        ("sigma (volatility), plain harmful", [_shape(c["harmful"]["none"]) for c in cards]),
        ("sigma (volatility), jailbroken", [_shape(c["jailbroken"]) for c in cards]),
        ("jailbroken generations", [str(c["jailbroken"]["n"]) for c in cards]),
        ("SRI Guard AUROC, raw / standardised", [_guards(c, "auroc") for c in cards]),
        ("TPR at 1% FPR, raw / standardised", [_guards(c, "tpr_at_1_fpr") for c in cards]),
    ]


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _shape(found: Mapping[str, float]) -> str:
    return f"{_number(found.get('sigma'))} ({_number(found.get('volatility'), 3)})"


def _guards(card: Card, figure: str) -> str:
    scores = [card["guards"].get(name, {}).get(figure) for name in ("sri", "sri standardised")]
    return " / ".join(map(_number, scores))
