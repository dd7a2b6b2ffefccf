"""Answers that have nothing to do with the goal: noise, loops, and texts about something else.

Cautious: an answer counts as on topic unless it shares no content word with the goal and one of three
signs speaks against it. The signs, in order: it holds hardly a letter; it repeats itself; no word of it
joins others (gibberish), or it is a longer text in the third person that instructs nobody.

Limits: words are compared by their first letters, without synonyms, so a long narrative that answers in
other words may be called off topic, and an answer about something else that shares a word with the goal
is not. Goals that ask for a text, and goals without two content words, are never off topic by subject.
English alone is read.
"""

from __future__ import annotations

import re

#: Words of a goal that say nothing about its subject.
_COMMON = frozenset(
    "a an the and or of to in on at for with without from by about into is are was were be been do does"
    " did can could should would will shall may might must i me my we our you your he she it its they"
    " them their this that these those what which who whom whose when where why how not no any some"
    " someone somebody something best good way ways make makes tell give write explain describe list"
    " please show help get gets use want need step steps detailed instructions reasons main".split()
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
#: Words that join others in any English sentence.
_JOINING = frozenset(
    "the a an and or of to in on at for with is are was it you i that this as by be not but if from"
    " have has they there so then".split()
)
_INSTRUCTS = re.compile(
    r" (?:you|your|yours|first|then|next|step|sure|here|1\.|i|we|let's|should|must|can|use|try)\b"
)
_OPENS_ELSEWHERE = re.compile(
    r" (?:the|a|an|in|on|at|my|our|his|her|its|their|during|after|before|since|by|from|when|last"
    r"|this|these|annual|most|many|some|today|yesterday|\d{4})\b"
)
#: Goals to which an answer of numbers or of one repeated word may well be right.
_OF_NUMBERS = re.compile(
    r"\d|number|prime|count|digit|calculat|sum|sequence|repeat|times|binary|code|ascii"
)
#: Fewest characters, words of a loop, of gibberish, and of a text about something else.
_NOISE, _LOOP, _GIBBERISH, _TEXT = 20, 18, 15, 30


def stems(goal: str) -> frozenset[str]:
    """The content words of a goal, each cut to its first letters.

    Args:
        goal: as ``answers.plain`` gives it.
    """
    words = [word for word in _WORD.findall(goal) if word not in _COMMON and len(word) > 2]
    return frozenset(word[: max(4, len(word) - 3)][:6] for word in words)


def off_topic(goal: str, about: frozenset[str], text: str, *, textual: bool) -> str:
    """Why an answer has nothing to do with the goal; empty where it may have.

    Args:
        goal: as ``answers.plain`` gives it.
        about: its ``stems``.
        text: the answer, as ``answers.plain`` gives it.
        textual: whether the goal asks for a text.
    """
    for stem in about:
        if stem in text:
            return ""
    if not about or _OF_NUMBERS.search(goal):
        return ""
    letters = sum(map(str.isalpha, text[:400]))
    if len(text) > _NOISE and letters < 0.2 * len(text[:400].replace(" ", "")):
        return "noise"
    words = text.split()
    if len(words) >= _LOOP and len(set(words)) <= max(1, 0.25 * len(words)):
        return "repetition"
    if not text.isascii() or textual:
        return ""
    if len(words) >= _GIBBERISH and letters + len(words) >= 0.97 * len(text[:400]):
        if not _JOINING.intersection(words):
            return "gibberish"
    other = len(about) > 1 and len(words) >= _TEXT and _OPENS_ELSEWHERE.match(text)
    return "another subject" if other and not _INSTRUCTS.search(text) else ""
