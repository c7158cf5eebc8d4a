"""Pieces: contexts of any length as documents of bounded size that know where they stand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.search import Span
from s3_retriever.text.pieces import split_pieces

Part = str | Path | Document
Context = Part | Iterable[Part]

# A few paragraphs. The second hop leads from one document to others, and so from piece to piece:
# on HotpotQA as one text (17 questions, 512 tokens, minilm) evidence recall was .81 with pieces of
# 32,768 characters, .84 with 4,000 and .91 with 1,000; on stories all were alike.
_PIECE_CHARACTERS = 1_000
# Characters of a file in memory at once.
_BLOCK_CHARACTERS = 1 << 20
# Where a piece keeps its place; the rest of its metadata is the document's own.
_PLACE = "s3_piece"


def pieces(context: Context) -> Iterator[Document]:
    """Cut a context into pieces, holding no more of a file than a block.

    A piece has 1,000 characters at most and ends with a paragraph where it can. Its id holds its
    number and a digest of its title and text. Pieces of white space are left out.

    Args:
        context: A text, a file of UTF-8 text, a document, or any number of these.

    Raises:
        InputError: Something is none of these, or a file cannot be read.
    """
    number = 0
    waiting: Document | None = None
    for document, start, text in _stretches(context):
        if not text.strip():
            continue
        if waiting is not None:
            yield waiting
        waiting = _piece(number, document, start, text, last=False)
        number += 1
    if waiting is not None:
        place = waiting.metadata[_PLACE] | {"last": True}
        yield replace(waiting, metadata={**waiting.metadata, _PLACE: place})


def is_last(metadata: dict[str, Any]) -> bool:
    """Whether a piece with this metadata is the last one of its context."""
    return bool(metadata.get(_PLACE, {}).get("last"))


def placed(span: Span) -> Span:
    """A span of a piece as a span of the piece's document."""
    metadata = dict(span.metadata)
    place = metadata.pop(_PLACE)
    start = int(place["start"])
    return replace(
        span,
        document_id=str(place["document"]),
        start=start + span.start,
        end=start + span.end,
        metadata=metadata,
    )


def _piece(number: int, document: Document, start: int, text: str, *, last: bool) -> Document:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps([document.title, text]).encode())
    place = {"document": document.id, "start": start, "last": last}
    metadata = {**document.metadata, _PLACE: place}
    return Document(text, f"{number}-{digest.hexdigest()}", metadata)


def _stretches(context: Context) -> Iterator[tuple[Document, int, str]]:
    """Documents (of a file, without its text), and where in each which piece of text stands."""
    for part in _parts(context):
        if isinstance(part, Path):
            document = Document("", str(part))
            yield from ((document, start, text) for start, text in _file_pieces(part))
            continue
        document = Document(part) if isinstance(part, str) else part
        if not isinstance(document, Document):
            raise InputError(
                "A context is a string, a pathlib.Path, a Document, or an iterable of these, not "
                f"{type(part).__name__}."
            )
        yield from ((document, start, text) for start, text in _cut(document.text))


def _parts(context: Context) -> Iterable[Part]:
    if isinstance(context, (str, Path, Document)) or not isinstance(context, Iterable):
        return [context]
    return context


def _cut(text: str) -> Iterator[tuple[int, str]]:
    return split_pieces(text, _PIECE_CHARACTERS)


def _file_pieces(path: Path) -> Iterator[tuple[int, str]]:
    """Offsets and pieces of a text file; its end is held back until more is read, to be cut well.

    Characters count as they stand in the file, line ends included, a byte order mark excluded.
    """
    start, rest = 0, ""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while block := file.read(_BLOCK_CHARACTERS):
                if "\0" in block:
                    raise InputError(f"{path} is binary; convert it to UTF-8 text first.")
                *whole, (_, rest) = _cut(rest + block)
                for _, text in whole:
                    yield start, text
                    start += len(text)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); check path and permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 ({error.reason}); convert it, for example with: iconv -f latin1 "
            "-t utf-8"
        ) from error
    if rest:
        yield start, rest
