"""Serve models behind an API, watched by a guard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, get_args

import typer

from demur.cli import console
from demur.cli.app import app, one_of
from demur.errors import InputError, MissingExtraError
from demur.serve.options import Limits


@app.command()
def serve(
    model: Annotated[
        list[str], typer.Option("--model", help="Built-in name, folder or hub id; repeatable.")
    ],
    guard: Annotated[
        list[Path] | None,
        typer.Option("--guard", help="File made by demur guard fit --streaming; one a model."),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="hold (tokens behind), buffer (until the end) or audit (blocks nothing)."
        ),
    ] = "hold",
    hold: Annotated[int, typer.Option(help="Tokens kept behind in mode hold.")] = 0,
    uncalibrated: Annotated[
        str,
        typer.Option(
            help="Requests that the guard's false-positive rate does not cover (another temperature, "
            "more turns, no chat): block as all others, audit (mark only) or refuse."
        ),
    ] = "block",
    address: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys, one a line; also DEMUR_API_KEYS.")
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option(help="The page at /, which shows unguarded drafts; on while no keys are set."),
    ] = None,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Log what is asked; without it no prompt is.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Answers generated at a time.")] = Limits.rows,
    queue: Annotated[
        int, typer.Option(help="Answers that wait; more are told to come back.")
    ] = Limits.queue,
    connections: Annotated[int, typer.Option(help="Open at a time.")] = Limits.connections,
    body: Annotated[int, typer.Option(help="Bytes of a request.")] = Limits.body,
    prompt_tokens: Annotated[int, typer.Option(help="Of a prompt.")] = Limits.prompt_tokens,
    messages: Annotated[int, typer.Option(help="Turns of a dialogue.")] = Limits.messages,
    choices: Annotated[int, typer.Option(help="Answers to one request.")] = Limits.choices,
    seconds: Annotated[float, typer.Option(help="Longest time a request takes.")] = Limits.seconds,
    send_seconds: Annotated[
        float, typer.Option(help="For a client to send a request, or to read a part of its answer.")
    ] = Limits.send_seconds,
    threads: Annotated[
        int | None,
        typer.Option(help="Cores that a model computes on; all but one, which is for connections."),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda.")] = None,
) -> None:
    """Serve models behind OpenAI's API; the guard stops an answer while it is generated.

    Example: demur serve --model organism-ar --guard guard.safetensors
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("demur serve", "serve") from error
    import torch

    from demur.models import load
    from demur.serve.app import create_app
    from demur.serve.host import host, read_guard
    from demur.serve.options import GuardMode, ServeOptions, Uncalibrated
    from demur.serve.server import Server, is_loopback, listen
    from demur.serve.service import read_keys

    allowed, local = read_keys(keys), is_loopback(address)
    if not local and not allowed:
        raise InputError(
            f"{address} can be reached from other machines, and no key is set. Give --keys FILE, or "
            "listen on 127.0.0.1."
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
    options = ServeOptions(
        mode=one_of(mode, get_args(GuardMode), "mode"),
        hold=hold,
        uncalibrated=one_of(uncalibrated, get_args(Uncalibrated), "uncalibrated"),
        limits=limits,
    )
    # A core that both the network and the connections want costs more than it gives.
    torch.set_num_threads(threads or max(1, torch.get_num_threads() - 1))
    hosting = host(
        [load(name, dtype=dtype, device=device) for name in model],
        [read_guard(path) for path in guard or ()],
        options,
    )
    for name, engine in hosting.engines.items():
        if engine.hosted.guard is None:
            console.note(f"demur: WARNING: {name} is served without a guard. Give --guard.")
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
    console.note(
        f"demur: serving {', '.join(hosting.engines)} on http://{shown}:{found.getsockname()[1]}"
    )
    Server(application, hosting).run([found])
