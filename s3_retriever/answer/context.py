"""Pieces: a context of any length, cut into short documents that record their place in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s3_retriever.document import Document, as_documents
from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.search import Span
from s3_retriever.text import split_pieces
from s3_retriever.types import check_items, check_path, shown

Part = str | os.PathLike[str] | Document
Context = Part | Iterable[Part]

# A few paragraphs. The second hop leads from one document to others, here from piece to piece: on
# HotpotQA as one text (17 questions, 512 tokens, minilm) evidence recall was .81 with pieces of
# 32,768 characters, .84 with 4,000 and .91 with 1,000; on stories the size made no difference.
_PIECE_CHARACTERS = 1_000
# Characters of a file that are in memory at once.
_BLOCK_CHARACTERS = 1 << 20
# Metadata key of a piece's place; the other keys are the document's own. If the document has a key
# of this name, the place has one that is longer by "_".
_PLACE = "s3_piece"


def pieces(context: Context) -> Iterator[Document]:
    """Cut a context into pieces, reading files in blocks.

    A piece has at most 1,000 characters and ends with a paragraph if it can. Its id is its number
    and a digest of all that its scan depends on. Pieces of white space are skipped.

    Args:
        context: A text, a file of UTF-8 text, a document, or any number of these.

    Raises:
        InputError: The context contains anything else, or a file that cannot be read.
    """
    number = 0
    piece: Document | None = None
    for document, start, text in _cut(context):
        if not text.strip():
            continue
        if piece is not None:
            yield piece
        piece = _piece(number, document, start, text)
        number += 1
    if piece is not None:
        key = _place_key(piece.metadata)
        place = piece.metadata[key] | {"last": True}
        yield replace(piece, metadata={**piece.metadata, key: place})


def is_last(metadata: Mapping[str, Any]) -> bool:
    """Whether a piece with this metadata is the last one of its context."""
    place = metadata.get(_place_key(metadata))
    return isinstance(place, Mapping) and place.get("last") is True


def in_document(span: Span) -> Span:
    """Turn a span of a piece into one of the document that the piece was cut from.

    A span of a document that was not cut stays as it is.

    Raises:
        IndexStoreError: The index holds something that only looks like a piece of a context.
    """
    metadata = dict(span.metadata)
    place = metadata.pop(_place_key(span.metadata), None)
    if not (isinstance(place, Mapping) and "last" in place):
        return span
    match place:
        case {"document": str(document), "start": int(start)} if start >= 0:
            pass
        case _:
            raise IndexStoreError(
                f"{shown(span.document_id)} in the index is not a piece of a context; scan the "
                "context to another path."
            )
    return replace(
        span,
        document_id=document,
        start=start + span.start,
        end=start + span.end,
        metadata=metadata,
    )


def _place_key(metadata: Mapping[str, Any]) -> str:
    """The longest key that looks like that of a place, if there is one."""
    return max((key for key in metadata if key.rstrip("_") == _PLACE), key=len, default=_PLACE)


def _piece(number: int, document: Document, start: int, text: str) -> Document:
    digest = hashlib.blake2b(digest_size=12)
    read = [document.title, text, document.unit, document.metadata.get("language")]
    digest.update(json.dumps(read).encode())
    place = {"document": document.id, "start": start, "last": False}
    key = _place_key(document.metadata)
    metadata = {**document.metadata, f"{key}_" if key in document.metadata else key: place}
    return Document(text, f"{number}-{digest.hexdigest()}", metadata, document.unit)


def _cut(context: Context) -> Iterator[tuple[Document, int, str]]:
    """Each piece's document (that of a file without its text), start and text."""
    for part in check_items(context, "parts of the context", (str, os.PathLike, Document)):
        if isinstance(part, os.PathLike):
            path = check_path(part, "context")
            document, stretches = Document("", str(path)), _cut_file(path)
        elif isinstance(part, (str, Document)):
            (document,) = as_documents(part)
            stretches = split_pieces(document.text, _PIECE_CHARACTERS)
        else:
            raise InputError(
                "A context is a string, a pathlib.Path, a Document, or an iterable of these, not "
                f"{type(part).__name__}."
            )
        yield from ((document, start, text) for start, text in stretches)


def _cut_file(path: Path) -> Iterator[tuple[int, str]]:
    """Cut a text file; the last piece of a block waits for the next block, which may continue it.

    Offsets count the file's characters, line ends included, without a byte order mark.
    """
    start, rest = 0, ""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while block := file.read(_BLOCK_CHARACTERS):
                if "\0" in block:
                    raise InputError(f"{path} is binary; convert it to UTF-8 text first.")
                *whole, (_, rest) = split_pieces(rest + block, _PIECE_CHARACTERS)
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
