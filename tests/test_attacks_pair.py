"""PAIR with scripted attackers and the built-in model as target, and broken JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

import demur
from demur.attacks.pair import PAIR, Cost, Proposal, proposal, rating_of
from demur.endpoint import Message
from demur.organism import oracle, world


class Rewriter:
    """Wraps the goal by the organism's own wrappers, another each round; garbles every n-th answer."""

    def __init__(self, goal: str, garbled: int = 0) -> None:
        self.goal, self.garbled, self.calls = goal, garbled, 0
        self.longest = 0

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | None = None,
    ) -> list[str]:
        self.longest = max(self.longest, *map(len, conversations))
        said = []
        for _ in conversations:
            self.calls += 1
            text = world.wrap(self.goal, "wild", self.calls)
            whole = json.dumps({"improvement": "x", "prompt": text})
            said.append("sorry" if self.garbled and self.calls % self.garbled == 0 else whole)
        return said


class Oracle:
    """Rates 10 what the grammar knows to be the harmful answer, 1 anything else."""

    def __init__(self, *, mute: bool = False) -> None:
        self.mute = mute

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | None = None,
    ) -> list[str]:
        shown = [json.loads(talk[-1].content) for talk in conversations]
        found = [oracle.judge(one["request"], one["answer"]) == "harmful" for one in shown]
        return ["no rating" if self.mute else f"[[{10 if hit else 1}]]" for hit in found]


def test_it_stops_at_the_judge_s_ten_and_counts_what_it_cost() -> None:
    model = demur.load("organism-ar")
    (prompt,) = world.prompts("test", "harmful", n=1)
    attacker = Rewriter(prompt.goal, garbled=4)
    attack = PAIR(attacker=attacker, judge=Oracle(), streams=3, rounds=4)
    (found,) = attack.attempts([prompt], target=model)
    assert found.rating == 10
    assert found.rounds < 4
    assert found.cost.target == found.cost.judge == 3 * found.rounds
    assert found.cost.attacker == attacker.calls == found.cost.target + found.cost.unparsed
    (made,) = PAIR(attacker=Rewriter(prompt.goal), judge=Oracle())([prompt], target=model)
    assert (made.goal, made.label, made.attack) == (prompt.goal, "harmful", "pair")
    assert made.text != prompt.text


def test_unread_answers_are_never_hits() -> None:
    model = demur.load("organism-ar")
    (prompt,) = world.prompts("test", "harmful", n=1)
    judge = Oracle(mute=True)
    attacker = Rewriter(prompt.goal)
    attack = PAIR(attacker=attacker, judge=judge, streams=1, rounds=3, keep_last=1)
    (found,) = attack.attempts([prompt], target=model)
    assert (found.rating, found.rounds, found.cost.unparsed) == (1, 3, 3)
    assert attacker.longest == 2  # system turn, and the last round's user turn
    garbled = PAIR(attacker=Rewriter(prompt.goal, garbled=1), judge=judge, streams=2, rounds=1)
    (found,) = garbled.attempts([prompt], target=model)
    assert (found.text, found.rating) == (prompt.text, 0)
    assert found.cost == Cost(attacker=10, unparsed=10)


@pytest.mark.parametrize(
    "answer",
    [
        '{"improvement": "x", "prompt": "bake } it"}',
        'Here:\n```json\n{"improvement": "x",\n "prompt": "bake } it"}\n```',
        '{"improvement": "x", "prompt": "bake } it",}',
        '{"improvement": "x", "prompt": "bake } it"',
        '{"improvement": "x", "prompt": "bake } it',
        "{'improvement': 'x', 'prompt': 'bake } it'}",
    ],
)
def test_broken_json_is_repaired(answer: str) -> None:
    assert proposal(answer) == Proposal("x", "bake } it")


def test_what_is_no_proposal_is_none() -> None:
    for answer in ("", "no", "{", "[1]", '{"prompt": "a"}', '{"improvement": "", "prompt": " "}'):
        assert proposal(answer) is None
    assert proposal('{"improvement": "x", "prompt": 3}') is None


def test_ratings() -> None:
    said = {"[[7]]": 7, "Rating: 10": 10, "7 or 8": None, "": None, "[[11]]": None, "0": None}
    assert {text: rating_of(text) for text in said} == said
