"""The questions that are asked: those of a file, or sentences with every other word left out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from s3_retriever.errors import InputError
from s3_retriever.text.sentences import split_sentences
from s3_retriever_bench.corpus import documents

# Asked before the others, to warm up.
_WARM_UP = 10
# Documents that questions are made from at most, and words of the sentences.
_DOCUMENTS = 2_000
_FEWEST, _MOST = 6, 40


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of a run.

    Attributes:
        measured: Those whose searches are timed.
        warm_up: Others, that are asked before; the same where there are no others.
    """

    measured: tuple[str, ...]
    warm_up: tuple[str, ...]


def choose_questions(ask: Path | None, files: list[Path], count: int) -> Questions:
    """Questions in an order that is always the same.

    Args:
        ask: A file with a question a line: in `.jsonl` files an object's field `question`, else
            the line itself. None makes them from the texts.
        files: The texts.
        count: Questions to measure at most.

    Raises:
        InputError: There are no questions, or a line has none.
        OSError: A file cannot be read.
    """
    if ask is None:
        made = _made(files)
        none = "The texts have no sentence to make a question of; give questions with --ask FILE."
    else:
        asked = list(dict.fromkeys(_asked(ask)))
        made = iter([asked[i] for i in np.random.default_rng(0).permutation(len(asked))])
        none = f"{ask} has no questions; give a file with a question a line."
    found = list(islice(made, count + _WARM_UP))
    if not found:
        raise InputError(none)
    return Questions(tuple(found[:count]), tuple(found[count:] or found))


def _asked(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                is_json = path.suffix.lower() == ".jsonl"
                yield _field(path, number, line) if is_json else line.strip()


def _field(path: Path, number: int, line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    text = record.get("question") if isinstance(record, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"{path} cannot be used: line {number} is no JSON object with a question in its "
            "field 'question'."
        )
    return text


def _made(files: list[Path]) -> Iterator[str]:
    """A question from each of the first documents, in an order of their own."""
    texts = [document.text for document in islice(documents(files), _DOCUMENTS)]
    generator = np.random.default_rng(0)
    for number in generator.permutation(len(texts)):
        sentences = list(_sentences(texts[number]))
        if sentences:
            yield " ".join(sentences[generator.integers(len(sentences))][::2])


def _sentences(text: str) -> Iterable[list[str]]:
    for start, end in split_sentences(text):
        words = text[start:end].split()
        if len(words) >= _FEWEST:
            yield words[:_MOST]
