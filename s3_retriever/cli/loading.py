"""The engine, imported only where a command needs it: it takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from s3_retriever.cli.console import messages, say
from s3_retriever.cli.options import Dtype
from s3_retriever.cli.values import location
from s3_retriever.recipe import Recipe

if TYPE_CHECKING:
    from s3_retriever.engine import S3Index


def create_index(
    path: Path | None,
    host: str | None,
    codebook: str | None,
    recipe: str | Recipe | None,
    device: str,
    dtype: Dtype,
) -> S3Index:
    """`S3Index.create`, by what the command line says."""
    prepare()
    from s3_retriever.engine import S3Index

    return S3Index.create(
        path,
        location(host) or "minilm",
        codebook=location(codebook),
        recipe=recipe or "default",
        device=device,
        dtype=dtype.value,
    )


def open_index(
    path: Path, host: str | None, codebook: str | None, device: str, dtype: Dtype
) -> S3Index:
    """`S3Index.open`, by what the command line says."""
    prepare()
    from s3_retriever.engine import S3Index

    return S3Index.open(
        path,
        location(host),
        codebook=location(codebook),
        device=device,
        dtype=dtype.value,
    )


def prepare() -> None:
    """Import the slow libraries and keep their own progress bars out of the way."""
    if messages().is_terminal:
        say("Loading the host")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
