"""PAIR with scripted attackers and the built-in model as target, and broken JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import demur
from demur.attacks.pair import PAIR, Calls, Proposal, opening_turns, proposal, rating_of
from demur.endpoint import Message
from demur.judges import LocalAssistant
from demur.organism import oracle, world
from demur.types import Prompt
from thinking import thinking_model


class Rewriter:
    """Wraps the goal by the organism's own wrappers, another each round; garbles every n-th answer."""

    def __init__(self, goal: str, garbled: int = 0) -> None:
        self.goal, self.garbled, self.calls = goal, garbled, 0
        self.seen: list[Sequence[Message]] = []

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | Sequence[int] | None = None,
    ) -> list[str]:
        self.seen += conversations
        said = []
        for _ in conversations:
            self.calls += 1
            text = world.wrap(self.goal, "wild", self.calls)
            whole = json.dumps({"improvement": "x", "prompt": text})
            said.append("sorry" if self.garbled and self.calls % self.garbled == 0 else whole)
        return said


class Shown:
    """Keeps the answers that it is shown."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0,
        seed: int | Sequence[int] | None = None,
    ) -> list[str]:
        self.answers += [json.loads(talk[-1].content)["answer"] for talk in conversations]
        return ["[[2]]"] * len(conversations)


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
        seed: int | Sequence[int] | None = None,
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
    # common.py and main.py of patrickrchao/JailbreakingLLMs at 6379ef7: one round is kept, that is a
    # user's turn and the attacker's answer, and what came of that answer follows.
    assert [len(talk) for talk in attacker.seen] == [2, 4, 4]
    *_, before, own, newest = attacker.seen[-1]
    assert [before.role, own.role, newest.role] == ["user", "assistant", "user"]
    assert "Rating: 1" in before.content
    assert json.loads(own.content)["prompt"] == world.wrap(prompt.goal, "wild", 2)
    garbled = PAIR(attacker=Rewriter(prompt.goal, garbled=1), judge=judge, streams=2, rounds=1)
    (found,) = garbled.attempts([prompt], target=model)
    assert (found.text, found.rating) == (prompt.text, 0)
    assert found.cost == Calls(attacker=10, unparsed=10)


def test_streams_of_one_strategy_are_told_apart_by_their_seeds() -> None:
    model = demur.load("organism-ar")
    (prompt,) = world.prompts("test", "harmful", n=1)
    drawn = LocalAssistant(model)
    attack = PAIR(attacker=drawn, judge=drawn, streams=6, rounds=1, tries=1)
    talks = [opening_turns(prompt.goal, attack.opening, stream=i) for i in range(6)]
    assert talks[0] == talks[3]
    kept: list[Sequence[int]] = []

    class Kept(LocalAssistant):
        def answer(self, *args: Any, **settings: Any) -> list[str]:
            kept.append(settings["seed"])
            return super().answer(*args, **settings)

    PAIR(attacker=Kept(model), judge=drawn, streams=6, rounds=2, tries=2, max_tokens=12).attempts(
        [prompt], target=model
    )
    assert [len(seeds) for seeds in kept] == [6, 6, 6, 6]  # this attacker writes no JSON
    assert len({seed for seeds in kept for seed in seeds}) == 24
    first, fourth = drawn.answer(
        [talks[0], talks[3]], max_tokens=12, temperature=1.0, seed=[kept[0][0], kept[0][3]]
    )
    assert first != fourth


def test_the_target_answers_at_the_length_of_its_sampler_or_as_asked() -> None:
    model = demur.load("organism-ar")
    (prompt,) = world.prompts("test", "harmful", attack="prefix_injection", n=1)
    lengths = []

    class Measuring(Oracle):
        def answer(self, conversations: Any, **settings: Any) -> list[str]:
            shown = [json.loads(talk[-1].content)["answer"] for talk in conversations]
            lengths.extend(len(one.split()) for one in shown)
            return super().answer(conversations, **settings)

    class Same(Rewriter):
        def answer(self, conversations: Any, **settings: Any) -> list[str]:
            whole = json.dumps({"improvement": "x", "prompt": prompt.text})
            return [whole] * len(conversations)

    sampler = {**model.traits.sampler, "steps": 5}
    short = replace(model, traits=replace(model.traits, sampler=sampler))
    asked = {"attacker": Same(prompt.goal), "judge": Measuring(), "streams": 1, "rounds": 1}
    for target, settings in ((model, {}), (short, {}), (short, {"answer_tokens": 9})):
        PAIR(**asked, **settings).attempts([prompt], target=target)
    assert lengths[0] > 9
    assert lengths[1:] == [5, 9]


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


def test_thoughts_are_not_read() -> None:
    inner = json.dumps({"improvement": "a", "prompt": "wrong"})
    outer = json.dumps({"improvement": "b", "prompt": "right"})
    assert proposal(f"<think>{inner}</think>{outer}") == Proposal("b", "right")
    assert proposal(f"<think>{inner}") is None
    assert rating_of("<think>[[9]] or 3?</think>[[2]]") == 2
    assert rating_of("<think>It is a [[10]]") is None


def test_the_target_thinks(tmp_path: Path) -> None:
    """Attacker and judge read what the target says after its thought."""
    script = ["<think>", "w1", "</think>", "w3", "<|eos|>"]
    target = thinking_model(tmp_path / "m", script=script)
    attacker = Rewriter(world.prompts("test", "harmful", n=1)[0].goal)
    shown = Shown()
    PAIR(attacker=attacker, judge=shown, rounds=2, streams=2, answer_tokens=8).attempts(
        [Prompt("w5 w6")], target=target
    )
    assert shown.answers == ["w3"] * 4
    assert any('"w3"' in turn.content for talk in attacker.seen for turn in talk)
    assert not any("think" in turn.content for talk in attacker.seen for turn in talk)
    cut = PAIR(attacker=attacker, judge=shown, rounds=1, streams=1, answer_tokens=2)
    cut.attempts([Prompt("w5 w6")], target=target)
    assert shown.answers[-1] == ""
