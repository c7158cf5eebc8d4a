"""`Content`: what a reader finds in a file, and the error of a file that it cannot use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3_retriever.errors import InputError
from s3_retriever.types import Unit

# Separates the pages of a PDF and the sections of an EPUB, as form feeds do in the output of
# `pdftotext`; the blank line around it ends a paragraph.
PAGE_BREAK = "\n\f\n"


@dataclass(frozen=True, slots=True)
class Content:
    """A text that a reader found in a file: the whole file, a notebook's cell or a record.

    Attributes:
        text: The text.
        title: The title that it gives itself; empty without one.
        unit: What its evidence is made of.
        metadata: What else it says about itself, as JSON values.
        part: Which part of the file it is, such as `3` for the third cell; empty for all of it.
        id: The id that it gives itself; empty without one.
    """

    text: str
    title: str = ""
    unit: Unit = "sentence"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    id: str = ""


Reader = Callable[[bytes], Content]


class UnreadableError(InputError):
    """A file without usable text; the message follows the file's name and a colon."""


def missing(kind: str, library: str) -> UnreadableError:
    """The error of a file whose reader needs a library that is not installed."""
    return UnreadableError(
        f"{kind} needs {library}; install it with: pip install 's3-retriever[files]'"
    )


def one_line(text: str) -> str:
    """A text without line breaks and runs of white space, as titles are."""
    return " ".join(text.split())
