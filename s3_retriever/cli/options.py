"""Options that commands share, and what their texts stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from s3_retriever.cli.console import messages, say
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.recipe import Recipe

if TYPE_CHECKING:
    from s3_retriever.engine import S3Index


class Mode(str, Enum):
    """How spans are ranked."""

    hybrid = "hybrid"
    s3 = "s3"
    bm25 = "bm25"


class Order(str, Enum):
    """How results are ordered."""

    score = "score"
    document = "document"


class Dtype(str, Enum):
    """Number format of the host."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float32 = "float32"


Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Files, folders (with all below them) and globs."),
]
Question = Annotated[str, typer.Argument(metavar="QUESTION", help="Any text.")]
IndexPath = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")]
To = Annotated[Path, typer.Option("--to", metavar="INDEX", help="Folder of the index.")]
In = Annotated[Path, typer.Option("--in", metavar="INDEX", help="Folder of the index.")]

HostName = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        show_default="minilm",
        help="Host model: minilm, a local folder, or a model id on the Hugging Face Hub.",
    ),
]
MovedHost = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        show_default="the one the index was made with",
        help="The host, where it is to be found elsewhere than when the index was made.",
    ),
]
CodebookName = Annotated[
    str | None,
    typer.Option(
        "--codebook",
        metavar="DIR",
        show_default="the one shipped for the host, or s3-codebook in its folder",
        help="The host's codebook, made with s3 fit: a folder or an id on the Hugging Face Hub.",
    ),
]
MovedCodebook = Annotated[
    str | None,
    typer.Option(
        "--codebook",
        metavar="DIR",
        show_default="the one the index was made with",
        help="The codebook, where it is to be found elsewhere than when the index was made.",
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        show_default="default",
        help="default (what measures best), paper, or a JSON file with a recipe of your own.",
    ),
]
SearchRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        show_default="the recipe of the index",
        help="Score with another recipe: default, paper, or a JSON file.",
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, mps or a torch device."),
]
DtypeName = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        metavar="auto|bfloat16|float32",
        help="Number format of the host; auto picks the faster one.",
    ),
]

Spans = Annotated[
    int | None,
    typer.Option(
        "-k",
        metavar="N",
        min=1,
        show_default="5, or no limit with --budget",
        help="Spans at most.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--budget",
        metavar="N",
        min=1,
        show_default="no limit",
        help="Tokens of the host at most, all spans together.",
    ),
]
ModeName = Annotated[
    Mode,
    typer.Option(
        "--mode",
        metavar="hybrid|s3|bm25",
        help="Rank by co-activation of features (s3), by words (bm25), or by both (hybrid).",
    ),
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        show_default="all documents",
        help="Only documents with this metadata; may be given several times. A value that reads "
        "as JSON is taken as JSON (2024, true), any other as text.",
    ),
]
OrderName = Annotated[
    Order,
    typer.Option(
        "--order",
        metavar="score|document",
        help="Best span first (score), or as in the documents (document).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]


def conditions(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """The metadata filter that `KEY=VALUE` texts describe; None where there are none.

    Raises:
        typer.BadParameter: A text is no `KEY=VALUE`.
    """
    pairs = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE.", param_hint="--where")
        pairs[key] = _json_or_text(value)
    return pairs or None


def recipe(text: str | None) -> str | Recipe | None:
    """A recipe's name, or the recipe in the JSON file of that name.

    Raises:
        InputError: The file is missing or holds no recipe.
    """
    if text is None or text in ("default", "paper"):
        return text
    try:
        return Recipe.model_validate_json(Path(text).read_bytes())
    except OSError as error:
        raise InputError(
            f"The recipe {text!r} is neither default nor paper nor a readable JSON file "
            f"({error.strerror})."
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise InputError(f"{text} holds no recipe: {problem['msg']} at {where}.") from error


def location(name: str | None) -> str | None:
    """A host's or codebook's name; a local folder as an absolute path.

    An index remembers where its host and codebook are, and is opened from other folders too.
    """
    if name is not None and Path(name).expanduser().is_dir():
        return str(Path(name).expanduser().resolve())
    return name


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def check_codebook_target(out: Path) -> None:
    """Refuse a folder that cannot take a codebook now, not after hours.

    Raises:
        CodebookError: It holds something else.
    """
    taken = out.exists() and not (out / "codebook.json").is_file()
    if taken and (not out.is_dir() or any(out.iterdir())):
        raise CodebookError(f"{out} holds something that is no codebook; choose another.")
    out.parent.mkdir(parents=True, exist_ok=True)


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
