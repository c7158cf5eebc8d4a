"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


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
