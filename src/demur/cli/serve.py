"""``demur serve``: models behind an HTTP API, watched by a guard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from demur.cli import console, options
from demur.errors import InputError, MissingExtraError
from demur.serve.hosted import Limits


@options.app.command()
def serve(
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Built-in model, folder, hub id or a plug-in's; repeatable.",
        ),
    ],
    sampler: options.SamplerName = None,
    settings: options.SamplerSettings = None,
    guard: Annotated[
        list[Path] | None,
        typer.Option(
            "--guard",
            metavar="FILE",
            help="File made by demur guard fit --streaming; one per model.",
        ),
    ] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchors",
            metavar="FILE",
            help="File made by demur anchors, for the live page's signal; one per model.",
        ),
    ] = None,
    mode: Annotated[
        Literal["hold", "buffer", "audit"],
        typer.Option(
            help="hold sends tokens once the guard has judged them, buffer sends the whole answer at "
            "its end, audit blocks nothing."
        ),
    ] = "hold",
    hold: Annotated[int, typer.Option(help="Tokens held back in mode hold.")] = 0,
    uncalibrated: Annotated[
        Literal["block", "audit", "refuse"],
        typer.Option(
            help="What to do with requests that the guard's false-positive rate does not cover "
            "(another temperature, more turns, no chat template): block by the same threshold, only "
            "mark, or refuse."
        ),
    ] = "block",
    address: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys, one per line; also DEMUR_API_KEYS.")
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option(help="The page at /, which shows unguarded drafts. Default: on without keys."),
    ] = None,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Log prompts.")] = False,
    rows: Annotated[int, typer.Option(help="Maximum answers generated at once.")] = Limits.rows,
    queue: Annotated[
        int, typer.Option(help="Maximum answers in the queue; more get status 429.")
    ] = Limits.queue,
    connections: Annotated[int, typer.Option(help="Maximum connections.")] = Limits.connections,
    body: Annotated[int, typer.Option(help="Maximum bytes per request.")] = Limits.body,
    prompt_tokens: Annotated[
        int, typer.Option(help="Maximum tokens per prompt.")
    ] = Limits.prompt_tokens,
    messages: Annotated[int, typer.Option(help="Maximum turns per dialogue.")] = Limits.messages,
    choices: Annotated[int, typer.Option(help="Maximum answers per request.")] = Limits.choices,
    seconds: Annotated[float, typer.Option(help="Maximum seconds per request.")] = Limits.seconds,
    send_seconds: Annotated[
        float,
        typer.Option(help="Maximum seconds for a client to send a request or read a chunk."),
    ] = Limits.send_seconds,
    threads: Annotated[
        int | None,
        typer.Option(
            help="CPU threads for the models. Default: all but one, which serves clients."
        ),
    ] = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    system: options.SystemPrompt = None,
    template: options.TemplateArguments = None,
    adapter: options.AdapterName = None,
) -> None:
    """Serve models behind OpenAI's API, with a guard.

    The guard stops an answer while it is generated.

    Example: demur serve --model organism-ar --guard guard.safetensors
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("demur serve", "serve") from error
    import torch

    from demur.serve.app import Server, create_app, is_loopback, listen
    from demur.serve.host import host, read_guard
    from demur.serve.hosted import ServeOptions
    from demur.serve.middleware import read_keys
    from demur.sri import Anchors

    if (guard or anchors) and (sampler or settings):
        raise InputError(
            "--sampler and --set cannot be used with --guard or --anchors: the model generates as "
            "their runs did. Leave them out, or fit a guard on runs made with them."
        )
    allowed, local = read_keys(keys), is_loopback(address)
    if not local and not allowed:
        raise InputError(
            f"{address} can be reached from other machines, and no API key is set. Give --keys FILE, "
            "or listen on 127.0.0.1."
        )
    limits = Limits(
        rows=rows,
        queue=queue,
        connections=connections,
        body=body,
        prompt_tokens=prompt_tokens,
        messages=messages,
        choices=choices,
        seconds=seconds,
        send_seconds=send_seconds,
    )
    # Leave one core to the connections: computing on it too costs more than it gains.
    torch.set_num_threads(threads or max(1, torch.get_num_threads() - 1))
    asked_for = {"dtype": dtype, "device": device}
    asked_for |= options.model_options(system, template, adapter)
    hosting = host(
        [options.load_model(name, sampler, settings, **asked_for) for name in model],
        [read_guard(path) for path in guard or ()],
        ServeOptions(mode=mode, hold=hold, uncalibrated=uncalibrated, limits=limits),
        [Anchors.load(path) for path in anchors or ()],
    )
    for name, engine in hosting.engines.items():
        if engine.hosted.guard is None:
            console.note(f"demur: WARNING: {name} is served without a guard. Add --guard FILE.")
        else:
            console.note(f"demur: {engine.hosted.coverage()}")
    application = create_app(
        hosting,
        keys=allowed,
        live=not allowed if live is None else live,
        hosts=("localhost", "127.0.0.1", "[::1]", address) if local else (),
        log_prompts=log_prompts,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    found = listen(address, port)
    shown = f"[{address}]" if ":" in address else address
    names = ", ".join(hosting.engines)
    console.note(f"demur: serving {names} on http://{shown}:{found.getsockname()[1]}")
    Server(application, hosting).run([found])
