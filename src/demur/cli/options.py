"""The root of the command line, the options that verbs share, and functions that convert them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from demur import plugins
from demur._version import __version__
from demur.cli import console
from demur.errors import InputError

if TYPE_CHECKING:
    from demur.endpoint import Assistant
    from demur.models.base import LanguageModel
    from demur.types import Prompt, Trace

#: Unknown words that a warning names.
UNKNOWN = 8

#: Verbs by what people come for, in the order of --help.
PURPOSES: Mapping[str, Sequence[str]] = {
    "See what a model does": ("scan", "watch", "report"),
    "Measure": (
        "trace",
        "anchors",
        "signal",
        "judge",
        "judges",
        "attack",
        "attacks",
        "ls",
        "models",
    ),
    "Guard": ("guard", "detectors", "defend", "defenses"),
    "Serve and share": ("serve", "push", "pull"),
    "Study": ("study", "demo", "organism", "plugins"),
}


class Verbs(TyperGroup):
    """The verbs, listed by purpose, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the lists."""
        listed = {name for names in PURPOSES.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in listed)
        for purpose, names in {**PURPOSES, "More": others}.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, one.get_short_help_str(limit=200)) for name, one in found if one]
            if rows:
                with formatter.section(purpose):
                    formatter.write_dl(rows)


app = typer.Typer(
    name="demur",
    cls=Verbs,
    help="Watch, measure and guard how a language model refuses, step by step.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

Prompts = Annotated[
    str,
    typer.Argument(
        help="A csv, tsv, json, jsonl, txt or parquet file, - for stdin, hub:ORG/NAME, set:NAME, or "
        "organism:SPLIT/KIND[/ATTACK] for prompts of the built-in world."
    ),
]
Column = Annotated[str | None, typer.Option("--column", help="Column that holds the prompts.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Use only the first N prompts.")]
ModelName = Annotated[
    str,
    typer.Option("--model", help="Built-in model, folder, GGUF file, hub id or a plug-in's model."),
]
SamplerName = Annotated[
    str | None,
    typer.Option("--sampler", help="autoregressive, masked, dream, block, canvas or a plug-in's."),
]
SamplerSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the sampler; repeatable."),
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option("--device", help="Device, such as cuda.")]
SystemPrompt = Annotated[
    str | None,
    typer.Option(
        "--system", metavar="TEXT", help="System prompt, '' for none. Default: the paper's."
    ),
]
TemplateArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="NAME=VALUE",
        help="An argument of the chat template, such as enable_thinking=false; repeatable.",
    ),
]
AdapterName = Annotated[
    str | None,
    typer.Option(
        "--adapter", help="LoRA or other PEFT adapter: a folder or a hub id (extra peft)."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by demur trace.")]
RunFolders = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Run folders made by demur trace.")
]
AnchorFile = Annotated[Path, typer.Option("--anchors", help="File made by demur anchors.")]
GuardFile = Annotated[Path, typer.Option("--guard", help="File made by demur guard fit.")]
PartName = Annotated[
    Literal["all", "answer", "thought"],
    typer.Option("--part", help="Steps to read of a model that thinks before it answers."),
]
PartOfAnchors = Annotated[
    Literal["all", "answer", "thought"] | None,
    typer.Option("--part", help="Steps to read, for a check. Default: those of the anchors."),
]
Reader = Annotated[
    str | None,
    typer.Option("--surrogate", help="Autoregressive model that reads the texts of the runs."),
]
KeyVariable = Annotated[
    str, typer.Option("--key-variable", help="Environment variable with the server's API key.")
]
CacheFolder = Annotated[
    Path | None, typer.Option("--cache", help="Folder that caches the server's answers.")
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for an answer.")]
ReasoningTokens = Annotated[
    int,
    typer.Option("--reasoning-tokens", help="Extra tokens for a model that reasons first."),
]


def assignment(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, the value parsed as JSON where possible."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"A setting is written NAME=VALUE; got {text!r}.")
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value


def assignments(texts: Iterable[str] | None) -> dict[str, Any]:
    """Several settings; of two with the same name, the last counts."""
    return dict(map(assignment, texts or ()))


def sampler_settings(name: str | None, texts: Iterable[str] | None) -> dict[str, Any]:
    """What ``--sampler`` and ``--set`` change, for ``demur.sampling.sampler_with``."""
    return ({"name": name} if name else {}) | assignments(texts)


def model_options(
    system: str | None, template: Iterable[str] | None, adapter: str | None
) -> dict[str, Any]:
    """Options of ``demur.load`` for ``--system``, ``--template`` and ``--adapter``."""
    return {"system": system, "template": assignments(template) or None, "adapter": adapter}


def load_model(
    name: str, sampler: str | None = None, settings: Iterable[str] | None = None, **options: Any
) -> LanguageModel:
    """Load a model, print its notes, and make the requested sampler its default.

    Args:
        name: for ``demur.load``.
        sampler: ``--sampler``.
        settings: ``--set``.
        options: of ``demur.load``.
    """
    from dataclasses import replace

    from demur.models import ModelWarning, load
    from demur.sampling import sampler_with, spec

    changed = sampler_settings(sampler, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        model = load(name, **options)
    for note in model.notes:
        console.note(f"demur: WARNING: {note}")
    if not changed:
        return model
    chosen = spec(sampler_with(model.traits.sampler, changed))
    return replace(model, traits=replace(model.traits, sampler=chosen))


def note_unknown_words(model: LanguageModel, prompts: Iterable[Prompt]) -> bool:
    """Name the words of the prompts that the model does not know; call it once per command.

    Returns whether there are any. Only a word-level vocabulary, as of the built-in models, lacks
    words.
    """
    from demur.models.tokens import unknown_words

    found = unknown_words(model.tokenizer, (prompt.text for prompt in prompts))
    if found:
        named = ", ".join(map(repr, found[:UNKNOWN])) + ", ..." * (len(found) > UNKNOWN)
        console.note(
            f"demur: WARNING: {model.name} does not know {len(found)} of the prompts' words: {named}. "
            "It reads each as <|unk|> and answers something else. Its world's prompts: "
            "organism:test/harmless."
        )
    return bool(found)


def assistant(where: str, server: Mapping[str, Any]) -> Assistant:
    """A model to ask: ``NAME@URL`` behind an OpenAI-compatible server, or one to load.

    Args:
        where: what the user named.
        server: settings of ``demur.endpoint.Endpoint``.
    """
    from demur.endpoint import Endpoint
    from demur.judges import LocalAssistant
    from demur.models import load

    name, at, url = where.rpartition("@")
    if at and not Path(where).exists():
        return Endpoint(url=url, model=name, **server)
    return LocalAssistant(load(where))


def note_usage(assistants: Iterable[Assistant | None]) -> None:
    """Print the requests and tokens of each server."""
    from demur.endpoint import Endpoint

    for one in assistants:
        if isinstance(one, Endpoint):
            used = one.usage
            console.note(
                f"{one.model}: {used.requests} requests, {used.cached} answers from the cache, "
                f"{used.prompt_tokens} prompt tokens, {used.answer_tokens} answer tokens"
            )


def traces_in(runs: Sequence[Path], surrogate: str | None = None) -> Iterator[Trace]:
    """Traces of the runs in order, or a surrogate's traces of their prompts and responses.

    Raises:
        StoreError: no run there, or a damaged one.
        ModelError, InputError: the surrogate cannot be loaded, or is not autoregressive.
    """
    yield from _as_read(_stored(runs), surrogate)


def labelled_traces(
    runs: Sequence[Path],
    harmless: Sequence[Path],
    harmful: Sequence[Path],
    labels: str | None,
    surrogate: str | None,
) -> Iterator[Trace]:
    """Traces of the runs, with their own labels or those of a file, then of runs of one class.

    Raises:
        InputError: no run at all, or labels that fit none of the runs.
        StoreError, ModelError: as for ``traces_in``.
    """
    if not (runs or harmful or harmless):
        raise InputError(
            "No runs. Give run folders with labels, or --harmless RUN and --harmful RUN."
        )
    if labels and not runs:
        raise InputError("--labels labels the runs given without an option. Give at least one.")
    yield from _as_read(_labelled(runs, harmless, harmful, labels), surrogate)


def _labelled(
    runs: Sequence[Path], harmless: Sequence[Path], harmful: Sequence[Path], labels: str | None
) -> Iterator[Trace]:
    from demur.prompts import read_labels, with_labels

    own = _stored(runs)
    if labels:
        known = read_labels(labels)
        console.note(str(known.summary))
        own = with_labels(own, known)
    yield from own
    yield from with_labels(_stored(harmless), "harmless")
    yield from with_labels(_stored(harmful), "harmful")


def _stored(runs: Sequence[Path]) -> Iterator[Trace]:
    from demur.store import Store

    return (trace for run in runs for trace in Store.open(run).traces())


def _as_read(traces: Iterator[Trace], surrogate: str | None) -> Iterator[Trace]:
    """The traces, or a surrogate's traces of their prompts and responses."""
    if surrogate is None:
        yield from traces
        return
    from demur.guard.surrogate import read_texts
    from demur.models import load

    yield from read_texts(load(surrogate), ((trace.prompt, trace.response) for trace in traces))


def _version(wanted: bool) -> None:
    if wanted:
        console.say(f"demur {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    threads: Annotated[
        int,
        typer.Option("--threads", help="CPU threads for the model; 0 leaves the choice to torch."),
    ] = 0,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="FILE",
            help="A Python file with plug-ins; repeatable. Also DEMUR_PLUGINS.",
        ),
    ] = None,
) -> None:
    """Options of every command."""
    if threads:
        # torch reads it when it is imported, which is later.
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if plugin:
        # In the environment, so that worker processes read the files too.
        files = [os.environ.get(plugins.VARIABLE, ""), *(str(path.resolve()) for path in plugin)]
        os.environ[plugins.VARIABLE] = os.pathsep.join(filter(None, files))
        plugins.plugins()
