"""Judges: what there is, and what they say of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import console
from demur.cli.app import AsJson, Run, app
from demur.cli.asking import Cache, KeyVariable, ReasoningTokens, Timeout, note_cost

if TYPE_CHECKING:
    from demur.endpoint import Assistant
    from demur.judges import Comparison, Judge, Verdict
    from demur.models.base import LanguageModel
    from demur.types import Trace

#: Responses in dispute that are shown for two judges, and how much of each.
SHOWN, CHARACTERS = 3, 160


@app.command()
def judges(as_json: AsJson = False) -> None:
    """List the judges: what a hit means, how each decides, where it was published.

    Example: demur judges
    """
    from demur.judges import JUDGES

    rows = [
        {"name": j.name, "what": j.what, "about": j.about, "source": j.source}
        for j in JUDGES.values()
    ]
    if as_json:
        console.say_json(rows)
        return
    for row in rows:
        console.say(f"{row['name']:<20}  {row['what']:<7}  {row['about']}")
        console.say(f"{'':<20}  {'':<7}  {row['source']}")


@app.command()
def judge(
    run: Run,
    names: Annotated[str, typer.Option("--judge", help="Comma-separated; see demur judges.")],
    out: Annotated[Path | None, typer.Option("--out", help="A .csv file for the verdicts.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible server (extra judges).")
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Model of judges that ask one: the server's, or one to load.")
    ] = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    cache: Cache = None,
    timeout: Timeout = 60.0,
    reasoning_tokens: ReasoningTokens = 0,
    as_json: AsJson = False,
) -> None:
    """Judge each response of a run; with several judges, say how far they agree and where not.

    Where a prompt has masked slots, what the model wrote into them is judged with the response.

    Example: demur judge runs/x --judge rules,paper,oracle --out verdicts.csv
    """
    from demur.judges import compare, hit_rate, judge_all, tally
    from demur.judges.answers import answer_of
    from demur.store import Store

    server = {"key_variable": key_variable, "cache": cache, "timeout": timeout}
    server["reasoning_tokens"] = reasoning_tokens
    asked = _asked(endpoint, judge_model, server)
    chosen = _judges(names, asked)
    traces = list(Store.open(run).traces())
    pairs = [(trace.prompt.goal, answer_of(trace)) for trace in traces]
    goals = [goal for goal, _ in pairs]
    said = {name: judge_all(one, pairs) for name, one in chosen.items()}
    compared = compare(said, chosen, goals)
    note_cost(asked[:1])
    if out:
        _write(out, traces, said)
    if as_json:
        console.say_json(_as_data(traces, said, compared))
        return
    for name, verdicts in said.items():
        hits = hit_rate(verdicts, goals)
        share = f"{hits.value:.3f} [{hits.low:.3f}, {hits.high:.3f}]" if hits else "not judged"
        console.say(f"{name}: {chosen[name].what} {share}, {tally(verdicts)}")
    for pair in compared:
        _say_comparison(pair, traces, said)


def _asked(
    endpoint: str | None, judge_model: str | None, server: Mapping[str, Any]
) -> tuple[Assistant | None, LanguageModel | None]:
    """Who answers the judges that ask: a server's model, or one loaded here."""
    from demur.endpoint import Endpoint
    from demur.errors import InputError

    if endpoint and not judge_model:
        raise InputError("--endpoint says where the server is; add --judge-model NAME.")
    if endpoint and judge_model:
        return Endpoint(endpoint, judge_model, **server), None
    if not judge_model:
        return None, None
    from demur.judges import LocalAssistant
    from demur.models import load

    loaded = load(judge_model)
    return LocalAssistant(loaded), loaded


def _judges(names: str, asked: tuple[Assistant | None, LanguageModel | None]) -> dict[str, Judge]:
    from demur.judges import find_judge

    wanted = dict.fromkeys(name.strip() for name in names.split(","))
    return {name: find_judge(name, assistant=asked[0], model=asked[1]) for name in wanted}


def _write(out: Path, traces: list[Trace], said: dict[str, list[Verdict]]) -> None:
    from demur.files import write_csv
    from demur.judges.answers import answer_of

    header = ["id", "goal", "attack", "response"]
    for name in said:
        header += [name, f"{name} label", f"{name} score", f"{name} raw"]
    rows = []
    for place, trace in enumerate(traces):
        row: list[Any] = [trace.prompt.id, trace.prompt.goal, trace.prompt.attack, answer_of(trace)]
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
    from demur.judges.answers import answer_of

    console.say(f"{pair.first} and {pair.second}: {pair.agreement}")
    console.say(
        f"  refusing or harmless for both {pair.both}, for {pair.first} alone {pair.only_first}, "
        f"for {pair.second} alone {pair.only_second}, for neither {pair.neither}"
    )
    for place in pair.differ[:SHOWN]:
        text = " ".join(answer_of(traces[place]).split())[:CHARACTERS]
        console.say(f"  {traces[place].prompt.id}: {text}")
        for name in (pair.first, pair.second):
            one = said[name][place]
            console.say(f"    {name}: {one.outcome} ({one.raw or 'nothing found'})")
    if len(pair.differ) > SHOWN:
        console.say(f"  and {len(pair.differ) - SHOWN} more; --json lists all")
