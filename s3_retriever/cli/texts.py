"""Texts to fit a codebook on, read from files again and again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from s3_retriever.cli.interleave import interleave
from s3_retriever.cli.readers import UnreadableError, check_head, read_file, reader_for
from s3_retriever.cli.readers.text import read_text
from s3_retriever.errors import InputError
from s3_retriever.text import split_pieces

_BLOCK_CHARACTERS = 1 << 20


class TextFiles:
    """The texts of files, interleaved; every iteration reads the files anew, a part at a time.

    A line of a `.jsonl` file is one text, its field `text`; other files are cut into pieces.

    Args:
        paths: The files.

    Raises:
        InputError: While iterating: a file cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[str]:
        return interleave([_texts(path) for path in self._paths])


def _texts(path: Path) -> Iterator[str]:
    try:
        if path.suffix.lower() == ".jsonl":
            yield from _lines(path)
        elif reader_for(path) is read_text:
            yield from _pieces(path)
        else:
            content = reader_for(path)(read_file(path))
            yield from (piece for _, piece in split_pieces(content.text))
    except UnreadableError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be used: it is not UTF-8 ({error.reason}).") from error


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _field(path, number, line)


def _field(path: Path, number: int, line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(
            f"{path} cannot be used: line {number} is no JSON object with a string as its field "
            "'text'."
        )
    return text


def _pieces(path: Path) -> Iterator[str]:
    """Pieces of a plain text; its end is held back until more is read, to be cut well."""
    rest = ""
    check_head(path)
    with path.open(encoding="utf-8-sig") as file:
        while block := file.read(_BLOCK_CHARACTERS):
            *whole, (_, rest) = split_pieces(rest + block)
            yield from (piece for _, piece in whole)
    if rest:
        yield rest
