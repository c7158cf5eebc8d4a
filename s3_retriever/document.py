"""`Document`: what goes into an index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3_retriever.errors import InputError
from s3_retriever.metadata import json_value
from s3_retriever.types import Unit, check_choice, check_items

# Hosts and BM25 read the title with every window and sentence, so its length is bounded.
TITLE_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Document:
    """A text with an id and metadata.

    Attributes:
        text: Any Unicode text of any length; may be empty.
        id: Unique within an index. Defaults to a hash of text and metadata: equal documents have
            equal ids.
        metadata: JSON values, and what has a plain form in JSON: NumPy scalars, dates and times
            (ISO 8601 text), `Decimal`, UUIDs, paths, enum members, tuples and sets. The document
            keeps a converted copy. The host reads the value of `title` in front of every
            window of the document, BM25 in front of every sentence; it is context and never part
            of a span. `language` (`de`, `German`) names the text's language for BM25; without it,
            the language is guessed.
        unit: What evidence is made of: `sentence`, or `line` for text whose lines are records
            (tables, logs, code), which are never joined, and cut only beyond 1,024 tokens. It is
            not part of the id.

    Raises:
        InputError: Text or id is not a string or not valid Unicode (it has a lone surrogate), JSON
            cannot hold the metadata, or the unit is unknown.
    """

    text: str
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    unit: Unit = "sentence"

    def __post_init__(self) -> None:
        """Check the fields and fill in the id."""
        if not isinstance(self.text, str):
            raise InputError(f"A document's text must be a string, not {type(self.text).__name__}.")
        if not isinstance(self.id, str):
            raise InputError(f"A document's id must be a string, not {type(self.id).__name__}.")
        # Subclasses of str, such as NumPy's, would be kept as they are.
        object.__setattr__(self, "text", str.__str__(self.text))
        object.__setattr__(self, "id", str.__str__(self.id))
        name = f"Document {self.id!r}" if self.id else "A document"
        text = _encoded(self.text, f"{name} has")
        _encoded(self.id, f"The id {self.id!r} has")
        try:
            values = json_value(self.metadata, "metadata")
        except InputError as error:
            raise InputError(f"{name} has metadata that JSON cannot hold: {error}") from None
        if not isinstance(values, dict):
            kind = type(self.metadata).__name__
            raise InputError(f"{name} has metadata that JSON cannot hold: a {kind}, not a mapping.")
        object.__setattr__(self, "metadata", values)
        listed = json.dumps(values, sort_keys=True, ensure_ascii=False)
        metadata = _encoded(listed, f"{name} has metadata with")
        check_choice(self.unit, "unit", Unit)
        if not self.id:
            digest = hashlib.blake2b(text, digest_size=16, key=b"s3-document")
            digest.update(metadata)
            object.__setattr__(self, "id", digest.hexdigest())

    @property
    def title(self) -> str:
        """`metadata["title"]` if it is a string, at most 400 characters of it; else empty."""
        return title_of(self.metadata)


def as_documents(documents: Iterable[Document | str] | Document | str) -> Iterator[Document]:
    """Iterate over documents, making them of plain texts; a single one need not be in a list.

    Raises:
        InputError: `documents` or an item is of another type.
    """
    for item in check_items(documents, "documents", (str, Document)):
        document = Document(item) if isinstance(item, str) else item
        if not isinstance(document, Document):
            hint = "; decode it" if isinstance(item, (bytes, bytearray)) else ""
            raise InputError(
                f"A document is a Document or a string, not {type(item).__name__}{hint}."
            )
        yield document


def _encoded(text: str, subject: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{subject} a lone surrogate at character {error.start}, which is not valid Unicode; "
            "decode its source with errors='replace'."
        ) from None


def title_of(metadata: Mapping[str, Any]) -> str:
    """The value of `title` if it is a string, else the empty string.

    Of a title of more than `TITLE_CHARACTERS`, the words that fit into them.
    """
    title = metadata.get("title")
    if not isinstance(title, str):
        return ""
    if len(title) <= TITLE_CHARACTERS:
        return title
    cut = title[:TITLE_CHARACTERS]
    # A word that is cut is dropped, unless it is the only one.
    return (cut if title[TITLE_CHARACTERS].isspace() else cut.rpartition(" ")[0] or cut).rstrip()
