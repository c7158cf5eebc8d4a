"""Questions whose evidence is known: labelled by people, or made by inverse cloze."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import NamedTuple

from s3_retriever.document import Document, as_documents
from s3_retriever.errors import InputError
from s3_retriever.text import analyze, language_of, split_sentences
from s3_retriever.types import check_count, check_string, check_text, check_type


@dataclass(frozen=True, slots=True)
class GoldSpan:
    """A range of a document that answers a question.

    Attributes:
        document_id: The document's id.
        start: Offset of the first character.
        end: Offset after the last character.
        any_part: Whether any part of the range is enough, because the label is a whole paragraph,
            section or turn, of which a sentence may answer. Otherwise it must be covered.
    """

    document_id: str
    start: int
    end: int
    any_part: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        check_string(self.document_id, "document_id")
        check_count(self.start, "start", least=0)
        check_count(self.end, "end", least=0)


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question and all the evidence that a search should find.

    Attributes:
        text: What is asked.
        evidence: Where the documents answer it.

    Raises:
        InputError: The question is empty or has no evidence.
    """

    text: str
    evidence: tuple[GoldSpan, ...]

    def __post_init__(self) -> None:
        """Check the fields."""
        check_text(self.text, "question")
        check_type(self.evidence, tuple, "evidence")
        if not self.evidence:
            raise InputError(f"The question {self.text!r} has no evidence; remove it.")
        for gold in self.evidence:
            check_type(gold, GoldSpan, "evidence")


@dataclass(frozen=True, slots=True)
class Sample:
    """Documents that are searched together, and the questions asked of them.

    Raises:
        InputError: Evidence lies outside the documents.
    """

    documents: tuple[Document, ...]
    questions: tuple[LabelledQuestion, ...]

    def __post_init__(self) -> None:
        """Check that the evidence lies in the documents."""
        sizes = {document.id: len(document.text) for document in self.documents}
        for question in self.questions:
            check_type(question, LabelledQuestion, "question")
            for gold in question.evidence:
                if not 0 <= gold.start < gold.end <= sizes.get(gold.document_id, 0):
                    raise InputError(
                        f"The question {question.text!r} has its evidence at {gold.start}:"
                        f"{gold.end} of document {gold.document_id!r}, which is not in the "
                        "documents; correct the label."
                    )


_WORD = re.compile(r"\S+")
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
# Distinct terms that a text needs to serve as a question or as evidence.
_FEWEST_TERMS = 3


class _Sentence(NamedTuple):
    """A sentence that may become a question.

    Attributes:
        document: Index of its document.
        number: Its index in the document.
        neighbours: Indices of the sentences that are its evidence.
    """

    document: int
    number: int
    neighbours: tuple[int, ...]


class _Cut(NamedTuple):
    """A range that is removed from a document."""

    start: int
    end: int


def questions_from(documents: Iterable[Document | str], count: int = 200, seed: int = 0) -> Sample:
    """Make questions from documents alone (inverse cloze).

    A sentence is removed from its document, and half of its words, in a row, become the question;
    the sentences before and after it in the same paragraph are the evidence. The documents that
    are searched thus contain no question word for word.

    Such a question shares its topic with its evidence, but it does not ask, and its evidence is in
    one place. It shows which taps and weights find a topic. It says little about the weight of
    BM25, because neighbours repeat names more often than an answer repeats its question, and next
    to nothing about the second hop.

    Args:
        documents: Documents or plain texts; of several with the same id the first counts.
        count: Most questions to make. There may be fewer, because a sentence and its evidence are
            never both removed.
        seed: Seed of the random choice.

    Returns:
        The documents without the removed sentences, and the questions.
    """
    named: dict[str, Document] = {}
    for document in as_documents(documents):
        named.setdefault(document.id, document)
    distinct = list(named.values())
    languages = [language_of(document.text, document.metadata) for document in distinct]
    ranges = [
        list(split_sentences(document.text, document.unit, language))
        for document, language in zip(distinct, languages, strict=True)
    ]
    count = check_count(count, "count")
    generator = random.Random(check_count(seed, "seed", least=0))  # noqa: S311 - not a secret
    asked = _asked(distinct, languages, ranges, generator)
    return _sample(distinct, ranges, list(islice(asked, count)))


def _asked(
    documents: list[Document],
    languages: list[str],
    ranges: list[list[tuple[int, int]]],
    generator: random.Random,
) -> Iterator[tuple[_Sentence, str]]:
    """Sentences that can all be removed, in random order, and the questions that they become."""
    candidates = [
        sentence
        for place, document in enumerate(documents)
        for sentence in _candidates(place, document.text, ranges[place], languages[place])
    ]
    generator.shuffle(candidates)
    removed: set[tuple[int, int]] = set()
    evidence: set[tuple[int, int]] = set()
    for sentence in candidates:
        at = (sentence.document, sentence.number)
        beside = {(sentence.document, number) for number in sentence.neighbours}
        if at in evidence or beside & removed:
            continue
        start, end = ranges[sentence.document][sentence.number]
        text = crop(documents[sentence.document].text[start:end], generator)
        if _says_enough(text, languages[sentence.document]):
            removed.add(at)
            evidence |= beside
            yield sentence, text


def _candidates(
    place: int, text: str, ranges: list[tuple[int, int]], language: str
) -> Iterator[_Sentence]:
    """Sentences that say enough and have a neighbour that does."""
    substantial = [_says_enough(text[start:end], language) for start, end in ranges]
    joined = [not _PARAGRAPH_BREAK.search(text, a[1], b[0]) for a, b in pairwise(ranges)]
    for number in range(len(ranges)):
        before = [number - 1] if number and joined[number - 1] else []
        after = [number + 1] if number < len(joined) and joined[number] else []
        neighbours = tuple(beside for beside in before + after if substantial[beside])
        if substantial[number] and neighbours:
            yield _Sentence(place, number, neighbours)


def _says_enough(text: str, language: str) -> bool:
    return len(set(analyze(text, language))) >= _FEWEST_TERMS


def crop(sentence: str, generator: random.Random) -> str:
    """Take half of the words, in a row; all of a sentence without white space."""
    words = list(_WORD.finditer(sentence))
    half = (len(words) + 1) // 2
    first = generator.randrange(len(words) - half + 1)
    return sentence[words[first].start() : words[first + half - 1].end()]


def _sample(
    documents: list[Document],
    ranges: list[list[tuple[int, int]]],
    chosen: list[tuple[_Sentence, str]],
) -> Sample:
    """The documents without the chosen sentences, and the questions made from those."""
    cuts: list[list[_Cut]] = [[] for _ in documents]
    for sentence, _ in chosen:
        cuts[sentence.document].append(_cut(ranges[sentence.document], sentence))
    left = tuple(
        replace(document, text=_without(document.text, sorted(of)))
        for document, of in zip(documents, cuts, strict=True)
    )
    questions = []
    for sentence, text in chosen:
        of = cuts[sentence.document]
        evidence = tuple(
            GoldSpan(left[sentence.document].id, _moved(start, of), _moved(end, of))
            for start, end in (ranges[sentence.document][n] for n in sentence.neighbours)
        )
        questions.append(LabelledQuestion(text, evidence))
    return Sample(left, tuple(questions))


def _cut(ranges: list[tuple[int, int]], sentence: _Sentence) -> _Cut:
    """The range of a sentence and of the white space between it and a neighbour."""
    start, end = ranges[sentence.number]
    neighbour = sentence.neighbours[-1]
    if neighbour > sentence.number:
        return _Cut(start, ranges[neighbour][0])
    return _Cut(ranges[neighbour][1], end)


def _without(text: str, cuts: list[_Cut]) -> str:
    bounds = [0, *(bound for cut in cuts for bound in cut), len(text)]
    return "".join(text[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True))


def _moved(position: int, cuts: list[_Cut]) -> int:
    """The offset of a character once the cuts are made."""
    return position - sum(cut.end - cut.start for cut in cuts if cut.end <= position)
