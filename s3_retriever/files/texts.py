"""`TextFiles`: the plain texts of files, for fitting."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from s3_retriever.errors import InputError
from s3_retriever.files.content import UnreadableError
from s3_retriever.files.decoding import text_encoding
from s3_retriever.files.lines import read_records
from s3_retriever.files.reading import check_readable, contents, read_text, reader_for
from s3_retriever.text import split_pieces

_BLOCK_CHARACTERS = 1 << 20


class TextFiles:
    """The texts of files, interleaved; every iteration reads the files again, block by block.

    Each line of a `.jsonl` file is a text, its field `text`; other files are cut into pieces.

    Args:
        paths: The files.

    Raises:
        InputError: A file cannot be read; raised while iterating.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[str]:
        return interleave([_texts(path) for path in self._paths])


def _texts(path: Path) -> Iterator[str]:
    try:
        if path.suffix.lower() == ".jsonl":
            for record in read_records(path):
                if isinstance(record, UnreadableError):
                    raise record
                yield record.text
        elif reader_for(path) is read_text:
            yield from _pieces(path)
        else:
            for content in contents(path):
                if isinstance(content, UnreadableError):
                    raise content
                yield from (piece for _, piece in split_pieces(content.text))
    except UnreadableError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except UnicodeError as error:
        raise InputError(f"{path} cannot be used: it is not UTF-8 ({error}).") from error


def _pieces(path: Path) -> Iterator[str]:
    """Pieces of a plain text; the last one waits for the next block, to be cut well."""
    rest = ""
    check_readable(path)
    with path.open(encoding=text_encoding(path)) as file:
        while block := file.read(_BLOCK_CHARACTERS):
            *whole, (_, rest) = split_pieces(rest + block)
            yield from (piece for _, piece in whole)
    if rest:
        yield rest


def interleave(sources: Sequence[Iterable[str]]) -> Iterator[str]:
    """Interleave the texts of all sources, which contribute equally many characters.

    The next text always comes from the source that contributed the fewest characters so far (the
    first of equals), until all are exhausted.
    """
    queue = [(0, position, iter(source)) for position, source in enumerate(sources)]
    while queue:
        drawn, position, source = queue[0]
        text = next(source, None)
        if text is None:
            heapq.heappop(queue)
        else:
            heapq.heapreplace(queue, (drawn + len(text), position, source))
            yield text
