"""Options that several commands share, and what their values mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from pydantic import ValidationError

from s3_retriever.cli.console import messages, say
from s3_retriever.codebook.files import is_foreign
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.paths import EMBEDDED, lasting, refuse_constant
from s3_retriever.recipe import Recipe
from s3_retriever.types import ContextForm, GroupBy, Mode, Order

if TYPE_CHECKING:
    from s3_retriever.engine import S3Index
    from s3_retriever.server.client import RemoteIndex

RECIPES = ("default", "paper", "paper-literal")
Dtype = Literal["auto", "bfloat16", "float32"]


def choices(literal: Any) -> str:
    """The values of a `Literal` as a metavar, such as `hybrid|s3|bm25`."""
    return "|".join(get_args(literal))


def indexes(incomplete: str) -> list[str]:
    """The indexes whose paths begin so, for the completion of a shell.

    If there is none, shells complete the paths of files and folders themselves.
    """
    folder, slash, begin = incomplete.rpartition("/")
    try:
        found = [
            folder + slash + path.name
            for path in sorted(Path(folder + slash or ".").expanduser().iterdir())
            if path.name.startswith(begin) and (path / "manifest.json").is_file()
        ]
    except (OSError, ValueError, RuntimeError):  # also an unknown user
        return []
    # A line break would be another completion.
    return [path for path in found if path.isprintable()]


Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Files, folders (with everything below them) and globs."),
]
Question = Annotated[str, typer.Argument(metavar="QUESTION", help="Any text.")]
IndexPath = Annotated[
    Path, typer.Argument(metavar="INDEX", help="Folder of the index.", autocompletion=indexes)
]
# Of an index that is only read; a `Path` would make another address of a URL.
PLACE = "Folder of the index, or its URL in object storage (s3://bucket/folder)."
IndexPlace = Annotated[str, typer.Argument(metavar="INDEX", help=PLACE, autocompletion=indexes)]
InPlace = Annotated[str, typer.Option("--in", metavar="INDEX", help=PLACE, autocompletion=indexes)]
To = Annotated[
    Path, typer.Option("--to", metavar="INDEX", help="Folder of the index.", autocompletion=indexes)
]
In = Annotated[
    Path, typer.Option("--in", metavar="INDEX", help="Folder of the index.", autocompletion=indexes)
]

# As `serving.named_places` reads them.
NamedIndexes = Annotated[
    list[str],
    typer.Argument(
        metavar="INDEX",
        help="Folders or URLs of indexes, or NAME=FOLDER; an index is called as its folder, "
        "without .s3r.",
    ),
]

AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        show_default="localhost and 127.0.0.1, or any for another address",
        help="Name under which clients reach the server, without its port; repeatable.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        metavar="R",
        show_default="no limit",
        help="Most requests per second of one client's address.",
    ),
]

HOST_NAMES = "minilm, smollm2, a local folder or GGUF file, or a model id on the Hugging Face Hub"
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help=f"Host model: {HOST_NAMES}.")]
HostName = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        show_default="minilm",
        help=f"Host model: {HOST_NAMES}.",
        autocompletion=lambda: list(EMBEDDED),
    ),
]
MovedHost = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        show_default="the one the index was made with",
        help="The host model, if it has moved since the index was made.",
    ),
]
CodebookName = Annotated[
    str | None,
    typer.Option(
        "--codebook",
        metavar="DIR",
        show_default="the one shipped for the host, or s3-codebook in its folder",
        help="The host's codebook, made with s3r fit: a folder or an id on the Hugging Face Hub.",
    ),
]
MovedCodebook = Annotated[
    str | None,
    typer.Option(
        "--codebook",
        metavar="DIR",
        show_default="the one the index was made with",
        help="The codebook, if it has moved since the index was made.",
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        show_default="default",
        help="default (measures best), paper, paper-literal, or a JSON file with your own recipe.",
        autocompletion=lambda: list(RECIPES),
    ),
]
SearchRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        show_default="the recipe of the index",
        help="Score with another recipe: default, paper, paper-literal, or a JSON file.",
        autocompletion=lambda: list(RECIPES),
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, mps or a torch device.",
        autocompletion=lambda: ["auto", "cpu", "cuda", "mps"],
    ),
]
DtypeName = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        metavar=choices(Dtype),
        help="Number format of the host; auto picks the fastest.",
    ),
]

Spans = Annotated[
    int | None,
    typer.Option(
        "-k",
        metavar="N",
        min=1,
        show_default="no limit",
        help="Maximum number of spans, or documents.",
    ),
]
SpansPerDocument = Annotated[
    int | None,
    typer.Option(
        "--spans-per-document",
        metavar="N",
        min=1,
        show_default="3 with --group-by, else no limit",
        help="Maximum number of spans of a document.",
    ),
]
ContextName = Annotated[
    ContextForm,
    typer.Option(
        "--context",
        metavar=choices(ContextForm),
        help="What spans take along of the text around them: nothing (sentence), what they refer "
        "to (passage), the sentences beside them (neighbours), or their paragraph (section).",
    ),
]
Rerank = Annotated[
    int | None,
    typer.Option(
        "--rerank",
        metavar="N",
        min=1,
        show_default="none",
        help="Let a language model read the N best sentences again, together with the question, "
        "and rank them by its attention.",
    ),
]
RerankHost = Annotated[
    str | None,
    typer.Option(
        "--rerank-host",
        metavar="HOST",
        show_default="the index's host",
        help="The language model that --rerank reads with: smollm2, a folder or GGUF file, or an "
        "id on the Hugging Face Hub.",
    ),
]
GroupByName = Annotated[
    GroupBy | None,
    typer.Option(
        "--group-by",
        metavar=choices(GroupBy),
        show_default="spans",
        help="Return documents, ranked by all of their evidence, each with its best spans.",
    ),
]
TokenBudget = Annotated[
    int | None,
    typer.Option(
        "--token-budget",
        metavar="N",
        min=1,
        show_default="512, or no limit with -k",
        help="Maximum tokens of all spans together, as the host counts them.",
    ),
]
MinRelevance = Annotated[
    float | None,
    typer.Option(
        "--min-relevance",
        metavar="R",
        min=0.0,
        max=1.0,
        show_default="0.05, or 0 with -k and in mode s3",
        help="Leave out spans of a lower relevance, 0 to 1.",
    ),
]
ModeName = Annotated[
    Mode,
    typer.Option(
        "--mode",
        metavar=choices(Mode),
        help="Rank by co-activation of features (s3), by words (bm25), or by both (hybrid).",
    ),
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        show_default="all documents",
        help="Search only documents with this metadata; repeatable. Values that parse as JSON "
        '(2024, true) are JSON, all others text. Operators come as JSON: year={"$gte": 2020}, or '
        '{"$or": [{"year": 2024}, {"draft": true}]}.',
    ),
]
OrderName = Annotated[
    Order,
    typer.Option(
        "--order",
        metavar=choices(Order),
        help="Best span first (score), or in the order of the documents (document).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        show_default="none",
        help="Ask a server started with s3r serve; INDEX is then the index's name there.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="S3R_TOKEN",
        metavar="TOKEN",
        show_default="none",
        help="The server's token; other users of this machine cannot see it in S3R_TOKEN.",
    ),
]


def conditions(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Parse `KEY=VALUE` texts and JSON objects into a metadata filter; None without any.

    Raises:
        typer.BadParameter: A text is neither.
    """
    wanted = [_condition(text) for text in texts or ()]
    return {"$and": wanted} if wanted else None


def _condition(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        whole = _json_or_text(text)
        if isinstance(whole, dict):
            return whole
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(
            f"{text!r} is neither KEY=VALUE nor a JSON object.", param_hint="--where"
        )
    return {key: _json_or_text(value)}


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=refuse_constant)
    except ValueError:
        return value


# Top-level fields of recipes of older releases, recognised to explain the error.
# fmt: off
_OLD_FIELDS = frozenset({
    "candidates", "coverage", "document", "document_k", "edges", "idf_power", "kernel",
    "length_power", "lexical_weight", "pooling", "query_k", "radius", "second_hop", "weight_power",
})
# fmt: on


def recipe(text: str | None) -> str | Recipe | None:
    """The name of a recipe, or the recipe in a JSON file.

    Raises:
        InputError: The file is missing or is not a recipe.
    """
    if text is None or text in RECIPES:
        return text
    try:
        content = Path(text).read_bytes()
    except OSError as error:
        raise InputError(
            f"The recipe {text!r} is neither default, paper nor paper-literal, nor a readable JSON "
            f"file ({error.strerror}); check the path."
        ) from error
    try:
        return Recipe.model_validate_json(content)
    except ValidationError as error:
        if _is_old(content):
            raise InputError(
                f"{text} is a recipe of an older release; rewrite it as docs/recipes.md shows."
            ) from error
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        where = f"{field}: " if field else ""
        raise InputError(f"{text} is not a valid recipe: {where}{message}.") from error


def _is_old(content: bytes) -> bool:
    """Whether a recipe has the flat shape of older releases."""
    fields = _json_or_text(content.decode(errors="replace"))
    if not isinstance(fields, dict):
        return False
    flat = any(isinstance(fields.get(name), str) for name in ("scoring", "fusion"))
    sentence = fields.get("sentence")
    layerless = isinstance(sentence, dict) and "tap" in sentence
    return flat or layerless or not _OLD_FIELDS.isdisjoint(fields)


def location(name: str | None) -> str | None:
    """The name of a host or codebook; a local folder or GGUF file as an absolute path.

    An index remembers where its host and codebook are, and may be opened from another folder.
    """
    return None if name is None else lasting(name)


def check_codebook_target(out: Path) -> None:
    """Refuse a folder that cannot take a codebook now rather than after hours of work.

    Raises:
        CodebookError: It holds something else.
    """
    if is_foreign(out):
        raise CodebookError(f"{out} holds something other than a codebook; choose another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)


def create_index(
    path: Path | None,
    host: str | None,
    codebook: str | None,
    recipe: str | Recipe | None,
    device: str,
    dtype: Dtype,
) -> S3Index:
    """`S3Index.create` with the values of the command line."""
    prepare()
    from s3_retriever.engine import S3Index

    return S3Index.create(
        path,
        location(host) or "minilm",
        codebook=location(codebook),
        recipe=recipe or "default",
        device=device,
        dtype=dtype,
    )


def open_index(
    path: str | Path,
    host: str | None,
    codebook: str | None,
    device: str,
    dtype: Dtype,
    *,
    needs_host: bool = True,
) -> S3Index:
    """`S3Index.open` with the values of the command line.

    Args:
        path: Folder of the index, or its URL in object storage.
        host: The host, if it has moved.
        codebook: The codebook, if it has moved.
        device: Device of the host.
        dtype: Number format of the host.
        needs_host: Whether the command goes on to load the host.
    """
    if needs_host:
        prepare()
    from s3_retriever.engine import S3Index

    return S3Index.open(
        path, location(host), codebook=location(codebook), device=device, dtype=dtype
    )


def open_remote(server: str, index: str | Path | None, token: str | None) -> RemoteIndex:
    """`RemoteIndex` with the values of the command line.

    Args:
        server: Address of the server.
        index: The index's name there; None for the only one.
        token: The server's token.
    """
    from s3_retriever.server.client import RemoteIndex

    return RemoteIndex(server, None if index is None else str(index), token=token)


def prepare() -> None:
    """Say that the host is about to load, and silence the progress bars of transformers."""
    if messages().is_terminal:
        say("Loading the host")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
