"""Question sets from local JSON Lines files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from s3_retriever_bench.datasets.hub import PUBLIC
from s3_retriever_bench.datasets.labelled import (
    Form,
    Labelled,
    QuestionSet,
    Source,
    form_of,
    parse_row,
    parse_sources,
)
from s3_retriever.errors import InputError

_T = TypeVar("_T")


def read_files(source: str) -> QuestionSet:
    """Read a question set and the documents beside it.

    Args:
        source: JSON Lines of questions; `parse_row` says their form. Questions with `doc_ids`
            are asked of documents in `NAME.docs.jsonl`, those with neither `docs` nor `doc_ids`
            of all documents in `NAME_corpus.jsonl` (where the file is `NAME_claims.jsonl`).

    Raises:
        InputError: A file is missing or a row is not of the form.
    """
    path = Path(source)
    first = next(_each(path, lambda row: row), None)
    if first is None:
        raise InputError(f"The question set {path} is empty.")
    form = _checked(path, 1, form_of, first)
    name = path.stem.removesuffix("_claims")
    known = _documents(path, form)
    rows = list(_each(path, lambda row: parse_row(row, known)))
    labelled: list[Labelled] = [row for row in rows if row.support]
    if not labelled:
        raise InputError(f"No question of {path} has evidence, so there is nothing to measure.")
    return QuestionSet(name, form, labelled, tuple(known.values()) if form == "corpus" else ())


def _documents(path: Path, form: Form) -> dict[str, Source]:
    if form == "paragraphs":
        return {}
    stem = path.stem.removesuffix("_claims")
    beside = f"{stem}_corpus.jsonl" if form == "corpus" else f"{stem}.docs.jsonl"
    return {
        name: source
        for one in _each(path.with_name(beside), lambda row: parse_sources([row], form))
        for name, source in one.items()
    }


def _each(path: Path, parse: Callable[[dict[str, Any]], _T]) -> Iterator[_T]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _checked(path, number, lambda text: parse(json.loads(text)), line)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; name a question set in JSON Lines, or one "
            f"of {', '.join(PUBLIC)}."
        ) from error


def _checked(path: Path, number: int, parse: Callable[[Any], _T], value: Any) -> _T:
    try:
        return parse(value)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path}, line {number}, is not of the form that s3 bench reads: {error!r}"
        ) from error
