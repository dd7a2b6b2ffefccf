"""Printing: results, notes, JSON and progress."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

#: Called with the name of a stage, how much of it is done, and the total.
Ticker = Callable[[str, int, int], None]

#: Seconds between progress lines without a terminal.
PLAIN_EVERY = 10.0


def say(text: str) -> None:
    """Print a line to standard output."""
    sys.stdout.write(f"{one_line(text)}\n")


def note(text: str) -> None:
    """Print a line to standard error."""
    sys.stderr.write(f"{one_line(text)}\n")


def one_line(text: str) -> str:
    """Text with control characters escaped, so that it cannot control the terminal or add a line."""
    return "".join(c if unicodedata.category(c) not in _CONTROLS else ascii(c)[1:-1] for c in text)


#: Unicode categories: controls, formats such as right-to-left marks, line and paragraph ends.
_CONTROLS = ("Cc", "Cf", "Zl", "Zp")


def short(text: str, most: int = 60) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def say_json(value: Any) -> None:
    """Print one JSON document."""
    for line in json.dumps(value, indent=2, default=str).split("\n"):
        say(line)


def say_pairs(pairs: Mapping[str, Any]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        say(f"{name:<{width}}  {value}")


def caution(text: str) -> dict[str, str]:
    """A caution as part of what a verb prints; nothing if it is empty."""
    return {"caution": text} if text else {}


def say_caution(text: str) -> None:
    """Print a caution, if there is one."""
    if text:
        say(f"Caution: {text}.")


def say_list(
    rows: Sequence[Mapping[str, Any]],
    as_json: bool,
    lines: Callable[[Mapping[str, Any]], tuple[str, str]],
) -> None:
    """Print rows as JSON, or each row's name with two lines about it."""
    if as_json:
        say_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        for name, line in zip((row["name"], ""), lines(row), strict=True):
            say(f"{name:<{width}}  {line}")


def sparkline(values: Sequence[float]) -> str:
    """Values in [0, 1] as a row of bars."""
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[min(7, int(8 * min(max(value, 0.0), 1.0)))] for value in values)


def pieces(
    decode: Callable[[list[int]], str], committed: list[int], draft: list[int]
) -> tuple[tuple[str, bool], ...]:
    """Text in runs of committed and of drafted tokens."""
    known = [place for place, token in enumerate(draft) if token >= 0]
    ids, found, said = list[int](), list[tuple[str, bool]](), ""
    for settled, run in groupby(known, key=lambda place: committed[place] >= 0):
        # A token's text depends on the tokens before it, so decode from the beginning.
        ids += [draft[place] for place in run]
        text = decode(ids)
        found.append((text[len(said) :], settled))
        said = text
    return tuple((text, settled) for text, settled in found if text)


@contextmanager
def progress() -> Iterator[Ticker]:
    """Progress bars on a terminal, plain lines elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield _plain_ticker()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield tick


def _plain_ticker() -> Ticker:
    last: dict[str, float] = {}

    def tick(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last.get(stage, -PLAIN_EVERY) >= PLAIN_EVERY:
            last[stage] = now
            note(f"{stage}: {done} of {total}")

    return tick
