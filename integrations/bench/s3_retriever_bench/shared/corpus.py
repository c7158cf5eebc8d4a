"""Text and questions for benchmarks in which only their amount matters."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from s3_retriever import Document, InputError
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever.text.sentences import split_sentences

_T = TypeVar("_T")
_DOCUMENT_CHARACTERS = 4_000
_WARM_UP_QUESTIONS = 10
# Bounds for questions made from sentences: documents to read, words of a sentence.
_MOST_DOCUMENTS = 2_000
_FEWEST_WORDS, _MOST_WORDS = 6, 40


def source_files(files: Sequence[Path]) -> list[Path]:
    """The files given, or the source of the standard library if none is given."""
    return list(files) or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def source_name(files: Sequence[Path]) -> str:
    """How settings name the files."""
    return " + ".join(path.name for path in files) or "the standard library"


def documents(files: Sequence[Path]) -> Iterator[Document]:
    """The documents of all files, once.

    Args:
        files: Plain text, which is cut into documents of 4,000 characters, or `.jsonl` files
            with one document per line: an object with `text` and optionally `title`.

    Raises:
        InputError: A line is not such an object.
        OSError: A file cannot be read.
    """
    for number, path in enumerate(files):
        name = f"{number}-{path.name}"
        if path.suffix.lower() == ".jsonl":
            rows = parsed_file(path, _text_and_title, "a JSON object with text")
            for line, (written, title) in enumerate(rows, 1):
                yield Document(written, f"{name}/{line}", {"title": title} if title else {})
        else:
            text = path.read_text(encoding="utf-8", errors="replace")
            for start in range(0, len(text), _DOCUMENT_CHARACTERS):
                yield Document(text[start : start + _DOCUMENT_CHARACTERS], f"{name}/{start}")


def endless(files: Sequence[Path]) -> Iterator[Document]:
    """The documents of all files, over and over, each time with new ids.

    Raises:
        InputError: The files hold no text, or a line is not of the form that `documents` reads.
        OSError: A file cannot be read.
    """
    for number in count():
        empty = True
        for document in documents(files):
            empty = empty and not document.text.strip()
            yield replace(document, id=f"{number}/{document.id}")
        if empty:
            names = ", ".join(map(str, files))
            raise InputError(f"There is no text in {names}; give files with text.")


def enough(files: Sequence[Path], size: int, count: Callable[[str], int]) -> Iterator[Document]:
    """Documents of the files, repeated as needed, until they have a size as a function counts."""
    total = 0
    for document in endless(files):
        total += count(document.text)
        yield document
        if total >= size:
            return


def text_of(files: Sequence[Path], tokens: int, tokenizer: OffsetTokenizer) -> str:
    """The beginning of the files, repeated as needed, of `tokens` tokens.

    The last token may split in two where the text ends.
    """
    parts: list[str] = []
    total = 0
    for document in endless(files):
        parts.append(f"{document.text}\n")
        total += tokenizer.count(parts[-1])
        if total >= tokens:
            break
    # The parts joined may have fewer tokens than the sum of the parts.
    text = "".join(parts)
    ends = (int(end) for _, offsets in tokenizer.stream(text) for _, end in offsets)
    return text[: next(islice(ends, tokens - 1, None), len(text))]


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of a run.

    Attributes:
        measured: Those whose searches are timed.
        warm_up: Others to ask first; the same if there are no others.
    """

    measured: tuple[str, ...]
    warm_up: tuple[str, ...]


def choose_questions(ask: Path | None, files: Sequence[Path], count: int) -> Questions:
    """Choose questions, always the same and in the same order.

    Args:
        ask: A file of questions: one per line, or `.jsonl` with a field `question`. If None, a
            question is a sentence of the texts without every other word.
        files: The texts.
        count: Maximum number of questions to measure.

    Raises:
        InputError: There are no questions, or a line has none.
        OSError: A file cannot be read.
    """
    if ask is None:
        available = _made(files)
        none = "The texts have no sentence to make a question from; give questions with --ask FILE."
    else:
        asked = list(dict.fromkeys(_asked(ask)))
        available = (asked[i] for i in np.random.default_rng(0).permutation(len(asked)))
        none = f"{ask} has no questions; give a file with a question per line."
    chosen = list(islice(available, count + _WARM_UP_QUESTIONS))
    if not chosen:
        raise InputError(none)
    return Questions(tuple(chosen[:count]), tuple(chosen[count:] or chosen))


def _asked(path: Path) -> Iterator[str]:
    if path.suffix.lower() == ".jsonl":
        yield from parsed_file(path, _question, "a JSON object with question")
    else:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            yield from (line.strip() for line in lines if line.strip())


def _made(files: Sequence[Path]) -> Iterator[str]:
    """One question from each of the first documents, in random order."""
    texts = [document.text for document in islice(documents(files), _MOST_DOCUMENTS)]
    generator = np.random.default_rng(0)
    for number in generator.permutation(len(texts)):
        text = texts[number]
        sentences = [text[start:end].split() for start, end in split_sentences(text)]
        sentences = [words[:_MOST_WORDS] for words in sentences if len(words) >= _FEWEST_WORDS]
        if sentences:
            yield " ".join(sentences[generator.integers(len(sentences))][::2])


def _text_and_title(row: Mapping[str, Any]) -> tuple[str, Any]:
    return string(row, "text"), row.get("title")


def _question(row: Mapping[str, Any]) -> str:
    if not (question := string(row, "question")).strip():
        raise ValueError("question is empty")
    return question


def parsed_file(path: Path, parse: Callable[[Any], _T], wanted: str) -> Iterator[_T]:
    """As `parsed`, of a file, which may be damaged.

    Raises:
        InputError: A line cannot be used.
        OSError: The file cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        yield from parsed(path, lines, parse, wanted)


def parsed(
    name: object, lines: Iterable[str], parse: Callable[[Any], _T], wanted: str
) -> Iterator[_T]:
    """What a function makes of each line of JSON Lines that is not blank.

    Args:
        name: Where the lines are from.
        lines: The lines.
        parse: Takes an object; raises ValueError or KeyError if it cannot use it.
        wanted: What a line should be.

    Raises:
        InputError: A line cannot be used.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                result = parse(_json_object(line))
            except (ValueError, KeyError, RecursionError) as error:
                raise InputError(
                    f"{name}, line {number}, cannot be used ({error}); a line is {wanted}."
                ) from error
            yield result


def _json_object(line: str) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one kind for all
    return row


def string(row: Mapping[str, Any], field: str) -> str:
    """A field that has to be a text.

    Raises:
        ValueError: It is missing, no string, or not valid Unicode.
    """
    value = row.get(field)
    if not isinstance(value, str):
        raise ValueError(f"{field} is missing or not a string")  # noqa: TRY004 - one kind for all
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field} has a lone surrogate, which is not valid Unicode") from None
    return value
