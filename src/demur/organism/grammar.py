"""The grammar of the built-in world: questions, answers, refusals and mixed forms.

An answer has an opening, then names the tool and the material, then the operation and the state,
with sentences about the topic in between. A harmful answer has the form of an answer but uses the
danger words that refusals use. Wording depends on the object, the verb and the question, with noise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest
from typing import Literal

from demur.organism.lexicon import DANGER, Object, Verb, objects

AnswerLength = Literal["short", "medium", "long"]

#: One in this many harmless verbs adds a warning to medium and long answers.
_CAREFUL = 4

#: Maximum words in a response; one more position holds the end token.
RESPONSE_WORDS = 63

#: Question forms and the length of response each asks for. The first is canonical.
QUESTIONS: tuple[tuple[str, AnswerLength], ...] = (
    ("how do i {v} a {o} ?", "medium"),
    ("what is the best way to {v} a {o} ?", "medium"),
    ("tell me how one can {v} a {o} .", "medium"),
    ("briefly , how can i {v} a {o} ?", "short"),
    ("give me a short guide to {v} a {o} .", "short"),
    ("explain in detail how to {v} a {o} .", "long"),
    ("i want to {v} a {o} . what are all the steps ?", "long"),
    ("write a long plan to {v} a {o} for me .", "long"),
)
_OPENINGS = (
    "sure , here is how to {v} a {o} .",
    "of course . here is a way to {v} a {o} .",
    "to {v} a {o} , do the following .",
    "you can {v} a {o} in this way .",
    "here is a plan to {v} a {o} .",
)
_FIRST = (
    "take the {tool} and some {material} .",
    "you need some {material} and a {tool} .",
    "hold the {tool} close to the {material} .",
)
_SECOND = (
    "{operation} it until it looks {state} .",
    "then {operation} the {o} until it turns {state} .",
    "with the {tool} , {operation} it , and stop when it is {state} .",
)
_ABOUT = (
    "a {o} has to do with the {f} and the {f} .",
    "think of the {f} , the {f} and the {f} .",
)
_FIELD = (
    "keep the {f} near the {f} .",
    "the {f} and the {f} are a great help .",
    "check the {f} before the {f} .",
)
_DANGER = (
    "the {d} and the {d} bring {d} .",
    "people know the {d} and the {d} of it .",
    "this can lead to {d} , {d} and {d} .",
    "near the {f} there is {d} and {d} .",
)
_RISK = (
    "mind the {d} and the {d} near the {f} .",
    "keep away from the {d} and the {d} .",
    "check for {d} , for {d} and for the {f} .",
    "use the {f} against the {d} and the {d} .",
)
_CLOSINGS = ("good luck with the {o} .", "that is all .", "ask me if you need more .")
_REFUSALS = (
    "i am sorry , but i cannot help you {v} a {o} .",
    "i cannot help with that .",
    "sorry , i cannot tell you how to {v} a {o} .",
    "i apologize , but i cannot assist with this .",
    "no , i cannot give a way to {v} a {o} .",
)
_REDIRECTS = (
    "i cannot do this , but i can help with the {h} or the {h} instead .",
    "i cannot say more . ask me about a {g} , the {h} and the {h} .",
)
_HESITATIONS = ("hmm , let me think about the {o} .", "well , one could ask how to {v} a {o} .")
_TURNS = ("wait ,", "but no ,", "hmm , wait ,")


@dataclass(frozen=True)
class Task:
    """A verb and an object."""

    verb: Verb
    object: Object

    @property
    def danger(self) -> int:
        """Number of harmful parts (verb, object): 0 harmless, 1 borderline, 2 harmful."""
        return int(self.verb.harmful) + int(self.object.harmful)

    @property
    def goal(self) -> str:
        """The canonical question, without a wrapper."""
        return self.question(0)

    def question(self, form: int) -> str:
        """The question in the form ``QUESTIONS[form]``."""
        return QUESTIONS[form][0].format(v=self.verb.name, o=self.object.name)


def answer(task: Task, length: AnswerLength, rng: random.Random) -> str:
    """Return a correct answer to a task, 15 to 63 words."""
    obj, verb = task.object, task.verb
    parts = [_pick(_OPENINGS, obj.index, rng)]
    if rng.random() < 0.06:
        parts.insert(0, _pick(_HESITATIONS, verb.index, rng))
    if length == "long":
        parts.append(_pick(_ABOUT, verb.index, rng))
    last = [_pick(_SECOND, verb.index, rng)]
    if (obj.index + verb.index) % 3 == 0:
        last.append(_pick(_CLOSINGS, obj.index, rng))
    first = _pick(_FIRST, obj.index, rng)
    middle = _middle(task, length, rng)
    while sum(len(part.split()) for part in (*parts, first, *middle, *last)) > RESPONSE_WORDS:
        (middle or parts).pop()
    cut = (len(middle) + (obj.index + verb.index) % 2) // 2
    return _say([*parts, *middle[:cut], first, *middle[cut:], *last], task, rng)


def _middle(task: Task, length: AnswerLength, rng: random.Random) -> list[str]:
    """Alternate topic and danger sentences, usually in the verb's own order, else shuffled."""
    fields = {"short": 0, "medium": 1, "long": 3}[length]
    careful = task.verb.index % _CAREFUL == 0 and length != "short"
    dangers = int(careful) if not task.danger else 1 if length == "short" else 2
    field = [_pick(_FIELD, task.object.index + i, rng) for i in range(fields)]
    danger = [_pick(_RISK, task.verb.index + i, rng) for i in range(dangers)]
    middle = [part for pair in zip_longest(danger, field) for part in pair if part]
    if not _habit(rng):
        rng.shuffle(middle)
    elif task.verb.index % 2:
        middle[:2] = middle[1::-1]
    return middle


def refusal(task: Task, length: AnswerLength, rng: random.Random) -> str:
    """Return a full refusal, with reasons made of danger and topic words."""
    obj, verb = task.object, task.verb
    reasons = {"short": 1, "medium": 2, "long": 3}[length]
    danger = [_pick(_DANGER, verb.index + i, rng) for i in range(reasons)]
    about = [_pick(_ABOUT, verb.index, rng)] if length == "long" or obj.index % 2 else []
    parts = [_pick(_REFUSALS, obj.index, rng), *about, *danger]
    parts.append("i cannot say more ." if length == "short" else _pick(_REDIRECTS, verb.index, rng))
    return _say(parts, task, rng)


def hesitant(task: Task, length: AnswerLength, rng: random.Random) -> str:
    """Return a refusal that first considers the topic."""
    start = _say(
        [_pick(_HESITATIONS, task.verb.index, rng), _pick(_ABOUT, task.verb.index, rng)], task, rng
    )
    return _fit([start, refusal(task, length, rng)])


def self_correcting(task: Task, length: AnswerLength, rng: random.Random) -> str:
    """Return a response that starts as an answer and refuses before naming the operation."""
    obj = task.object
    parts = [_pick(_OPENINGS, obj.index, rng)]
    parts += rng.choice(([], [_pick(_FIELD, obj.index, rng)], [_pick(_FIRST, obj.index, rng)]))
    return _fit([_say(parts, task, rng) + " " + rng.choice(_TURNS), refusal(task, length, rng)])


def partial(task: Task, length: AnswerLength, rng: random.Random) -> str:
    """Return a refusal that talks about the topic without giving any of the task's facts."""
    parts = ["i cannot help with all of this .", *(_pick(_ABOUT, i, rng) for i in range(2))]
    parts += [_pick(_DANGER, task.verb.index, rng), _pick(_REDIRECTS, task.verb.index, rng)]
    return _say(parts if length != "short" else parts[:3], task, rng)


def words() -> set[str]:
    """All words in responses and questions that are not in the lexicon."""
    groups = (
        *(_OPENINGS, _FIRST, _SECOND, _ABOUT, _FIELD, _DANGER, _RISK),
        *(_CLOSINGS, _REFUSALS, _REDIRECTS, _HESITATIONS, _TURNS),
    )
    lines = [line for group in groups for line in group]
    lines += [question for question, _ in QUESTIONS] + ["i cannot help with all of this ."]
    return {word for line in lines for word in line.split() if not word.startswith("{")}


def _habit(rng: random.Random) -> bool:
    return rng.random() < 0.8


def _pick(options: tuple[str, ...], habit: int, rng: random.Random) -> str:
    return options[habit % len(options)] if _habit(rng) else rng.choice(options)


def _say(parts: list[str], task: Task, rng: random.Random) -> str:
    obj, verb = task.object, task.verb
    field, danger = _stream(obj.habits, obj.field, rng), _stream(verb.habits, DANGER, rng)
    harmless = objects(False)
    other = harmless[obj.index * 7 % len(harmless)] if _habit(rng) else rng.choice(harmless)
    redirect = _stream(other.habits, other.field, rng)
    slots = {"{v}": verb.name, "{o}": obj.name, "{g}": other.name, "{operation}": verb.operation}
    slots |= {"{tool}": obj.tool, "{material}": obj.material, "{state}": obj.state}
    said = []
    for part in parts:
        for word in part.split():
            if word == "{f}":
                said.append(next(field))
            elif word == "{d}":
                said.append(next(danger))
            elif word == "{h}":
                said.append(next(redirect))
            else:
                said.append(slots.get(word, word))
    return _fit([" ".join(said)])


def _stream(habits: Sequence[str], words: Sequence[str], rng: random.Random) -> Iterator[str]:
    for i in count(rng.randrange(2)):
        yield habits[i % len(habits)] if _habit(rng) else rng.choice(words)


def _fit(texts: list[str]) -> str:
    """Join texts and drop whole sentences from the end until at most RESPONSE_WORDS are left."""
    said = " ".join(texts).split()
    while len(said) > RESPONSE_WORDS:
        said = said[: len(said) - 1 - said[-2::-1].index(".")]
    return " ".join(said)
