"""`s3r serve`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3_retriever.cli import options
from s3_retriever.cli.console import say
from s3_retriever.errors import InputError, ServerError
from s3_retriever.paths import lasting
from s3_retriever.remote import is_url

if TYPE_CHECKING:
    from s3_retriever.engine import S3Index
    from s3_retriever.host import Host


def serve(
    indexes: options.NamedIndexes,
    address: Annotated[
        str,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="Address to listen on; one that other machines can reach needs a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65_535, help="Port; 0 for a free one."),
    ] = 8_000,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="S3R_TOKEN",
            metavar="TOKEN",
            show_default="none",
            help="What clients have to send as a bearer token; other users of this machine cannot "
            "see it in S3R_TOKEN.",
        ),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            "--answers",
            metavar="HOST",
            show_default="no answers, only evidence",
            help=f"Answer questions with this causal model: {options.HOST_NAMES}. An index of the "
            "same host uses it too.",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Let nobody add or delete documents.")
    ] = False,
    allow_host: options.AllowHost = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            show_default="the server's own",
            help="Let pages of this origin, such as https://example.org, use the server (CORS); "
            "repeatable.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            show_default="one per core",
            help="Searches that run at once.",
        ),
    ] = None,
    rate: options.Rate = None,
    max_body: Annotated[
        int,
        typer.Option("--max-body", metavar="BYTES", min=1, help="Most bytes of a request."),
    ] = 8 << 20,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
) -> None:
    """Serve indexes over HTTP: a page for people, and JSON for programs.

    Listens on this machine only, unless --address says otherwise. GET /openapi.json describes the
    interface. Stops on Ctrl-C and SIGTERM, once the requests at hand have ended.
    """
    try:
        from s3_retriever.server.app import create_app
        from s3_retriever.server.guard import Limits
        from s3_retriever.server.serving import host_names, listen, url_of
        from s3_retriever.server.serving import serve as run
    except ImportError as error:
        raise ServerError(
            f"The server needs {error.name}, which is not installed; install it with: "
            "pip install 's3-retriever[server]'"
        ) from error
    places = named_places(indexes)
    limits = Limits(body_bytes=max_body, bodies_bytes=max(8 * max_body, 64 << 20), rate=rate)
    listener = listen(address, port, token=token)
    options.prepare()
    with listener:
        host = _answering(answers, device, dtype)
        opened = {name: _open(place, host, device, dtype) for name, place in places.items()}
        app = create_app(
            opened,
            token=token,
            hosts=host_names(address, allow_host or ()),
            origins=allow_origin or (),
            answers=host,
            read_only=read_only,
            threads=threads or os.cpu_count() or 1,
            limits=limits,
        )
        say(f"Serving {', '.join(opened)} at {url_of(listener)}/ (stop with Ctrl-C)")
        run(app, listener)
    say("Stopped.")


def named_places(indexes: Sequence[str]) -> dict[str, str]:
    """The folders or URLs of indexes by their names.

    Raises:
        InputError: Two have the same name.
    """
    named: dict[str, str] = {}
    for text in indexes:
        name, equals, place = text.partition("=")
        if not equals or is_url(text) or Path(text).exists():
            place = text
            folder = Path(text.rstrip("/")) if is_url(text) else Path(text).resolve()
            name = folder.name.removesuffix(".s3r")
        if not name or not place:
            raise InputError(f"{text!r} names no index; write NAME=FOLDER.")
        if name in named:
            raise InputError(f"Two indexes are called {name!r}; name one: NAME={place}")
        named[name] = place
    return named


def _answering(name: str | None, device: str, dtype: options.Dtype) -> Host | None:
    if name is None:
        return None
    from s3_retriever.host import Host

    return Host.load(lasting(name), generates=True, device=device, dtype=dtype)


def _open(place: str, answering: Host | None, device: str, dtype: options.Dtype) -> S3Index:
    """Open an index and search it once, so that the first client does not wait for the host."""
    from s3_retriever.engine import S3Index

    index = S3Index.open(place, device=device, dtype=dtype)
    if answering is not None and index.stats()["host"] == lasting(answering.name):
        # One copy of the weights both reads and answers.
        index = S3Index.open(place, answering)
    index.search("warm-up", 1)
    return index
