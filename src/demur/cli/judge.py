"""``demur judges`` and ``demur judge``: list judges, and judge the responses of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import console, options

if TYPE_CHECKING:
    from demur.endpoint import Assistant
    from demur.judges import Comparison, Judge, Verdict
    from demur.types import Prompt

    #: A prompt and the answer to it.
    Answered = tuple[Prompt, str]

#: Disputed responses shown for a pair of judges, and how many characters of each.
SHOWN, CHARACTERS = 3, 160


@options.app.command()
def judges(as_json: options.AsJson = False) -> None:
    """List the judges, with source and what a hit means.

    Example: demur judges
    """
    from demur.judges import known_judges

    rows = [
        {"name": j.name, "what": j.what, "about": j.about, "source": j.source}
        for j in known_judges().values()
    ]
    console.say_list(rows, as_json, lambda r: (f"{r['what']}: {r['about']}", r["source"]))


@options.app.command()
def judge(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run folder made by demur trace, or a file of prompts and answers: csv, jsonl, "
            "parquet, HarmBench completions, JailbreakBench artifacts."
        ),
    ],
    names: Annotated[str, typer.Option("--judge", help="Comma-separated; see demur judges.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write verdicts to this .csv file.")
    ] = None,
    judge_model: Annotated[
        str | None,
        typer.Option(
            help="Model for judges that need one: a model to load, or NAME@URL for one behind an "
            "OpenAI-compatible server (extra judges)."
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of prompts in a file.")] = None,
    answers: Annotated[str | None, typer.Option(help="Column of answers in a file.")] = None,
    goal_file: Annotated[
        str | None,
        typer.Option("--goals", help="File of the goals behind the prompts of a file, by id."),
    ] = None,
    key_variable: options.KeyVariable = "OPENAI_API_KEY",
    cache: options.CacheFolder = None,
    timeout: options.Timeout = 60.0,
    reasoning_tokens: options.ReasoningTokens = 0,
    as_json: options.AsJson = False,
) -> None:
    """Judge the responses of a run, or the answers in a file.

    With several judges, it shows how far they agree and where they differ. If a prompt has masked
    slots, what the model wrote into them is judged with the response.

    Example: demur judge runs/x --judge rules,paper,oracle --out verdicts.csv
    """
    from demur.judges import compare, hit_rate, judge_all, tally

    server = {"key_variable": key_variable, "cache": cache, "timeout": timeout}
    server["reasoning_tokens"] = reasoning_tokens
    asked = options.assistant(judge_model, server) if judge_model else None
    chosen = _judges(names, asked)
    answered = _answered(run, column=column, answers=answers, goals=goal_file)
    pairs = [(prompt.goal, answer) for prompt, answer in answered]
    goals = [goal for goal, _ in pairs]
    said = {name: judge_all(one, pairs) for name, one in chosen.items()}
    compared = compare(said, chosen, goals)
    options.note_usage([asked])
    if out:
        _write(out, answered, said)
    if as_json:
        console.say_json(_as_data(answered, said, compared))
        return
    for name, verdicts in said.items():
        hits = hit_rate(verdicts, goals)
        share = f"{hits.value:.3f} [{hits.low:.3f}, {hits.high:.3f}]" if hits else "not judged"
        console.say(f"{name}: {chosen[name].what} {share}, {tally(verdicts)}")
    for pair in compared:
        _say_comparison(pair, answered, said)


def _answered(
    run: Path, *, column: str | None, answers: str | None, goals: str | None
) -> list[Answered]:
    """Each prompt with its answer, from a run folder or from a file of answers."""
    from demur.errors import InputError
    from demur.prompts import completions_with_summary
    from demur.store import Store

    if run.is_file():
        found, read = completions_with_summary(run, column=column, answers=answers, goals=goals)
        console.note(str(read))
        return found
    only = {"--column": column, "--answers": answers, "--goals": goals}
    if given := [name for name, value in only.items() if value is not None]:
        raise InputError(f"{', '.join(given)}: only for files, and {run} is not one. Leave it out.")
    return [(trace.prompt, trace.answer) for trace in Store.open(run).traces()]


def _judges(names: str, asked: Assistant | None) -> dict[str, Judge]:
    from demur.judges import LocalAssistant, find_judge

    # A guard model is run by demur itself, so it must have been loaded here.
    loaded = asked.model if isinstance(asked, LocalAssistant) else None
    wanted = dict.fromkeys(name.strip() for name in names.split(","))
    return {name: find_judge(name, assistant=asked, model=loaded) for name in wanted}


def _write(out: Path, answered: list[Answered], said: dict[str, list[Verdict]]) -> None:
    from demur.files import write_csv

    header = ["id", "prompt", "goal", "attack", "response"]
    for name in said:
        header += [name, f"{name} label", f"{name} score", f"{name} raw"]
    rows = []
    for place, (prompt, answer) in enumerate(answered):
        row: list[Any] = [prompt.id, prompt.text, prompt.goal, prompt.attack, answer]
        for verdicts in said.values():
            one = verdicts[place]
            row += [one.outcome, one.label, "" if one.score is None else one.score, one.raw]
        rows.append(row)
    write_csv(out, header, rows)


def _as_data(
    answered: list[Answered], said: dict[str, list[Verdict]], compared: list[Comparison]
) -> dict[str, Any]:
    from dataclasses import asdict

    ids = [prompt.id for prompt, _ in answered]
    texts = [prompt.text for prompt, _ in answered]
    return {
        "verdicts": {
            name: [
                {"id": i, "prompt": text, **asdict(v)}
                for i, text, v in zip(ids, texts, verdicts, strict=True)
            ]
            for name, verdicts in said.items()
        },
        "agreement": [
            {**asdict(pair), "differ": [ids[place] for place in pair.differ]} for pair in compared
        ],
    }


def _say_comparison(
    pair: Comparison, answered: list[Answered], said: dict[str, list[Verdict]]
) -> None:
    console.say("")
    console.say(f"{pair.first} and {pair.second}: {pair.agreement}")
    console.say(
        f"  refusing or harmless: both {pair.both}, only {pair.first} {pair.only_first}, "
        f"only {pair.second} {pair.only_second}, neither {pair.neither}"
    )
    for place in pair.differ[:SHOWN]:
        prompt, answer = answered[place]
        console.say(
            f"  {prompt.id} ({console.short(prompt.text)}): {console.short(answer, CHARACTERS)}"
        )
        for name in (pair.first, pair.second):
            one = said[name][place]
            console.say(f"    {name}: {one.outcome} ({one.raw or 'nothing found'})")
    if len(pair.differ) > SHOWN:
        console.say(f"  and {len(pair.differ) - SHOWN} more; use --json to list all")
