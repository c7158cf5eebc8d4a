"""`s3r mcp`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from s3_retriever.cli import options
from s3_retriever.cli.console import say
from s3_retriever.cli.serving import named_places
from s3_retriever.errors import S3Error

if TYPE_CHECKING:
    from s3_retriever.engine import S3Index

logger = logging.getLogger(__name__)


def mcp(
    indexes: options.NamedIndexes,
    http: Annotated[
        bool, typer.Option("--http", help="Serve over HTTP, at /mcp, instead of stdio.")
    ] = False,
    address: Annotated[
        str,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="Address to serve over HTTP; another one than this machine's own needs a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, help="Port to serve over HTTP."),
    ] = 8766,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            envvar="S3R_TOKEN",
            show_envvar=False,
            show_default="$S3R_TOKEN",
            help="What clients over HTTP must send as Authorization: Bearer TOKEN. Arguments are "
            "visible to other users of the machine, so prefer the variable.",
        ),
    ] = None,
    allow_host: options.AllowHost = None,
    rate: options.Rate = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
) -> None:
    """Serve indexes to agents as tools of the Model Context Protocol (MCP).

    The tools are search, read and list; documents are resources as well. Coding agents start this
    command themselves and talk to it over stdio. Other processes may add to the indexes meanwhile.
    """
    from s3_retriever.server.mcp import LIMITS, MCP_PATH, create_server, http_app, run_stdio

    opened = {
        name: options.open_index(place, None, None, device, dtype, needs_host=False)
        for name, place in named_places(indexes).items()
    }
    server = create_server(opened)
    # The first search need not wait for the hosts, nor do the client's first requests.
    loading = threading.Thread(target=_load_hosts, args=[opened.values()], daemon=True)
    if not http:
        loading.start()
        run_stdio(server)
        return
    from s3_retriever.server.serving import host_names, listen, serve, url_of

    app = http_app(
        server,
        token=token or None,
        hosts=host_names(address, allow_host or ()),
        limits=replace(LIMITS, rate=rate),
    )
    with listen(address, port, token=token or None) as listener:
        loading.start()
        say(f"Serving {url_of(listener)}{MCP_PATH}")
        serve(app, listener)


def _load_hosts(indexes: Iterable[S3Index]) -> None:
    try:
        for index in indexes:
            index.encoder  # noqa: B018 - loads it
    except S3Error as error:
        # A search says it again, to the agent.
        logger.error("%s", error)
