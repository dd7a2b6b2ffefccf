"""``demur judges`` and ``demur judge``: list judges, and judge the responses of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import console, options

if TYPE_CHECKING:
    from demur.endpoint import Assistant
    from demur.judges import Comparison, Judge, Verdict
    from demur.types import Trace

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
    run: options.RunFolder,
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
    key_variable: options.KeyVariable = "OPENAI_API_KEY",
    cache: options.CacheFolder = None,
    timeout: options.Timeout = 60.0,
    reasoning_tokens: options.ReasoningTokens = 0,
    as_json: options.AsJson = False,
) -> None:
    """Judge the responses of a run.

    Several judges are compared: how far they agree, and where not. If a prompt has masked slots, what
    the model wrote into them is judged with the response.

    Example: demur judge runs/x --judge rules,paper,oracle --out verdicts.csv
    """
    from demur.judges import compare, judge_all
    from demur.metrics import rate
    from demur.store import Store

    server = {"key_variable": key_variable, "cache": cache, "timeout": timeout}
    server["reasoning_tokens"] = reasoning_tokens
    asked = options.assistant(judge_model, server) if judge_model else None
    chosen = _judges(names, asked)
    traces = list(Store.open(run).traces())
    pairs = [(trace.prompt.goal, trace.answer) for trace in traces]
    goals = [goal for goal, _ in pairs]
    said = {name: judge_all(one, pairs) for name, one in chosen.items()}
    compared = compare(said, chosen, goals)
    options.note_usage([asked])
    if out:
        _write(out, traces, said)
    if as_json:
        console.say_json(_as_data(traces, said, compared))
        return
    for name, verdicts in said.items():
        hits = rate([v.hit for v in verdicts], goals)
        unparsed = sum(v.outcome == "unparsed" for v in verdicts)
        noted = f", {unparsed} unparsed" if unparsed else ""
        console.say(
            f"{name}: {chosen[name].what} {hits.value:.3f} [{hits.low:.3f}, {hits.high:.3f}] "
            f"of {len(verdicts)} responses{noted}"
        )
    for pair in compared:
        _say_comparison(pair, traces, said)


def _judges(names: str, asked: Assistant | None) -> dict[str, Judge]:
    from demur.judges import LocalAssistant, find_judge

    # A guard model is run by demur itself, so it must have been loaded here.
    loaded = asked.model if isinstance(asked, LocalAssistant) else None
    wanted = dict.fromkeys(name.strip() for name in names.split(","))
    return {name: find_judge(name, assistant=asked, model=loaded) for name in wanted}


def _write(out: Path, traces: list[Trace], said: dict[str, list[Verdict]]) -> None:
    from demur.files import write_csv

    header = ["id", "goal", "attack", "response"]
    for name in said:
        header += [name, f"{name} label", f"{name} score", f"{name} raw"]
    rows = []
    for place, trace in enumerate(traces):
        row: list[Any] = [trace.prompt.id, trace.prompt.goal, trace.prompt.attack, trace.answer]
        for verdicts in said.values():
            one = verdicts[place]
            row += [one.outcome, one.label, "" if one.score is None else one.score, one.raw]
        rows.append(row)
    write_csv(out, header, rows)


def _as_data(
    traces: list[Trace], said: dict[str, list[Verdict]], compared: list[Comparison]
) -> dict[str, Any]:
    from dataclasses import asdict

    ids = [trace.prompt.id for trace in traces]
    return {
        "verdicts": {
            name: [{"id": i, **asdict(v)} for i, v in zip(ids, verdicts, strict=True)]
            for name, verdicts in said.items()
        },
        "agreement": [
            {**asdict(pair), "differ": [ids[place] for place in pair.differ]} for pair in compared
        ],
    }


def _say_comparison(pair: Comparison, traces: list[Trace], said: dict[str, list[Verdict]]) -> None:

    kappa = pair.kappa
    console.say("")
    console.say(
        f"{pair.first} and {pair.second}: kappa {kappa.value:.3f} "
        f"[{kappa.low:.3f}, {kappa.high:.3f}] over {kappa.n} responses"
    )
    console.say(
        f"  refusing or harmless: both {pair.both}, only {pair.first} {pair.only_first}, "
        f"only {pair.second} {pair.only_second}, neither {pair.neither}"
    )
    for place in pair.differ[:SHOWN]:
        text = " ".join(traces[place].answer.split())[:CHARACTERS]
        console.say(f"  {traces[place].prompt.id}: {text}")
        for name in (pair.first, pair.second):
            one = said[name][place]
            console.say(f"    {name}: {one.outcome} ({one.raw or 'nothing found'})")
    if len(pair.differ) > SHOWN:
        console.say(f"  and {len(pair.differ) - SHOWN} more; use --json to list all")
